//! A SYN's and a final ACK's way past the queues. Softirq context: no task here owns anything.

use aya_ebpf::helpers::bpf_ktime_get_ns;
use aya_log_ebpf::debug;
use tcptrace_common::{
    listener::PrefixKey,
    record::{
        ACK_DROP_ACCEPT_QUEUE, ACK_DROP_OTHER, AGE_UNKNOWN, AckDrop, ENQUEUE_COOKIE, ENQUEUE_FAST_OPEN,
        ENQUEUE_HANDSHAKE, Enqueue, ListenerRef, SYN_COOKIE, SYN_DROP_ACCEPT_QUEUE, SYN_DROP_MAX_SYN_BACKLOG,
        SYN_DROP_NO_ROUTE, SYN_DROP_OTHER, SYN_DROP_SYN_QUEUE, SYN_FAST_OPEN, SYN_REQUEST, Syn, SynDrop,
    },
};

use crate::{
    emit::{self, add},
    filter::{passes, stream_all, stream_syns},
    handle::{histogram, listener, queued},
    kernel::{Access, Request, Skb, Sock, TCP_ACK, TCP_RST, is_mapped},
    maps::{HANDSHAKES, PREFIXES, packet},
};

/// `tcp_conn_request` asks for the route of the request: the SYN passed both queue checks.
#[inline(always)]
pub fn passed_queue_checks() {
    if let Some(packet) = packet() {
        packet.passed_queue_checks = 1;
    }
}

/// The child of the SYN that is being handled is enqueued already.
const PASSED_BY_FAST_OPEN: u64 = 2;

/// `cookie_v4_init_sequence` or `cookie_v6_init_sequence`: the SYN is answered with a cookie.
#[inline(always)]
pub fn cookie_made() {
    if let Some(packet) = packet() {
        packet.cookie = 1;
    }
}

/// `tcp_peer_is_proven` said no. `tcp_conn_request` asks only when cookies are off and the last quarter of
/// `tcp_max_syn_backlog` is reached, and drops the SYN of a peer that is not.
#[inline(always)]
pub fn peer_not_proven() {
    if let Some(packet) = packet() {
        packet.unproven = 1;
    }
}

/// `tcp_v4_route_req` or `tcp_v6_route_req` found no route for the answer, and `tcp_conn_request` drops the SYN without a word.
#[inline(always)]
pub fn no_way_back() {
    if let Some(packet) = packet() {
        packet.unrouted = 1;
    }
}

