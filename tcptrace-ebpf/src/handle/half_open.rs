//! Half-open requests that go unanswered: SYN-ACKs sent again, requests given up. Softirq context, and never on the way of a
//! handshake that goes well.

use aya_ebpf::helpers::bpf_ktime_get_ns;
use tcptrace_common::record::{
    AGE_UNKNOWN, END_EXPIRED, END_LISTENER_CLOSED, RETRANSMIT_DUPLICATE_SYN, RETRANSMIT_TIMER, RequestEnd,
    SynAckRetransmit,
};

use crate::{
    emit::{self, add},
    filter::passes,
    handle::listener,
    kernel::{Request, state},
    maps::packet,
};

/// Time since the request's first SYN-ACK, by the kernel's own stamp.
#[inline(always)]
fn age(request: Request, now: u64) -> u64 {
    let first = request.first_synack_us();
    // The stamp is cut to a microsecond.
    if first == 0 { AGE_UNKNOWN } else { now.saturating_sub(first * 1000) }
}

/// `tcp_retransmit_synack`: a SYN-ACK of `request` was sent again.
#[inline(always)]
pub fn retransmitted(request: Request) {
    let sk = request.listener();
    // A Fast Open child retransmits by its own timer, and has no listener here.
    if sk.id() == 0 || sk.state() != state::LISTEN {
        return;
    }
    let port = sk.local_port();
    if !passes(sk, port, 0) {
        return;
    }
    let Some(known) = listener::state_of(sk) else { return };
    let by_timer = packet().is_some_and(|packet| packet.timer_request == request.id());
    // SAFETY: a helper without arguments.
    let now = unsafe { bpf_ktime_get_ns() };
    known.last_retransmit_ns = now;
    listener::note_syn_queue(known, sk.syn_queue());
    let (cause, total) = if by_timer {
        add(&raw mut known.retransmits_timer, 1);
        (RETRANSMIT_TIMER, known.retransmits_timer)
    } else {
        add(&raw mut known.retransmits_duplicate_syn, 1);
        (RETRANSMIT_DUPLICATE_SYN, known.retransmits_duplicate_syn)
    };
    let Some(mut record) = emit::reserve::<SynAckRetransmit>() else { return };
    request.fill_endpoints(&mut record.endpoints);
    sk.fill_listener(&mut record.listener);
    record.age_ns = age(request, now);
    record.cause = cause;
    record.timeouts = request.timeouts();
    record.total = total;
    record.submit();
}

/// `reqsk_timer_handler` begins for the request that owns `timer`.
#[inline(always)]
pub fn timer_runs_out(timer: u64) {
    let Some(packet) = packet() else { return };
    let request = Request::of_timer(timer);
    packet.timer_request = request.id();
    packet.timer_timeouts = u64::from(request.timeouts());
    packet.timer_listener_state = u64::from(request.listener().state());
}

/// `reqsk_timer_handler` returned. It counts one more timeout exactly if it keeps the request; a request that it dropped is
/// still readable (its memory is only ever reused for requests), and a reused one has a count of 0.
#[inline(always)]
pub fn timer_ran_out() {
    let Some(packet) = packet() else { return };
    let request = Request::at(packet.timer_request);
    packet.timer_request = 0;
    if request.id() == 0 || u64::from(request.timeouts()) == packet.timer_timeouts + 1 {
        return;
    }
    let sk = request.listener();
    let port = request.sock().local_port();
    if sk.id() == 0 || !passes(sk, port, 0) {
        return;
    }
    // SAFETY: a helper without arguments.
    let now = unsafe { bpf_ktime_get_ns() };
    let listening = packet.timer_listener_state == u64::from(state::LISTEN);
    let mut total = 0;
    if listening {
        let Some(known) = listener::state_of(sk) else { return };
        add(&raw mut known.expired, 1);
        total = known.expired;
    }
    let Some(mut record) = emit::reserve::<RequestEnd>() else { return };
    request.fill_endpoints(&mut record.endpoints);
    sk.fill_listener(&mut record.listener);
    record.age_ns = age(request, now);
    record.how = if listening { END_EXPIRED } else { END_LISTENER_CLOSED };
    record.timeouts = packet.timer_timeouts as u32;
    record.total = total;
    record.submit();
}
