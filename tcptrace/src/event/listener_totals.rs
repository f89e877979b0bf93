//! What is counted of a listener.

use serde::{Deserialize, Serialize};

use super::Timestamp;

/// Declares [`ListenerTotals`]: counts that only grow, which are added, subtracted and compared alike, and the rest.
macro_rules! listener_totals {
    ($($(#[$doc:meta])* $count:ident,)* ; $($(#[$other_doc:meta])* $other:ident: $kind:ty,)*) => {
        /// Counts of one listener since the tracer attached (or since it began to listen, if later); they only grow.
        ///
        /// `None`: the source cannot know.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(default)]
        pub struct ListenerTotals {
            $($(#[$doc])* pub $count: Option<u64>,)*
            $($(#[$other_doc])* pub $other: Option<$kind>,)*
        }

        impl ListenerTotals {
            /// Nothing has happened yet; everything is counted, but for `socket_drops`, which the kernel counts.
            pub const ZERO: Self = Self {
                wait_max_ns: Some(0),
                $($count: Some(0),)*
                ..Self::NOTHING
            };

            const NOTHING: Self = Self { $($count: None,)* $($other: None,)* };

            /// Takes over what is higher in `other`: counts only grow, and what comes late or from a poorer source is lower.
            pub fn raise_to(&mut self, other: &Self) {
                if other.last_accept > self.last_accept {
                    self.last_acceptor = other.last_acceptor.or(self.last_acceptor);
                }
                $(self.$count = self.$count.max(other.$count);)*
                self.socket_drops = self.socket_drops.max(other.socket_drops);
                self.wait_max_ns = self.wait_max_ns.max(other.wait_max_ns);
                self.depth_max = self.depth_max.max(other.depth_max);
                self.syn_queue_max = self.syn_queue_max.max(other.syn_queue_max);
                self.last_retransmit = self.last_retransmit.max(other.last_retransmit);
                self.last_accept = self.last_accept.max(other.last_accept);
                self.last_enqueue = self.last_enqueue.max(other.last_enqueue);
            }

            /// These counts without those of `earlier`. Times stay as they are.
            #[must_use]
            pub fn less(&self, earlier: &Self) -> Self {
                let rest = |now: Option<u64>, then: Option<u64>| {
                    now.map(|now| now.saturating_sub(then.unwrap_or(0)))
                };
                Self {
                    $($count: rest(self.$count, earlier.$count),)*
                    socket_drops: rest(self.socket_drops, earlier.socket_drops),
                    // One that did not rise is of earlier.
                    wait_max_ns: self.wait_max_ns.filter(|longest| Some(*longest) > earlier.wait_max_ns),
                    ..*self
                }
            }

            /// Adds the counts of `more`; the rest stays as it is.
            pub fn add(&mut self, more: &Self) {
                $(if let Some(more) = more.$count {
                    self.$count = Some(self.$count.unwrap_or(0).saturating_add(more));
                })*
            }

            /// Drops at a full accept queue, at both stages: what `ListenOverflows` counts.
            pub fn overflows(&self) -> u64 {
                let dropped = |count: Option<u64>| count.unwrap_or(0);
                dropped(self.syn_drops_accept_queue).saturating_add(dropped(self.ack_drops_accept_queue))
            }

            /// The counts that the source knows, with their names.
            pub fn counts(&self) -> impl Iterator<Item = (&'static str, u64)> {
                [$((stringify!($count), self.$count),)*]
                    .into_iter()
                    .filter_map(|(name, count)| Some((name, count?)))
            }
        }
    };
}

/// What the kernel side counts, and what user space makes of it.
macro_rules! with_the_counters {
    ($($counters:tt)*) => {
        listener_totals! {
            $($counters)*
            /// SYN-ACKs sent again because no final ACK came or because the SYN came again, where these are not told apart.
            retransmits_unknown,
            ;
            /// The kernel's own `sk_drops` of the listener, polled: every SYN-stage drop once, every final-ACK-stage drop twice, and
            /// whatever else the socket threw away. Counts from the listener's birth, not from the tracer's start.
            socket_drops: u64,
            /// Longest accept wait, ns.
            wait_max_ns: u64,
            /// Deepest accept queue seen.
            depth_max: u32,
            /// Most requests seen in the SYN queue at a drop, a cookie or a retransmission.
            syn_queue_max: u32,
            /// When a SYN-ACK was last sent again.
            last_retransmit: Timestamp,
            /// When a connection was last accepted, since the tracer attached.
            last_accept: Timestamp,
            /// When a connection was last enqueued.
            last_enqueue: Timestamp,
            /// Who accepted last.
            last_acceptor: Acceptor,
        }
    };
}
tcptrace_common::listener_counters!(with_the_counters);

/// A thread that accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Acceptor {
    /// Its process.
    pub pid: u32,
    /// The thread.
    pub tid: u32,
}