/// `tcp_conn_request` returned. It returns 0 on every path, so what it did is told by whether it asked for a route.
#[inline(always)]
pub fn syn_handled<A: Access>(sk: Sock<A>, skb: Skb<A>) {
    let Some(packet) = packet() else { return };
    let passed = packet.passed_queue_checks != 0;
    let fast_open = packet.passed_queue_checks == PASSED_BY_FAST_OPEN;
    let cookie = packet.cookie != 0;
    let unproven = packet.unproven != 0;
    let unrouted = packet.unrouted != 0;
    packet.passed_queue_checks = 0;
    // Stores of their own: together the compiler would have them made by a loop over their bytes.
    if cookie {
        packet.cookie = 0;
    }
    if unproven {
        packet.unproven = 0;
    }
    if unrouted {
        packet.unrouted = 0;
    }
    let port = sk.local_port();
    if !passes(sk, port, 0) {
        return;
    }
    let Some(state) = listener::state_of(sk) else { return };
    add(&raw mut state.syns, 1);
    if cookie {
        add(&raw mut state.cookies_sent, 1);
        let syn_queue = sk.syn_queue();
        listener::note_syn_queue(state, syn_queue);
        if syn_queue == sk.accept_queue_limit() && sk.net().syncookies() == 1 {
            add(&raw mut state.cookies_at_limit, 1);
        }
    }
    if passed && !unproven && !unrouted {
        if stream_syns() {
            let answer = if fast_open {
                SYN_FAST_OPEN
            } else if cookie {
                SYN_COOKIE
            } else {
                SYN_REQUEST
            };
            syn_answered(sk, skb, answer);
        }
        return;
    }
    let depth = sk.accept_queue_depth();
    let limit = sk.accept_queue_limit();
    let syncookies = sk.net().syncookies();
    // The order of tcp_conn_request(): the SYN queue first, but it drops there only when cookies are off. Whether a queue
    // of exactly `limit` requests is full changed within stable series (`>=` before 2025, `>` since), so a SYN queue at
    // the limit is blamed only when the accept queue is not full.
    let syn_queue = sk.syn_queue();
    let cause = if unrouted {
        SYN_DROP_NO_ROUTE
    } else if unproven {
        SYN_DROP_MAX_SYN_BACKLOG
    } else if syncookies == 0 && syn_queue > limit {
        SYN_DROP_SYN_QUEUE
    } else if depth > limit {
        SYN_DROP_ACCEPT_QUEUE
    } else if syncookies == 0 && syn_queue >= limit {
        SYN_DROP_SYN_QUEUE
    } else if syncookies != 0 {
        // With cookies on, a full accept queue is the only queue check that drops: an accept() on another CPU made room
        // between the kernel's look and ours.
        SYN_DROP_ACCEPT_QUEUE
    } else {
        SYN_DROP_OTHER
    };
    listener::note_depth(state, depth, limit);
    listener::note_syn_queue(state, syn_queue);
    let count = match cause {
        SYN_DROP_ACCEPT_QUEUE => &raw mut state.syn_drops_accept_queue,
        SYN_DROP_MAX_SYN_BACKLOG => &raw mut state.syn_drops_max_syn_backlog,
        SYN_DROP_NO_ROUTE => &raw mut state.syn_drops_no_route,
        _ => &raw mut state.syn_drops_syn_queue,
    };
    add(count, 1);
    // SAFETY: a member of `state`; read after our own add, so it counts this drop.
    let total = unsafe { *count };
    // The kernel decides on a cookie before it looks at the accept queue, and counts that decision.
    if cause == SYN_DROP_ACCEPT_QUEUE && syncookies != 0 {
        if syncookies == 2 || syn_queue > limit {
            add(&raw mut state.cookies_dropped, 1);
        } else if syn_queue == limit {
            add(&raw mut state.cookies_dropped_at_limit, 1);
        }
    }
    debug!(
        (),
        "SYN for port {} dropped: cause {}, accept queue {} of {}, SYN queue {}",
        port,
        cause,
        depth,
        limit,
        syn_queue
    );
    let Some(mut record) = emit::reserve::<SynDrop>() else { return };
    record.endpoints = skb.received(sk);
    record.listener = sk.as_listener();
    record.cause = cause;
    record.syncookies = syncookies;
    record.total = total;
    record.submit();
}

/// A SYN passed the queue checks, and `answer` is what became of it.
// Not inlined, for a stack frame of its own.
#[inline(never)]
fn syn_answered<A: Access>(sk: Sock<A>, skb: Skb<A>, answer: u32) {
    // SAFETY: a helper without arguments.
    let now = unsafe { bpf_ktime_get_ns() };
    emit::send(now, |header| Syn {
        header,
        endpoints: skb.received(sk),
        listener: sk.as_listener(),
        answer,
        pad: 0,
    });
}

