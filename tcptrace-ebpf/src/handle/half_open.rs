//! Half-open requests that go unanswered: SYN-ACKs sent again, requests given up. Softirq context, and not on the way of a
//! handshake that goes well (but where the compiler does not inline `inet_csk_reqsk_queue_drop`: see [`is_fresh`]).

use aya_ebpf::helpers::bpf_ktime_get_ns;
use tcptrace_common::{
    listener::ListenerState,
    record::{
        AGE_UNKNOWN, END_ABORTED, END_EXPIRED, END_ICMP, END_JOINED, END_LISTENER_CLOSED, END_RESET,
        REQUEST_ACKED, REQUEST_DEFERRED, RETRANSMIT_DUPLICATE_SYN, RETRANSMIT_TIMER, RequestEnd,
        SynAckRetransmit,
    },
};

use crate::{
    emit::{self, add},
    filter::passes,
    handle::listener,
    kernel::{Request, state},
    maps::{ICMP_PRESENT, Packet, packet},
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
    record.listener = sk.as_listener();
    record.age_ns = age(request, now);
    record.cause = cause;
    record.timeouts = request.timeouts();
    record.total = total;
    record.flags = request.flags();
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
    if request.id() == 0 {
        return;
    }
    let listening = packet.timer_listener_state == u64::from(state::LISTEN);
    if u64::from(request.timeouts()) == packet.timer_timeouts + 1 {
        if packet.timer_timeouts == 0 {
            kept_once(request);
        }
        return;
    }
    ended(
        request,
        if listening { END_EXPIRED } else { END_LISTENER_CLOSED },
        packet.timer_timeouts as u32,
        0,
    );
}

/// The timer of `request` ran out for the first time, and the request stays.
#[inline(always)]
fn kept_once(request: Request) {
    const WAITS_FOR_DATA: u32 = REQUEST_ACKED | REQUEST_DEFERRED;
    if request.flags() & WAITS_FOR_DATA != WAITS_FOR_DATA {
        return;
    }
    let sk = request.listener();
    if sk.id() == 0 || !passes(sk, sk.local_port(), 0) {
        return;
    }
    let Some(known) = listener::state_of(sk) else { return };
    add(&raw mut known.deferred, 1);
}

/// `inet_csk_reqsk_queue_drop(sk, request)` is called from another file: by `tcp_check_req` for a RST, a SYN inside the
/// window, or a final ACK that is refused with a RST; by `tcp_req_err` for an ICMP error. Calls from its own file, where the
/// timer and a completed handshake drop their requests, may or may not come here: they are told apart.
#[inline(always)]
pub fn dropped(request: Request) {
    let Some(packet) = packet() else { return };
    // Another CPU was first; or the timer handler's end tells; or the handshake is complete.
    if !request.is_hashed() || packet.timer_request == request.id() || is_fresh(packet, request) {
        return;
    }
    let sk = request.listener();
    // A closed listener's requests go by `inet_csk_reqsk_queue_drop_and_put`.
    if sk.id() == 0 || sk.state() != state::LISTEN {
        return;
    }
    let how = if packet.icmp != 0 {
        END_ICMP
    } else if packet.refused_request == request.id() && sk.net().aborts_on_overflow() {
        packet.refused_request = 0;
        END_ABORTED
    } else {
        END_RESET
    };
    ended(request, how, request.timeouts(), (packet.icmp & !ICMP_PRESENT) as u32);
}

/// `inet_csk_reqsk_queue_drop_and_put(sk, request)` is called from another file: when a packet came for a request of a
/// closed listener, or the request became a subflow of an MPTCP connection.
#[inline(always)]
pub fn dropped_and_put(request: Request) {
    let Some(packet) = packet() else { return };
    if !request.is_hashed() || packet.timer_request == request.id() {
        return;
    }
    let sk = request.listener();
    if sk.id() == 0 {
        return;
    }
    if is_fresh(packet, request) {
        packet.fresh_child = 0;
        ended(request, END_JOINED, request.timeouts(), 0);
    } else if sk.state() != state::LISTEN {
        ended(request, END_LISTENER_CLOSED, request.timeouts(), 0);
    }
}

/// A child was just made of `request`, and waits to be enqueued.
#[inline(always)]
fn is_fresh(packet: &Packet, request: Request) -> bool {
    packet.fresh_child != 0 && packet.fresh_request == request.id()
}

/// An ICMP error of this type and code begins to be handled for TCP.
#[inline(always)]
pub fn icmp_error(kind: u16) {
    if let Some(packet) = packet() {
        packet.icmp = ICMP_PRESENT | u64::from(kind);
    }
}

/// It has been handled.
#[inline(always)]
pub fn icmp_error_handled() {
    if let Some(packet) = packet() {
        packet.icmp = 0;
    }
}

/// Counts and reports the end of a request.
#[inline(always)]
fn ended(request: Request, how: u32, timeouts: u32, icmp: u32) {
    let sk = request.listener();
    let port = request.sock().local_port();
    if sk.id() == 0 || !passes(sk, port, 0) {
        return;
    }
    // SAFETY: a helper without arguments.
    let now = unsafe { bpf_ktime_get_ns() };
    let mut total = 0;
    if how != END_LISTENER_CLOSED {
        let Some(known) = listener::state_of(sk) else { return };
        let count = count_of(known, how);
        add(count, 1);
        // SAFETY: a member of `known`; read after our own add, so it counts this end.
        total = unsafe { *count };
    }
    let Some(mut record) = emit::reserve::<RequestEnd>() else { return };
    request.fill_endpoints(&mut record.endpoints);
    record.listener = sk.as_listener();
    record.age_ns = age(request, now);
    record.how = how;
    record.timeouts = timeouts;
    record.total = total;
    record.flags = request.flags();
    record.icmp = icmp;
    record.submit();
}

/// Where ends of this kind are counted.
#[inline(always)]
fn count_of(known: &mut ListenerState, how: u32) -> *mut u64 {
    match how {
        END_RESET => &raw mut known.resets,
        END_ABORTED => &raw mut known.aborts,
        END_ICMP => &raw mut known.icmp_ends,
        END_JOINED => &raw mut known.joins,
        _ => &raw mut known.expired,
    }
}
