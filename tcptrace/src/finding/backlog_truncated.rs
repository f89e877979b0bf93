//! backlog-truncated: listen() was called with a backlog that net.core.somaxconn cut, without a word to the program.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use crate::correlate::{BoundedMap, Change, Correlator, Listener, ListenerId};

use super::case::{Concern, Description, Diagnosis};
use super::queue_limit::QueueLimit;
use super::words::count;
use super::{Apart, CauseRule, Confidence, Evidence, FindingKind, Party, Remedy, Severity, commands, keys};

/// Places that are remembered so as not to be told of twice.
const PLACES: usize = 4096;

/// Listeners of one place that are counted.
const MEMBERS: usize = 1024;

/// Negative arguments, which the kernel takes for huge, and the highest int: programs that ask so for "as much as there is"
/// get what they want.
const NO_NUMBER: u32 = 0x7fff_ffff;

/// The diagnosis.
pub(super) struct BacklogTruncated {
    /// What was told of a place: the argument and what became of it.
    told: BoundedMap<Place, (u32, u32)>,
}

/// Members of a reuseport group, and a server that is restarted, are told of once.
type Place = (u32, SocketAddr);

/// Listeners of that place, and the one to name.
pub(super) struct Truncated {
    listeners: BTreeSet<ListenerId>,
    named: Option<ListenerId>,
}

impl Default for BacklogTruncated {
    fn default() -> Self {
        Self { told: BoundedMap::new(PLACES) }
    }
}

impl Diagnosis for BacklogTruncated {
    const KIND: FindingKind = FindingKind {
        code: "backlog-truncated",
        opens_when: "listen() asked for more than somaxconn allows, and was cut without a word",
        page: include_str!("../../../docs/findings/backlog-truncated.md"),
        observations: &["listen", "backlog"],
        tracepoint_tier: "the same holds.",
        causes: &[CauseRule {
            code: "somaxconn",
            means: "the argument of listen() was higher than somaxconn at that moment",
            certain: Some("the argument of listen(), and the limit that the kernel then set"),
            likely: None,
            possible: None,
            told_apart: &[Apart {
                from: "a program that asks for as much as there is",
                by: "negative arguments and 2147483647 are not reported",
            }],
        }],
        evidence: &[
            keys::BACKLOG,
            keys::number("listeners", "listeners that it happened to"),
            keys::MAX_SYN_BACKLOG,
            keys::QUEUE_LIMIT,
            keys::SOMAXCONN,
            keys::SOMAXCONN_AT_LISTEN,
            keys::number("usual", "what kernels since 5.4 have as net.core.somaxconn"),
        ],
    };
    const QUIET: Duration = Duration::from_secs(5);

    type Key = Place;
    type Memory = Truncated;

    fn concern(&self, change: &Change, world: &Correlator) -> Option<Concern<Place>> {
        let Change::Listened(id) = change else { return None };
        let listener = world.listener(*id)?;
        let cut = cut(listener)?;
        let place = place(listener);
        Some(match self.told.get(&place) {
            Some(told) if *told == cut => Concern::Known(place),
            _ => Concern::Happened(place),
        })
    }

    fn begin(&mut self, _key: &Place, _world: &Correlator) -> Truncated {
        Truncated { listeners: BTreeSet::new(), named: None }
    }

    fn observe(&mut self, key: &Place, memory: &mut Truncated, change: &Change, world: &Correlator) {
        let Change::Listened(id) = change else { return };
        if memory.listeners.len() < MEMBERS {
            memory.listeners.insert(*id);
        }
        memory.named.get_or_insert(*id);
        if let Some(cut) = world.listener(*id).and_then(cut) {
            *self.told.get_or_insert_with(*key, || cut) = cut;
        }
    }

    fn describe(&self, _key: &Place, memory: &Truncated, world: &Correlator) -> Option<Description> {
        let listener = world.listener(memory.named?)?;
        let (asked, limit) = cut(listener)?;
        let listeners = u64::try_from(memory.listeners.len()).unwrap_or(u64::MAX);
        Some(describe(listener, asked, limit, listeners, world))
    }
}

fn place(listener: &Listener) -> Place {
    (listener.endpoints.netns, listener.endpoints.local)
}

/// The argument and the limit, if the program asked for a number and got less.
fn cut(listener: &Listener) -> Option<(u32, u32)> {
    let call = listener.listen?;
    let asked = call.backlog.filter(|asked| *asked < NO_NUMBER)?;
    let by_somaxconn = call.somaxconn.is_none_or(|somaxconn| somaxconn == listener.limit);
    (listener.limit_seen && by_somaxconn && asked > listener.limit).then_some((asked, listener.limit))
}