/// `tcp_v4_syn_recv_sock` or `tcp_v6_syn_recv_sock` returned `child` (0 for none): the final ACK of a handshake, a valid
/// cookie, or a Fast Open SYN.
#[inline(always)]
pub fn child_made<A: Access>(sk: Sock<A>, skb: Skb<A>, request: u64, child: u64) {
    let Some(packet) = packet() else { return };
    let abandoned = packet.child_abandoned != 0;
    packet.child_abandoned = 0;
    packet.fresh_child = child;
    packet.fresh_request = request;
    if child != 0 {
        return;
    }
    packet.refused_request = request;
    let port = sk.local_port();
    if !passes(sk, port, 0) {
        return;
    }
    let Some(state) = listener::state_of(sk) else { return };
    let depth = sk.accept_queue_depth();
    let limit = sk.accept_queue_limit();
    listener::note_depth(state, depth, limit);
    // NULL comes from a full accept queue, before a child is created; or after, through inet_csk_prepare_forced_close
    // (no route, port not inheritable, no key); or for want of memory, which cannot be told from a queue that an accept()
    // on another CPU has just made room in, and is far rarer.
    let (cause, total) = if abandoned {
        add(&raw mut state.ack_drops_other, 1);
        (ACK_DROP_OTHER, state.ack_drops_other)
    } else {
        add(&raw mut state.ack_drops_accept_queue, 1);
        (ACK_DROP_ACCEPT_QUEUE, state.ack_drops_accept_queue)
    };
    debug!((), "final ACK for port {} dropped: cause {}, accept queue {} of {}", port, cause, depth, limit);
    let Some(mut record) = emit::reserve::<AckDrop>() else { return };
    record.endpoints = skb.received(sk);
    record.listener = sk.as_listener();
    record.cause = cause;
    record.total = total;
    record.submit();
}

/// `inet_csk_prepare_forced_close`: the child just created is given up.
#[inline(always)]
pub fn child_abandoned() {
    if let Some(packet) = packet() {
        packet.child_abandoned = 1;
    }
}

/// A child entered the accept queue of `sk`, whose depth counts it when `counted`.
///
/// Two hooks report this, `inet_csk_complete_hashdance` and `inet_csk_reqsk_queue_add`: which of them fires for an ordinary
/// handshake depends on what the compiler inlined (on 5.10 both do), so only the child that `child_made` saw counts, once.
#[inline(always)]
pub fn enqueued<A: Access>(sk: Sock<A>, child: Sock<A>, request: Request, counted: bool) {
    let Some(packet) = packet() else { return };
    if packet.fresh_child != child.id() {
        return;
    }
    packet.fresh_child = 0;
    let port = sk.local_port();
    if !passes(sk, port, 0) {
        return;
    }
    let Some(state) = listener::state_of(sk) else { return };
    // SAFETY: a helper without arguments.
    let now = unsafe { bpf_ktime_get_ns() };
    let depth = sk.accept_queue_depth() + u32::from(!counted);
    add(&raw mut state.enqueued, 1);
    state.last_enqueue_ns = now;
    listener::note_depth(state, depth, sk.accept_queue_limit());
    queued::enter(child.id(), child.remote_port(), sk.id(), now);
    // The kernel stamps the first SYN-ACK; a cookie connection has no stamp.
    let first_synack = request.first_synack_us();
    let mut handshake_ns = AGE_UNKNOWN;
    // A Fast Open child is made by the SYN, in `tcp_conn_request`.
    let how = if packet.passed_queue_checks != 0 {
        packet.passed_queue_checks = PASSED_BY_FAST_OPEN;
        add(&raw mut state.fast_opens, 1);
        ENQUEUE_FAST_OPEN
    } else if first_synack != 0 {
        handshake_ns = now.saturating_sub(first_synack * 1000);
        histogram::count(&HANDSHAKES, sk.id(), handshake_ns);
        ENQUEUE_HANDSHAKE
    } else {
        add(&raw mut state.cookies_accepted, 1);
        ENQUEUE_COOKIE
    };
    // 0 is never, not the time of the boot.
    if state.last_retransmit_ns != 0 && now.saturating_sub(state.last_retransmit_ns) < PREFIX_WATCH_NS {
        count_prefix(sk, child);
    }
    if stream_all() {
        emit::send(now, |header| Enqueue {
            header,
            endpoints: child.endpoints(port),
            listener: ListenerRef {
                sk: sk.id(),
                ino: state.ino,
                depth,
                limit: state.limit,
                syn_queue: sk.syn_queue(),
                pad: 0,
            },
            child: child.id(),
            handshake_ns,
            how,
            pad: 0,
        });
    }
}

