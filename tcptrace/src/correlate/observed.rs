//! What the kernel side's totals mean, given what is observed.

use crate::event::{ListenerTotals, observation};

use super::Correlator;

impl Correlator {
    /// `totals` of our probes without what they do not see here: a zero there means nothing.
    pub fn as_far_as_observed(&self, totals: ListenerTotals) -> ListenerTotals {
        let mut seen = totals;
        if !self.observes(observation::SYN_DROP) {
            seen.syns = None;
            seen.syn_drops_accept_queue = None;
            seen.syn_drops_syn_queue = None;
        }
        if !self.observes(observation::ACK_DROP) {
            seen.ack_drops_accept_queue = None;
            seen.ack_drops_other = None;
        }
        if !self.observes(observation::ENQUEUE) {
            seen.enqueued = None;
            seen.last_enqueue = None;
        }
        if !self.observes(observation::COOKIE) {
            seen.cookies_sent = None;
            seen.cookies_at_limit = None;
            seen.cookies_valid = None;
            seen.cookies_invalid = None;
        }
        if !self.observes(observation::SYNACK_RETRANSMIT) {
            seen.retransmits_timer = None;
            seen.retransmits_duplicate_syn = None;
        }
        if !self.observes(observation::REQUEST_END) {
            // Without the timer in sight, every retransmission looks like the answer to a SYN.
            seen.retransmits_unknown = seen.retransmits_duplicate_syn.take();
            seen.retransmits_timer = None;
            seen.expired = None;
            seen.resets = None;
            seen.aborts = None;
            seen.icmp_ends = None;
            seen.joins = None;
            seen.deferred = None;
        }
        if !self.observes(observation::ACCEPT) {
            seen.accepted = None;
            seen.last_accept = None;
        }
        if !self.observes(observation::ENQUEUE) || !self.observes(observation::ACCEPT) {
            seen.waits = None;
            seen.wait_total_ns = None;
            seen.wait_max_ns = None;
        }
        seen
    }
}