fn describe(listener: &Listener, asked: u32, limit: u32, listeners: u64, world: &Correlator) -> Description {
    let namespace = world.namespace(listener.endpoints.netns);
    let knobs = namespace.map(|namespace| &namespace.knobs);
    let subject = Party::of_listener(listener, world);
    let then = listener.listen.and_then(|call| call.somaxconn);
    let now = knobs.and_then(|knobs| knobs.somaxconn);
    let wanted = QueueLimit::of(listener, namespace).map_or(asked, |limit| limit.wanted_somaxconn());
    let explanation = format!(
        "listen(fd, {asked}) got a queue of {limit}: net.core.somaxconn was {}, and the kernel cuts without an error",
        then.unwrap_or(limit)
    );
    let mut remedy = vec![match now.filter(|now| *now >= wanted) {
        Some(now) => Remedy::text(format!(
            "net.core.somaxconn is {now} by now, but takes effect at the next listen(): restart the application"
        )),
        None => Remedy::command(
            "if the queue is to be that long: raise net.core.somaxconn, then restart the application",
            commands::sysctl(
                listener.endpoints.netns,
                subject.process.as_ref(),
                &format!("net.core.somaxconn={wanted}"),
            ),
        ),
    }];
    let max_syn_backlog = knobs.and_then(|knobs| knobs.max_syn_backlog);
    let value = max_syn_backlog.map_or_else(String::new, |value| format!(" ({value})"));
    remedy.push(Remedy::not(format!(
        "the application's own setting ({asked}) is not the limit, nor is net.ipv4.tcp_max_syn_backlog{value}"
    )));
    let more = if listeners > 1 {
        format!("; {}", count(listeners, "listener", "listeners"))
    } else {
        String::new()
    };
    Description {
        severity: Severity::Info,
        // Somebody may call listen() with a number that stands for "much"; that it was cut is seen.
        confidence: Confidence::Certain,
        title: format!("{subject} asked for a backlog of {asked} and got {limit}"),
        subject,
        cause: "somaxconn",
        numbers: vec![format!("asked for {asked}, limit {limit}{more}")],
        evidence: Evidence::new()
            .with("backlog", asked)
            .with("queue_limit", limit)
            .with("somaxconn", now)
            .with("somaxconn_at_listen", then)
            .with("listeners", listeners)
            .with_some("max_syn_backlog", max_syn_backlog)
            .with("why", explanation.as_str()),
        remedy,
        explanation,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::finding::testing::{Play, Server, task};

    fn listen(play: &mut Play, sk: u64, backlog: u32, somaxconn: u32) {
        let server = Server::new(sk, "0.0.0.0:1080", backlog.min(somaxconn));
        server.listen(play, task(6039, "delegated"), Some(backlog), somaxconn);
    }

    #[test]
    fn a_cut_is_told_with_both_numbers_and_the_command() {
        let mut play = Play::new(128);
        listen(&mut play, 100, 4096, 128);
        play.ticks_until(10_000);
        let finding = play.only();
        assert_eq!((finding.code, finding.cause), ("backlog-truncated", "somaxconn"));
        assert_eq!((finding.severity, finding.confidence), (Severity::Info, Confidence::Certain));
        assert_eq!(finding.title, "delegated[6039] 0.0.0.0:1080 asked for a backlog of 4096 and got 128");
        assert_eq!(finding.remedy[0].command.as_deref(), Some("sysctl -w net.core.somaxconn=4096"));
        let evidence = &Play::json(finding)["evidence"];
        assert_eq!((&evidence["backlog"], &evidence["queue_limit"]), (&json!(4096), &json!(128)));
    }

    #[test]
    fn a_group_is_one_finding_and_a_restart_no_news() {
        let mut play = Play::new(128);
        for member in 0..4 {
            listen(&mut play, 100 + member, 511, 128);
        }
        play.ticks_until(10_000);
        assert_eq!(Play::json(play.only())["evidence"]["listeners"], json!(4));
        listen(&mut play, 200, 511, 128);
        play.ticks_until(20_000);
        play.only();
        // Another number is.
        listen(&mut play, 300, 1024, 128);
        assert_eq!(play.findings.last().unwrap().id, 2);
    }

    #[test]
    fn of_hundreds_at_once_the_first_are_told_and_the_others_counted() {
        let mut play = Play::new(128);
        let begin = |play: &mut Play, ports: std::ops::Range<u16>| {
            for port in ports {
                let local: &'static str = format!("127.0.0.1:{port}").leak();
                let server = Server::new(u64::from(port), local, 128);
                server.listen(play, task(6039, "delegated"), Some(511), 128);
            }
        };
        let told = |play: &Play| {
            let ids: BTreeSet<u64> = play.findings.iter().map(|finding| finding.id).collect();
            (ids.len(), play.engine.untold().collect::<Vec<_>>())
        };
        begin(&mut play, 1000..2000);
        assert_eq!(told(&play), (256, vec![("backlog-truncated", 744)]));
        // One more each second.
        play.ticks_until(10_000);
        begin(&mut play, 3000..3100);
        assert_eq!(told(&play), (266, vec![("backlog-truncated", 834)]));
    }

    #[test]
    fn what_is_not_cut_or_asks_for_no_number_is_quiet() {
        let mut play = Play::new(4096);
        for (sk, backlog) in [(100, 128), (101, 4096), (102, u32::MAX), (103, 0x7fff_ffff), (104, 0)] {
            listen(&mut play, sk, backlog, 4096);
        }
        play.ticks_until(10_000);
        assert!(play.findings.is_empty(), "{:#?}", play.findings);
    }
}
