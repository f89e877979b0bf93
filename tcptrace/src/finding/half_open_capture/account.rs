//! What is said about unanswered requests.

use std::time::Duration;

use crate::correlate::{Correlator, Listener, PeerPattern, Unanswered, UnansweredNetwork};
use crate::event::{KnobSample, ListenerTotals, observation};
use crate::finding::case::Description;
use crate::finding::words::{count, span};
use crate::finding::{Confidence, Evidence, NetworkFacts, Party, Remedy, Severity, commands};

use super::Pile;

/// The timer doubles up to this (`TCP_RTO_MAX`), seconds.
const LONGEST_PAUSE: u64 = 120;

/// A flood comes from everywhere.
const FLOOD_NETWORKS: u64 = 8;

/// Networks named in the text.
const NAMED: usize = 4;

pub(super) struct Account<'a> {
    listener: &'a Listener,
    memory: &'a Pile,
    world: &'a Correlator,
    knobs: Option<&'a KnobSample>,
    subject: Party,
    /// What the listener counted since it began.
    grown: ListenerTotals,
}

impl<'a> Account<'a> {
    pub(super) fn of(listener: &'a Listener, memory: &'a Pile, world: &'a Correlator) -> Self {
        Self {
            listener,
            memory,
            world,
            knobs: world.namespace(listener.endpoints.netns).map(|namespace| &namespace.knobs),
            subject: Party::of_listener(listener, world),
            grown: listener.totals.less(&memory.before),
        }
    }

    pub(super) fn describe(&self) -> Description {
        let seen = &self.memory.unanswered;
        let (cause, confidence, explanation) = self.cause();
        Description {
            severity: if self.is_full() { Severity::Critical } else { Severity::Warning },
            confidence,
            title: format!(
                "{} has {} whose SYN-ACKs stay unanswered",
                self.subject,
                count(seen.requests, "half-open request", "half-open requests")
            ),
            subject: self.subject.clone(),
            cause,
            numbers: self.numbers(),
            evidence: self.evidence(&explanation),
            remedy: self.remedy(cause),
            explanation,
        }
    }

    fn cause(&self) -> (&'static str, Confidence, String) {
        let seen = &self.memory.unanswered;
        let sources = count(seen.sources, "address", "addresses");
        if let Some(answers) = answers_in_words(seen) {
            let explanation =
                format!("{answers}: the clients have given up, or are gone, before our SYN-ACKs reach them");
            return ("client-gave-up", Confidence::Likely, explanation);
        }
        match seen.pattern() {
            PeerPattern::Insist => {
                let elsewhere = seen.completed_elsewhere > 0;
                let others = if elsewhere {
                    "; other networks complete, so it is their path, not this server"
                } else {
                    ""
                };
                let again: Vec<String> =
                    [(seen.repeated, "repeated the SYN"), (seen.retried, "came from a new port")]
                        .into_iter()
                        .filter(|(number, _)| *number > 0)
                        .map(|(number, how)| format!("{number} {how}"))
                        .collect();
                let explanation = format!(
                    "the peers try again (of {sources}: {}): our SYN-ACKs do not reach them, or their ACKs do not reach us (one \
                     host cannot tell which){others}",
                    again.join(", ")
                );
                (
                    "return-path",
                    if elsewhere { Confidence::Likely } else { Confidence::Possible },
                    explanation,
                )
            }
            PeerPattern::Flood if seen.network_count >= FLOOD_NETWORKS && self.sees_ends() => (
                "syn-flood",
                Confidence::Likely,
                format!(
                    "{sources} in {} asked once each and never again: forged or careless senders, as in a SYN flood",
                    count(seen.network_count, "network", "networks")
                ),
            ),
            // Silence alone says nothing of the peers.
            PeerPattern::Flood | PeerPattern::GiveUp => {
                let unseen = if self.sees_ends() {
                    ""
                } else {
                    "; RSTs, ICMP errors and the last time-out of a request are not seen in this tier"
                };
                (
                    "unknown",
                    Confidence::Possible,
                    format!(
                        "{sources} asked, and no peer was seen to try again{unseen}. It may be the path (SYN-ACKs or ACKs get lost, \
                         and the clients do not wait for long), clients that are gone, or a SYN flood"
                    ),
                )
            }
        }
    }

