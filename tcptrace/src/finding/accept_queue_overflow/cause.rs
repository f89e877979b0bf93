//! Why the queue overflowed, and what to do about it.

use std::time::Duration;

use crate::finding::owner_state::who_accepts;
use crate::finding::queue_limit::{QueueLimit, SetBy};
use crate::finding::words::{rate, span};
use crate::finding::{Confidence, Remedy, commands, own_words};
use crate::software::Need;

use super::account::Account;
use super::stall::STALL;

/// Applications that ask for less than this have not thought about it.
const SHORT_QUEUE: u32 = 128;

/// A full queue that drains faster than this rides out bursts if it is made longer; a slower one only makes clients wait.
const DRAINS_SOON: Duration = Duration::from_secs(5);

/// A server that empties a full queue faster than this accepts fast enough, whatever is dropped in a burst.
const EMPTIED_AT_ONCE: Duration = Duration::from_millis(500);

/// The cause, and how it is told.
pub(super) struct Cause {
    pub(super) code: &'static str,
    pub(super) confidence: Confidence,
    pub(super) explanation: String,
    pub(super) remedy: Vec<Remedy>,
}

impl Account<'_> {
    /// The first that applies, in the order in which they would have to be mended.
    pub(super) fn cause(&self) -> Cause {
        if self.memory.stall.explains(self.drops.total()) {
            return self.stalled();
        }
        let Some(limit) = self.limit else {
            return self.slow(Confidence::Possible, "the queue's limit is not known");
        };
        // A second without any accept may be the beginning of a stall.
        let accepting = self.accepts.is_some_and(|accepts| accepts > 0.0);
        let observed = if accepting { Confidence::Certain } else { Confidence::Likely };
        let longer_helps = limit.limit < SHORT_QUEUE || self.drains_soon(limit.limit);
        match limit.set_by() {
            SetBy::Somaxconn => self.cut(&limit, observed),
            SetBy::Argument { somaxconn_allows_more: true, seen } if longer_helps => {
                self.short_argument(&limit, if seen { observed } else { Confidence::Likely }, seen)
            }
            SetBy::Argument { seen, .. } => {
                self.slow(if seen { observed } else { Confidence::Likely }, &limit_in_words(&limit))
            }
            SetBy::Either if longer_helps => self.either(&limit),
            SetBy::Either => self.slow(Confidence::Likely, &limit_in_words(&limit)),
        }
    }

    fn stalled(&self) -> Cause {
        let stall = &self.memory.stall;
        let reason = stall.owner.reason(self.subject.process.as_ref());
        let explanation = match stall.longest {
            Some(longest) if stall.filled_the_queue() => format!(
                "no process accepted for {} while connections waited, until the queue was full{}",
                span(longest),
                reason.words
            ),
            Some(longest) => {
                format!("no process accepted for {} while the queue was full{}", span(longest), reason.words)
            }
            None => format!("no process accepts{}", reason.words),
        };
        let mut remedy = vec![reason.remedy];
        remedy.extend(stall.owner.lasting_remedy(&self.subject));
        remedy.push(Remedy::not(format!("no queue is long enough for that: {}", self.not_the_limit(&[]))));
        let seen = reason.observed && (stall.owner.stopped || self.accepts.is_some());
        let confidence = if seen { Confidence::Certain } else { Confidence::Likely };
        Cause { code: "accept-stalled", confidence, explanation, remedy }
    }

    fn cut(&self, limit: &QueueLimit, confidence: Confidence) -> Cause {
        let asked = limit.asked_in_words().unwrap_or_default();
        let wanted = limit.wanted_somaxconn();
        let explanation =
            format!("net.core.somaxconn: listen(fd, {asked}) was cut to {}{}", limit.limit, self.too_slow());
        let now = limit.somaxconn_now.filter(|now| *now > limit.limit);
        let mut remedy = vec![match now {
            Some(now) => Remedy::text(format!(
                "net.core.somaxconn is {now} by now, but takes effect at the next listen(): restart the application"
            )),
            None => Remedy::command(
                "raise net.core.somaxconn, then restart the application: it takes effect at the next listen()",
                self.sysctl(&format!("net.core.somaxconn={wanted}")),
            ),
        }];
        remedy.extend(self.more_workers());
        remedy.push(Remedy::not(self.not_the_limit(&["somaxconn"])));
        Cause { code: "somaxconn", confidence, explanation, remedy }
    }

    fn short_argument(&self, limit: &QueueLimit, confidence: Confidence, seen: bool) -> Cause {
        let somaxconn = limit.somaxconn_now.or(limit.somaxconn_then).unwrap_or_default();
        let explanation = if seen {
            let asked = limit.asked_in_words().unwrap_or_default();
            format!(
                "the application's backlog: listen(fd, {asked}); somaxconn is {somaxconn}{}",
                self.too_slow()
            )
        } else {
            format!(
                "the application's backlog, {}: its listen() was not seen, but somaxconn ({somaxconn}) is higher \
                 (unless that was raised since){}",
                limit.limit,
                self.too_slow()
            )
        };
        let mut remedy = own_words::or_general(
            &self.subject,
            Need::Backlog(limit.wanted_backlog()),
            "raise the application's own listen backlog (its configuration)",
            &format!("; somaxconn ({somaxconn}) needs no change"),
        );
        remedy.extend(self.more_workers());
        remedy.push(Remedy::not(format!("{} either", self.not_the_limit(&["somaxconn"]))));
        Cause { code: "backlog-argument", confidence, explanation, remedy }
    }

    fn either(&self, limit: &QueueLimit) -> Cause {
        let explanation = match limit.somaxconn_now {
            Some(somaxconn) if somaxconn == limit.limit => format!(
                "net.core.somaxconn ({somaxconn}), or an equal argument of listen(), which was not seen{}",
                self.too_slow()
            ),
            Some(somaxconn) => format!(
                "the argument of listen(), which was not seen, or the somaxconn of that time; now it is {somaxconn}{}",
                self.too_slow()
            ),
            None => format!("a short queue; neither listen() nor somaxconn was seen{}", self.too_slow()),
        };
        let wanted = limit.wanted_somaxconn();
        let mut remedy = vec![Remedy::command(
            "raise net.core.somaxconn",
            self.sysctl(&format!("net.core.somaxconn={wanted}")),
        )];
        remedy.extend(own_words::or_general(
            &self.subject,
            Need::Backlog(wanted),
            "raise the application's own listen backlog as well, and restart it",
            ": the lower of both counts",
        ));
        remedy.extend(self.more_workers());
        remedy.push(Remedy::not(self.not_the_limit(&["somaxconn"])));
        Cause { code: "somaxconn", confidence: Confidence::Possible, explanation, remedy }
    }

    fn slow(&self, confidence: Confidence, queue: &str) -> Cause {
        let explanation = match (self.accepts, self.arrivals) {
            (Some(accepts), Some(arrivals)) => format!(
                "accepts are too slow for any backlog: {} against {} arriving; {queue}",
                rate(accepts),
                rate(arrivals)
            ),
            (Some(accepts), None) => {
                format!("accepts are too slow for any backlog: {}; {queue}", rate(accepts))
            }
            (None, _) => format!("accepts are too slow, or came in a burst (not known yet); {queue}"),
        };
        let mut remedy = self.more_workers();
        if remedy.is_empty() {
            remedy.extend(own_words::or_general(
                &self.subject,
                Need::Workers(None),
                "accept faster: more threads or processes, or less work before the next accept()",
                "",
            ));
        }
        let limit = self.limit.map_or_else(String::new, |limit| format!(" ({})", limit.limit));
        remedy.push(Remedy::not(format!(
            "a longer queue{limit} would only make clients wait longer; {}",
            self.not_the_limit(&[])
        )));
        Cause { code: "accept-slow", confidence, explanation, remedy }
    }

    /// Advice to add workers, if accepts do not keep up.
    fn more_workers(&self) -> Vec<Remedy> {
        let (Some(accepts), Some(arrivals)) = (self.accepts, self.arrivals) else { return Vec::new() };
        if !self.falls_behind() || accepts == 0.0 {
            return Vec::new();
        }
        let who = match self.accept_threads() {
            None | Some(0) => "accepts are at".to_owned(),
            Some(_) => who_accepts(self.listener, self.world),
        };
        own_words::or_general(
            &self.subject,
            Need::Workers(own_words::workers_for(&self.subject, self.accept_threads(), accepts, arrivals)),
            "add workers",
            &format!(": {who} {} against {} arriving", rate(accepts), rate(arrivals)),
        )
    }

    fn too_slow(&self) -> &'static str {
        if self.falls_behind()
            && self.memory.end.is_some_and(|end| end.time.since(self.memory.start.time) >= STALL)
        {
            ". Accepts are too slow for any backlog"
        } else {
            ""
        }
    }

    /// Whether clearly less is accepted than arrives (repeated SYNs count as arrivals: they are not all new), though the queue is
    /// not emptied at once: a server that does empty it is only met by bursts, and no more of them would help.
    fn falls_behind(&self) -> bool {
        let bursts = self.limit.is_some_and(|limit| self.drains_within(limit.limit, EMPTIED_AT_ONCE));
        !bursts
            && matches!((self.accepts, self.arrivals), (Some(accepts), Some(arrivals)) if accepts * 1.5 < arrivals)
    }

    fn drains_soon(&self, limit: u32) -> bool {
        self.drains_within(limit, DRAINS_SOON)
    }

    /// Whether a full queue is empty after this time at the rate of accepts.
    fn drains_within(&self, limit: u32, time: Duration) -> bool {
        let places = f64::from(limit) + 1.0;
        self.accepts.is_some_and(|accepts| accepts > 0.0 && places / accepts < time.as_secs_f64())
    }

    /// Knobs that people turn in vain, with their values; `but` are not mentioned.
    fn not_the_limit(&self, but: &[&str]) -> String {
        let knobs = self.namespace.map(|namespace| &namespace.knobs);
        let named = [
            ("somaxconn", "net.core.somaxconn", knobs.and_then(|knobs| knobs.somaxconn)),
            (
                "max_syn_backlog",
                "net.ipv4.tcp_max_syn_backlog",
                knobs.and_then(|knobs| knobs.max_syn_backlog),
            ),
        ];
        let words: Vec<String> = named
            .into_iter()
            .filter(|(short, _, _)| !but.contains(short))
            .map(|(_, name, value)| match value {
                Some(value) => format!("{name} ({value})"),
                None => name.to_owned(),
            })
            .collect();
        let verb = if words.len() == 1 { "is" } else { "are" };
        format!("{} {verb} not the limit", words.join(" and "))
    }

    /// The command that sets a sysctl in the listener's namespace.
    fn sysctl(&self, setting: &str) -> commands::CommandLine {
        commands::sysctl(self.listener.endpoints.netns, self.subject.process.as_ref(), setting)
    }
}

fn limit_in_words(limit: &QueueLimit) -> String {
    match (limit.asked_in_words(), limit.somaxconn_now) {
        (Some(asked), Some(somaxconn)) => format!("listen(fd, {asked}), somaxconn {somaxconn}"),
        (Some(asked), None) => format!("listen(fd, {asked})"),
        (None, Some(somaxconn)) => {
            format!("queue limit {}, somaxconn {somaxconn}; listen() was not seen", limit.limit)
        }
        (None, None) => format!("queue limit {}; listen() was not seen", limit.limit),
    }
}
