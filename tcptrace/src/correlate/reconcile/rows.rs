//! Each counter of the kernel that is compared, and what it is of ours.

use crate::event::{CounterSample, observation};

use super::super::namespace::{Namespace, Observed};

/// A counter of the kernel, and what it is of ours.
pub(super) struct Row {
    pub(super) counter: &'static str,
    pub(super) read: fn(&CounterSample) -> Option<u64>,
    /// Our count: at least and at most, where that cannot be told exactly.
    pub(super) ours: fn(&Observed) -> (u64, u64),
    /// Why it cannot, where that is so.
    pub(super) doubt: &'static str,
    /// What the kernel counts as well, and nobody sees.
    pub(super) besides: Option<Besides>,
    /// We count it by samples only, without a time for each.
    pub(super) sampled: bool,
    /// The observations that count it.
    pub(super) needs: &'static [&'static str],
    /// Observations that do not count it, and without which those that do are not exact.
    pub(super) exact_with: &'static [&'static str],
}

/// What a counter counts beside that which we see.
pub(super) struct Besides {
    /// How many at most.
    pub(super) at_most: fn(&Namespace) -> u64,
    /// What.
    pub(super) what: &'static str,
}

/// A row without doubts.
const PLAIN: Row = Row {
    counter: "",
    read: |_| None,
    ours: |_| (0, 0),
    doubt: "",
    besides: None,
    sampled: false,
    needs: &[],
    exact_with: &[],
};

fn exactly(counts: &[Option<u64>]) -> (u64, u64) {
    let sum = counts.iter().flatten().fold(0_u64, |sum, count| sum.saturating_add(*count));
    (sum, sum)
}