    fn numbers(&self) -> Vec<String> {
        let seen = &self.memory.unanswered;
        let limit = self.limit().map_or_else(String::new, |limit| format!(", limit {limit}"));
        let oldest = self
            .oldest()
            .map_or_else(String::new, |oldest| format!("; the oldest began {} ago", span(oldest)));
        let queue = self.memory.deepest.map_or_else(
            || format!("{} unanswered{limit}{oldest}", count(seen.requests, "request", "requests")),
            |deepest| format!("{deepest} in the SYN queue{limit}{oldest}"),
        );
        let expired = if self.sees_ends() { format!(", {} expired", seen.expired) } else { String::new() };
        let mut lines = vec![
            queue,
            format!(
                "{} of {}{expired}",
                count(seen.retransmissions, "SYN-ACK sent again", "SYN-ACKs sent again"),
                count(seen.sources, "address", "addresses"),
            ),
        ];
        let networks: Vec<String> = seen.networks.iter().take(NAMED).map(network_in_words).collect();
        let more = seen.network_count.saturating_sub(u64::try_from(networks.len()).unwrap_or(u64::MAX));
        let more = if more > 0 { format!("; {more} more networks") } else { String::new() };
        lines.push(format!("{}{more}", networks.join("; ")));
        if seen.completed_elsewhere > 0 {
            lines.push(format!(
                "meanwhile {} completed from {} that answer",
                count(seen.completed_elsewhere, "connection", "connections"),
                count(seen.networks_elsewhere, "network", "networks")
            ));
        }
        lines
    }

    fn evidence(&self, explanation: &str) -> Evidence {
        let seen = &self.memory.unanswered;
        let retries = self.knobs.and_then(|knobs| knobs.synack_retries);
        let networks = seen.networks.iter().map(|row| Party {
            kind: "network",
            network: Some(NetworkFacts {
                network: format!("{}/{}", row.network, row.bits),
                requests: row.requests,
                retransmissions: row.retransmissions,
                expired: self.sees_ends().then_some(row.expired),
                completed: row.completed,
                sources: row.sources,
                retried_from_new_port: row.retried,
            }),
            ..Party::default()
        });
        let grown = |value: Option<u64>| value.filter(|value| *value > 0);
        Evidence::new()
            .with("half_open", self.memory.deepest)
            .with("limit", self.limit())
            .with("requests", seen.requests)
            .with("sources", seen.sources)
            // Without their end in sight, earlier requests of the same peer may have been answered.
            .with("retried_from_new_port", (self.sees_ends() || seen.retried > 0).then_some(seen.retried))
            .with("repeated_syn", seen.repeated)
            .with("retransmissions", seen.retransmissions)
            .with("expired", self.sees_ends().then_some(seen.expired))
            .with_some("ended_by_icmp", (seen.unreachable > 0).then_some(seen.unreachable))
            .with_some("reset_by_peer", (seen.reset > 0).then_some(seen.reset))
            .with("oldest_ms", self.oldest().map(|oldest| oldest.as_secs_f64() * 1e3))
            .with("synack_retries", retries)
            .with("timeout_s", retries.map(timeout))
            .with("networks", seen.network_count)
            .with("prefixes", networks.collect::<Vec<_>>())
            .with("completed_elsewhere", self.sees_networks().then_some(seen.completed_elsewhere))
            .with("completed_elsewhere_percent", completed_percent(seen))
            .with_some("syn_drops", grown(self.grown.syn_drops_syn_queue))
            .with_some("cookies_sent", grown(self.grown.cookies_sent))
            .with_some("requests_forgotten", (seen.forgotten > 0).then_some(seen.forgotten))
            .with("why", explanation)
    }