/// A child was made and is not enqueued after all: another CPU was first with the same final ACK, or its listener is just
/// being closed.
#[inline(always)]
pub fn not_enqueued<A: Access>(sk: Sock<A>, child: u64) {
    let Some(packet) = packet() else { return };
    if packet.fresh_child != child {
        return;
    }
    packet.fresh_child = 0;
    if !passes(sk, sk.local_port(), 0) {
        return;
    }
    let Some(state) = listener::state_of(sk) else { return };
    add(&raw mut state.orphans, 1);
}

/// `cookie_v4_check` or `cookie_v6_check` returned `result` for a packet that belongs to no request: the listener itself if
/// it brought no valid cookie.
#[inline(always)]
pub fn cookie_checked<A: Access>(sk: Sock<A>, skb: Skb<A>, result: u64) {
    if !passes(sk, sk.local_port(), 0) || sk.net().syncookies() == 0 {
        return;
    }
    let valid = result != sk.id();
    if !valid && skb.tcp_flags() & (TCP_ACK | TCP_RST) != TCP_ACK {
        return;
    }
    let Some(state) = listener::state_of(sk) else { return };
    add(if valid { &raw mut state.cookies_valid } else { &raw mut state.cookies_invalid }, 1);
}

/// For how long after an unanswered SYN-ACK connections are counted by remote network, ns.
const PREFIX_WATCH_NS: u64 = 60_000_000_000;

/// Counts a connection for its remote network, so that user space can tell a broken path from a broken server.
#[inline(always)]
fn count_prefix<A: Access>(sk: Sock<A>, child: Sock<A>) {
    let mut prefix = child.remote_address();
    // An IPv4-mapped address keeps the first 24 of its 32 bits, an IPv6 one the first 64 of 128.
    if is_mapped(&prefix) {
        prefix[15] = 0;
    } else {
        prefix[8..].fill(0);
    }
    let key = PrefixKey { listener: sk.id(), prefix };
    match PREFIXES.get_ptr_mut(&key) {
        Some(count) => add(count, 1),
        None => {
            let _ = PREFIXES.insert(&key, &1, 0);
        }
    }
}

/// Tracepoint tier: `child` is established, so it has just been enqueued at a listener that cannot be seen from here.
#[inline(always)]
pub fn established<A: Access>(child: Sock<A>) {
    let port = child.local_port();
    if !passes(child, port, 0) {
        return;
    }
    let Some(state) = listener::state_by_port(child, port) else { return };
    // SAFETY: a helper without arguments.
    let now = unsafe { bpf_ktime_get_ns() };
    add(&raw mut state.enqueued, 1);
    state.last_enqueue_ns = now;
    queued::enter(child.id(), child.remote_port(), 0, now);
    if stream_all() {
        emit::send(now, |header| Enqueue {
            header,
            endpoints: child.endpoints(port),
            listener: ListenerRef::default(),
            child: child.id(),
            handshake_ns: AGE_UNKNOWN,
            how: ENQUEUE_HANDSHAKE,
            pad: 0,
        });
    }
}

/// Tracepoint tier, since 6.15: the final ACK was dropped with reason TCP_LISTEN_OVERFLOW by `sk`.
#[inline(always)]
pub fn ack_overflowed<A: Access>(sk: Sock<A>, skb: Skb<A>) {
    if sk.state() != crate::kernel::state::LISTEN {
        return;
    }
    let port = sk.local_port();
    if !passes(sk, port, 0) {
        return;
    }
    let Some(state) = listener::state_by_port(sk, port) else { return };
    add(&raw mut state.ack_drops_accept_queue, 1);
    let Some(mut record) = emit::reserve::<AckDrop>() else { return };
    record.endpoints = skb.received(sk);
    record.listener = sk.as_listener();
    record.cause = ACK_DROP_ACCEPT_QUEUE;
    record.total = state.ack_drops_accept_queue;
    record.submit();
}