/// Every counter that is compared, and the sum of ours that it must equal.
pub(super) const ROWS: [Row; 13] = [
    Row {
        counter: "ListenOverflows",
        read: |kernel| kernel.listen_overflows,
        ours: |Observed { listeners: ours, .. }| {
            exactly(&[ours.syn_drops_accept_queue, ours.ack_drops_accept_queue])
        },
        needs: &[observation::SYN_DROP, observation::ACK_DROP],
        ..PLAIN
    },
    Row {
        counter: "ListenDrops",
        read: |kernel| kernel.listen_drops,
        ours: |Observed { listeners: ours, .. }| {
            exactly(&[
                ours.syn_drops_accept_queue,
                ours.syn_drops_syn_queue,
                ours.syn_drops_max_syn_backlog,
                ours.syn_drops_no_route,
                ours.ack_drops_accept_queue,
                ours.ack_drops_other,
                ours.icmp_ends,
            ])
        },
        needs: &[
            observation::SYN_DROP,
            observation::NO_WAY_BACK,
            observation::ACK_DROP,
            observation::REQUEST_END,
        ],
        ..PLAIN
    },
    Row {
        counter: "TCPReqQFullDrop",
        read: |kernel| kernel.req_queue_full_drop,
        ours: |Observed { listeners: ours, .. }| exactly(&[ours.syn_drops_syn_queue]),
        needs: &[observation::SYN_DROP],
        ..PLAIN
    },
    Row {
        counter: "TCPReqQFullDoCookies",
        read: |kernel| kernel.req_queue_full_do_cookies,
        ours: |Observed { listeners: ours, .. }| {
            let (sure, _) = exactly(&[ours.cookies_sent, ours.cookies_dropped]);
            let doubtful = ours.cookies_dropped_at_limit.unwrap_or(0);
            // A cookie was sent with the SYN queue exactly at its limit: that counts as full in this release.
            let full_at_limit = ours.cookies_at_limit.unwrap_or(0) > 0;
            (if full_at_limit { sure + doubtful } else { sure }, sure + doubtful)
        },
        doubt: "whether a SYN queue exactly at its limit is full depends on the release",
        sampled: true,
        needs: &[observation::SYN_DROP, observation::COOKIE],
        ..PLAIN
    },
    Row {
        counter: "SyncookiesSent",
        read: |kernel| kernel.syncookies_sent,
        ours: |Observed { listeners: ours, .. }| exactly(&[ours.cookies_sent]),
        sampled: true,
        needs: &[observation::COOKIE],
        ..PLAIN
    },
    Row {
        counter: "SyncookiesRecv",
        read: |kernel| kernel.syncookies_received,
        ours: |Observed { listeners: ours, .. }| exactly(&[ours.cookies_valid]),
        sampled: true,
        needs: &[observation::COOKIE],
        ..PLAIN
    },
    Row {
        counter: "TCPSynRetrans",
        read: |kernel| kernel.syn_retransmits,
        ours: |Observed { listeners: ours, connects, .. }| {
            exactly(&[
                ours.retransmits_timer,
                ours.retransmits_duplicate_syn,
                ours.retransmits_unknown,
                Some(connects.syns_again),
            ])
        },
        besides: Some(Besides {
            at_most: |namespace| grown(namespace, |kernel| kernel.retransmit_fails),
            what: "SYNs that this host itself dropped when they were to be sent again, which kernels before 6.17 count and do not show",
        }),
        // In the tracepoint tier a few are missed when one interrupts another; there its counts are no proof.
        needs: &[observation::SYNACK_RETRANSMIT, observation::SYN_RETRANSMIT],
        exact_with: &[observation::SYN_DROP],
        ..PLAIN
    },
    Row {
        counter: "EmbryonicRsts",
        read: |kernel| kernel.embryonic_resets,
        ours: |Observed { listeners: ours, .. }| exactly(&[ours.resets, ours.aborts]),
        needs: &[observation::REQUEST_END],
        ..PLAIN
    },
    Row {
        counter: "TCPFastOpenPassive",
        read: |kernel| kernel.fastopen_passive,
        ours: |Observed { listeners: ours, .. }| exactly(&[ours.fast_opens]),
        sampled: true,
        needs: &[observation::SYN_DROP, observation::ENQUEUE],
        ..PLAIN
    },
    Row {
        counter: "PassiveOpens",
        read: |kernel| kernel.passive_opens,
        // Every child that was made: enqueued, given up, or not needed.
        ours: |Observed { listeners: ours, .. }| {
            exactly(&[ours.enqueued, ours.ack_drops_other, ours.joins, ours.orphans])
        },
        sampled: true,
        needs: &[
            observation::ENQUEUE,
            observation::ACK_DROP,
            observation::SYN_DROP,
            observation::REQUEST_END,
        ],
        ..PLAIN
    },
    Row {
        counter: "ActiveOpens",
        read: |kernel| kernel.active_opens,
        ours: |ours| (ours.dialled.saturating_sub(ours.connects.errors), ours.dialled),
        doubt: "a connect that failed at once may have had a port by then",
        besides: Some(Besides {
            at_most: |_| u64::MAX,
            what: "connects from a port that bind() was given by its number are not counted, nor, but in the fexit tier, those that \
                   were not answered",
        }),
        sampled: true,
        needs: &[observation::PORT_TAKEN],
        ..PLAIN
    },
    Row {
        counter: "AttemptFails",
        read: |kernel| kernel.attempt_fails,
        ours: |Observed { listeners, connects, .. }| {
            exactly(&[
                Some(connects.refused),
                Some(connects.unreachable),
                Some(connects.timed_out),
                listeners.resets,
                listeners.ack_drops_other,
            ])
        },
        besides: Some(Besides {
            // Connects that are not followed, and children that are made by a SYN and fail before their ACK.
            at_most: |namespace| {
                let ours = &namespace.observed;
                grown(namespace, |kernel| kernel.active_opens).saturating_sub(ours.dialled)
                    + ours.listeners.fast_opens.unwrap_or(0)
            },
            what: "of connects from a port that bind() was given by its number, only those refused by RST are counted",
        }),
        sampled: true,
        needs: &[observation::CONNECT_END, observation::REQUEST_END, observation::ACK_DROP],
        ..PLAIN
    },
    Row {
        counter: "OutRsts",
        read: |kernel| kernel.resets_sent,
        ours: |ours| (ours.absent, ours.absent),
        besides: Some(Besides {
            at_most: |_| u64::MAX,
            what: "only RSTs that answer a SYN to a port without listener are looked at, not those that end connections",
        }),
        sampled: true,
        needs: &[observation::NO_LISTENER],
        ..PLAIN
    },
];

/// Growth of a counter of the kernel; 0 where it cannot be read.
fn grown(namespace: &Namespace, counter: fn(&CounterSample) -> Option<u64>) -> u64 {
    namespace.grown(counter).map_or(0, |(_, grown)| grown)
}
