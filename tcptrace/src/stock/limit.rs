//! What limits a listener's queues: which knob to turn, and which not.

use crate::finding::{QueueLimit, SetBy};
use crate::host::knobs::Knobs;

/// The limit of an accept queue and where it comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    /// `sk_max_ack_backlog`: the queue is full when it is deeper than this.
    pub limit: u32,
    /// The argument of listen(), if that call was traced.
    pub backlog: Option<u32>,
    /// `net.core.somaxconn` of the namespace now.
    pub somaxconn: Option<u32>,
    /// `net.core.somaxconn` when listen() was called, if that call was traced.
    pub somaxconn_then: Option<u32>,
}

/// The knob that limits an accept queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LimitedBy {
    /// The program's own argument: somaxconn allows more (or just as much).
    Argument {
        /// The argument was seen, not concluded.
        seen: bool,
    },
    /// somaxconn: the argument was greater, and was seen.
    Somaxconn,
    /// Probably somaxconn: the limit is exactly what somaxconn is now, and the argument was not seen.
    ProbablySomaxconn,
    /// The argument, or what somaxconn was when listen() was called: the limit is greater than somaxconn is now, or
    /// somaxconn could not be read.
    Unknown,
}

impl LimitedBy {
    /// Name in output.
    pub fn name(self) -> &'static str {
        match self {
            Self::Argument { .. } => "backlog-argument",
            Self::Somaxconn | Self::ProbablySomaxconn => "somaxconn",
            Self::Unknown => "unknown",
        }
    }

    /// How sure that is; `None` where nothing is said.
    pub fn confidence(self) -> Option<&'static str> {
        match self {
            // Below today's somaxconn: nothing but the argument sets such a limit, unless somaxconn was raised since.
            Self::Argument { seen: false } | Self::ProbablySomaxconn => Some("likely"),
            Self::Argument { seen: true } | Self::Somaxconn => Some("certain"),
            Self::Unknown => None,
        }
    }
}

impl Limit {
    /// Which knob it is.
    pub fn limited_by(&self) -> LimitedBy {
        let queue = QueueLimit {
            limit: self.limit,
            // A smaller argument than the limit: another call of listen() was not seen.
            asked: self.backlog.filter(|backlog| *backlog >= self.limit),
            somaxconn_then: self.somaxconn_then,
            somaxconn_now: self.somaxconn,
        };
        match queue.set_by() {
            SetBy::Argument { seen, .. } => LimitedBy::Argument { seen },
            SetBy::Somaxconn => LimitedBy::Somaxconn,
            SetBy::Either if self.somaxconn == Some(self.limit) => LimitedBy::ProbablySomaxconn,
            SetBy::Either => LimitedBy::Unknown,
        }
    }
}

/// What bounds a SYN queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SynQueueLimit {
    /// So many requests fill it.
    pub limit: u32,
    /// `accept-queue-limit`, or `net.ipv4.tcp_max_syn_backlog`.
    pub set_by: &'static str,
    /// With SYN cookies, a full SYN queue costs nothing but options: SYNs are answered all the same.
    pub cookies: Option<bool>,
}

impl SynQueueLimit {
    /// The SYN queue of a listener whose accept queue has `limit`.
    ///
    /// `inet_csk_reqsk_queue_is_full()` compares with the accept queue's limit; without cookies `tcp_conn_request()` also
    /// keeps the last quarter of `tcp_max_syn_backlog` for peers that it knows.
    pub fn of(limit: u32, knobs: &Knobs) -> Self {
        let cookies = knobs.tcp_syncookies.map(|value| value != 0);
        let unproven = knobs.tcp_max_syn_backlog.map(|most| most - most / 4);
        match unproven {
            Some(unproven) if cookies == Some(false) && unproven < limit => {
                Self { limit: unproven, set_by: "net.ipv4.tcp_max_syn_backlog", cookies }
            }
            _ => Self { limit, set_by: "accept-queue-limit", cookies },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn by(limit: u32, backlog: Option<u32>, then: Option<u32>, now: Option<u32>) -> LimitedBy {
        Limit { limit, backlog, somaxconn: now, somaxconn_then: then }.limited_by()
    }

    #[test]
    fn a_seen_argument_decides() {
        assert_eq!(by(20, Some(20), Some(4096), Some(4096)), LimitedBy::Argument { seen: true });
        assert_eq!(by(128, Some(4096), Some(128), Some(4096)), LimitedBy::Somaxconn);
    }

    #[test]
    fn an_unseen_one_is_concluded() {
        assert_eq!(by(20, None, None, Some(4096)), LimitedBy::Argument { seen: false });
        assert_eq!(by(4096, None, None, Some(4096)), LimitedBy::ProbablySomaxconn);
        assert_eq!(by(4096, None, None, Some(128)), LimitedBy::Unknown);
        assert_eq!(by(4096, None, None, None), LimitedBy::Unknown);
    }

    #[test]
    fn syn_queues_follow_the_accept_queue_or_without_cookies_max_syn_backlog() {
        let knobs = |cookies, most| Knobs {
            tcp_syncookies: Some(cookies),
            tcp_max_syn_backlog: Some(most),
            ..Knobs::default()
        };
        let set_by = |limit, knobs: &Knobs| {
            let found = SynQueueLimit::of(limit, knobs);
            (found.limit, found.set_by)
        };
        assert_eq!(set_by(4096, &knobs(1, 128)), (4096, "accept-queue-limit"));
        assert_eq!(set_by(4096, &knobs(0, 128)), (96, "net.ipv4.tcp_max_syn_backlog"));
        assert_eq!(set_by(20, &knobs(0, 128)), (20, "accept-queue-limit"));
        assert_eq!(set_by(20, &Knobs::default()), (20, "accept-queue-limit"));
    }
}
