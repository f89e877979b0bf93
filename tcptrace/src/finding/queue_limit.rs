//! What limits a listener's accept queue: the argument of listen(), or somaxconn, to which the kernel cuts it.

use crate::correlate::{ListenCall, Listener, Namespace};

/// An accept queue's limit and where it comes from, as far as is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct QueueLimit {
    /// The limit in force (`sk_max_ack_backlog`); the queue holds one more.
    pub limit: u32,
    /// The argument of listen(), if it was seen and fits the limit.
    pub asked: Option<u32>,
    /// somaxconn when listen() was called, if that was seen.
    pub somaxconn_then: Option<u32>,
    /// somaxconn now, if it was read.
    pub somaxconn_now: Option<u32>,
}

/// What set the limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SetBy {
    /// The argument: the kernel took it as it was.
    Argument {
        /// Whether somaxconn would have allowed more.
        somaxconn_allows_more: bool,
        /// Seen, or concluded from somaxconn alone.
        seen: bool,
    },
    /// somaxconn: more was asked for.
    Somaxconn,
    /// One or the other: the call was not seen, and the limit is what somaxconn is (or more than that, so that somaxconn
    /// was lowered since).
    Either,
}

impl QueueLimit {
    pub(crate) fn of(listener: &Listener, namespace: Option<&Namespace>) -> Option<Self> {
        if !listener.limit_seen {
            return None;
        }
        let limit = listener.limit;
        let now = namespace.and_then(|namespace| namespace.knobs.somaxconn);
        // Neither the argument nor somaxconn, to which the kernel cuts it: another call of listen() was not seen.
        let fits = |call: &ListenCall| match (call.backlog, call.somaxconn.or(now)) {
            (Some(backlog), _) if backlog == limit => true,
            (Some(backlog), Some(somaxconn)) => backlog > limit && somaxconn == limit,
            (Some(backlog), None) => backlog > limit,
            (None, _) => true,
        };
        let call = listener.listen.filter(fits);
        Some(Self {
            limit,
            asked: call.and_then(|call| call.backlog),
            somaxconn_then: call.and_then(|call| call.somaxconn),
            somaxconn_now: now,
        })
    }

    pub(crate) fn set_by(&self) -> SetBy {
        let allowed = self.somaxconn_then.or(self.somaxconn_now);
        match self.asked {
            Some(asked) if asked > self.limit => SetBy::Somaxconn,
            Some(_) => SetBy::Argument {
                somaxconn_allows_more: allowed.is_some_and(|allowed| allowed > self.limit),
                seen: true,
            },
            None => match allowed {
                Some(allowed) if allowed > self.limit => {
                    SetBy::Argument { somaxconn_allows_more: true, seen: false }
                }
                _ => SetBy::Either,
            },
        }
    }

    /// The argument as the program gave it: negative ones count as huge.
    pub(super) fn asked_in_words(&self) -> Option<String> {
        // The kernel takes it for unsigned; the program wrote a signed int.
        self.asked.map(|asked| i32::from_ne_bytes(asked.to_ne_bytes()).to_string())
    }

    /// An argument of listen() that rides out bursts, as far as somaxconn allows it now.
    pub(super) fn wanted_backlog(&self) -> u32 {
        /// What servers that think about it take.
        const USUAL: u32 = 1024;
        /// Nobody has that many clients wait.
        const MOST: u32 = 32_768;
        let longer = self.limit.saturating_mul(4).clamp(USUAL, MOST);
        let longer = longer.checked_next_power_of_two().unwrap_or(longer);
        match self.somaxconn_now.or(self.somaxconn_then) {
            Some(allowed) if allowed > self.limit => longer.min(allowed),
            _ => longer,
        }
    }

    /// A somaxconn that would let the program have what it asks for.
    pub(super) fn wanted_somaxconn(&self) -> u32 {
        /// Nobody means such an argument: it stands for "as long as possible".
        const HUGE: u32 = 65_536;
        match self.asked {
            Some(asked) if asked < HUGE => asked,
            _ => self.limit.saturating_mul(4).clamp(4096, HUGE - 1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(limit: u32, asked: Option<u32>, then: Option<u32>, now: Option<u32>) -> QueueLimit {
        QueueLimit { limit, asked, somaxconn_then: then, somaxconn_now: now }
    }

    #[test]
    fn a_seen_argument_decides() {
        let argument = |more| SetBy::Argument { somaxconn_allows_more: more, seen: true };
        assert_eq!(limit(20, Some(20), Some(4096), Some(4096)).set_by(), argument(true));
        assert_eq!(limit(128, Some(128), Some(128), Some(4096)).set_by(), argument(false));
        assert_eq!(limit(128, Some(4096), Some(128), Some(4096)).set_by(), SetBy::Somaxconn);
        assert_eq!(limit(128, Some(u32::MAX), None, None).set_by(), SetBy::Somaxconn);
        assert_eq!(limit(128, Some(u32::MAX), None, None).asked_in_words().unwrap(), "-1");
    }

    #[test]
    fn an_unseen_one_is_concluded_where_it_can_be() {
        let concluded = SetBy::Argument { somaxconn_allows_more: true, seen: false };
        assert_eq!(limit(20, None, None, Some(4096)).set_by(), concluded);
        assert_eq!(limit(128, None, None, Some(128)).set_by(), SetBy::Either);
        assert_eq!(limit(4096, None, None, Some(128)).set_by(), SetBy::Either);
        assert_eq!(limit(128, None, None, None).set_by(), SetBy::Either);
    }

    #[test]
    fn suggests_a_backlog_that_somaxconn_allows() {
        assert_eq!(limit(20, Some(20), Some(4096), Some(4096)).wanted_backlog(), 1024);
        assert_eq!(limit(511, Some(511), None, Some(4096)).wanted_backlog(), 2048);
        assert_eq!(limit(20, Some(20), Some(128), Some(128)).wanted_backlog(), 128);
        // What is no more than the limit would change nothing: then somaxconn has to be raised with it.
        assert_eq!(limit(4096, Some(4096), Some(4096), Some(4096)).wanted_backlog(), 16_384);
    }

    #[test]
    fn suggests_what_was_asked_for_unless_that_is_absurd() {
        assert_eq!(limit(128, Some(1024), None, None).wanted_somaxconn(), 1024);
        assert_eq!(limit(128, Some(u32::MAX), None, None).wanted_somaxconn(), 4096);
        assert_eq!(limit(4096, None, None, None).wanted_somaxconn(), 16_384);
    }
}