    fn remedy(&self, cause: &str) -> Vec<Remedy> {
        let advice = match cause {
            "return-path" => {
                "mend the path from here to those networks: look for a stateful firewall or NAT that lost its state, let it \
                 answer what it does not know with RST instead of dropping it, and stop the clients until then"
            }
            "syn-flood" => "drop the flood before it gets here; SYN cookies keep others connected meanwhile",
            "unknown" => {
                "find out what the peers do: a capture shows whether anything but SYNs comes from those networks, and the fexit or \
                 kprobe tier sees how requests end"
            }
            _ => {
                "find out what those clients are; a scanner, or a load balancer that closes without RST, is harmless"
            }
        };
        let mut remedy = vec![match cause {
            "unknown" => {
                let port = self.listener.endpoints.local.port();
                Remedy::command(advice, format!("tcpdump -ni any 'tcp port {port}'"))
            }
            _ => Remedy::text(advice),
        }];
        let retries = self.knobs.and_then(|knobs| knobs.synack_retries);
        match retries {
            Some(retries) if retries > 1 => {
                let fewer = if retries > 2 { 2 } else { 1 };
                remedy.push(Remedy::command(
                    format!(
                        "let requests expire sooner: net.ipv4.tcp_synack_retries {retries} keeps each for {} s, {fewer} for {} s",
                        timeout(retries),
                        timeout(fewer)
                    ),
                    commands::sysctl(
                        self.listener.endpoints.netns,
                        self.subject.process.as_ref(),
                        &format!("net.ipv4.tcp_synack_retries={fewer}"),
                    ),
                ));
            }
            Some(retries) => remedy.push(Remedy::text(format!(
                "net.ipv4.tcp_synack_retries is {retries} already: a request is kept for {} s",
                timeout(retries)
            ))),
            None => {}
        }
        let value = |value: Option<u32>| value.map_or_else(String::new, |value| format!(" ({value})"));
        remedy.push(Remedy::not(format!(
            "the backlog{}, net.core.somaxconn{} and net.ipv4.tcp_max_syn_backlog{} are not the cause: a longer queue fills up as well",
            value(self.limit()),
            value(self.knobs.and_then(|knobs| knobs.somaxconn)),
            value(self.knobs.and_then(|knobs| knobs.max_syn_backlog)),
        )));
        remedy
    }

    /// The limit of the SYN queue is that of the accept queue.
    fn limit(&self) -> Option<u32> {
        self.listener.limit_seen.then_some(self.listener.limit)
    }

    fn oldest(&self) -> Option<Duration> {
        Some(self.world.now().since(self.memory.unanswered.oldest?))
    }

    /// Whether it is seen how requests end.
    fn sees_ends(&self) -> bool {
        self.world.observes(observation::REQUEST_END)
    }

    /// Whether completed connections are counted by network.
    fn sees_networks(&self) -> bool {
        self.world.observes(observation::SYN_DROP)
    }

    fn is_full(&self) -> bool {
        self.limit().zip(self.memory.deepest).is_some_and(|(limit, deepest)| deepest >= limit)
            || self.grown.syn_drops_syn_queue > Some(0)
            || self.grown.cookies_sent > Some(0)
    }
}

/// What most requests are answered with, late, in place of a final ACK; `None` for silence.
fn answers_in_words(seen: &Unanswered) -> Option<String> {
    let all = count(seen.requests, "request", "requests");
    if (seen.unreachable + seen.reset) * 2 <= seen.requests {
        None
    } else if seen.unreachable > seen.reset {
        Some(format!("late SYN-ACKs are answered by ICMP errors ({} of {all})", seen.unreachable))
    } else {
        Some(format!("late SYN-ACKs are answered by RSTs ({} of {all})", seen.reset))
    }
}

fn network_in_words(row: &UnansweredNetwork) -> String {
    let retried = match row.retried {
        0 => String::new(),
        retried => format!(", {retried} retried from a new port"),
    };
    let completed = row.completed.map_or_else(String::new, |completed| format!(", {completed} completed"));
    format!(
        "{}/{}: {} from {}{retried}{completed}",
        row.network,
        row.bits,
        count(row.requests, "request", "requests"),
        count(row.sources, "address", "addresses")
    )
}

/// Seconds from the first SYN-ACK to the end of a request that nobody answers: 1 + 2 + 4 …, one more pause than retries.
fn timeout(retries: u32) -> u64 {
    (0..=retries.min(64)).map(|round| 1_u64.checked_shl(round).unwrap_or(u64::MAX).min(LONGEST_PAUSE)).sum()
}

/// Of the attempts from other networks, how many of a hundred completed.
fn completed_percent(seen: &Unanswered) -> Option<u64> {
    let all = seen.completed_elsewhere.saturating_add(seen.unanswered_elsewhere);
    seen.completed_elsewhere.saturating_mul(100).checked_div(all)
}

#[cfg(test)]
mod tests {
    use super::timeout;

    #[test]
    fn the_default_of_five_retries_is_63_seconds() {
        assert_eq!([0, 1, 2, 5, 6, 8].map(timeout), [1, 3, 7, 63, 127, 367]);
    }
}
