//! Ports taken and given back. Kept in the kernel, so that a failed bind names its holder in the same event.

use aya_ebpf::helpers::bpf_ktime_get_ns;
use tcptrace_common::{
    port::{HOW_BIND, HOW_CONNECT, Taker, TakerKey},
    record::{PortReleased, PortTaken},
};

use crate::{
    emit,
    filter::{passes, stream_all},
    handle::{connect, port_use},
    kernel::{Access, Sock, current, state},
    maps::{DEPARTED, TAKERS},
};

/// Key of a socket that is not connected: by its address in memory.
#[inline(always)]
pub fn bound_key(sk: u64, netns: u32, port: u16) -> TakerKey {
    let mut key = TakerKey { peer: [0; 16], netns, local_port: port, remote_port: 0 };
    let half: *mut u64 = (&raw mut key.peer).cast();
    // SAFETY: the first 8 of 16 bytes at the start of an 8-byte aligned stack slot; written unaligned all the same.
    unsafe { half.write_unaligned(sk) };
    key
}

/// Key of a connected socket, or of its TIME_WAIT remnant: by its peer.
#[inline(always)]
pub fn connected_key<A: Access>(sk: Sock<A>, netns: u32, port: u16) -> TakerKey {
    TakerKey { peer: sk.remote_address(), netns, local_port: port, remote_port: sk.remote_port() }
}

/// bind(), or listen() on an unbound socket, got `port`.
#[inline(always)]
pub fn bound<A: Access>(sk: Sock<A>, port: u16, how: u8) {
    if !passes(sk, port, 0) {
        return;
    }
    // SAFETY: a helper without arguments.
    let now = unsafe { bpf_ktime_get_ns() };
    let mut taker = Taker { since_ns: now, how, ..Default::default() };
    current::fill(&mut taker.task);
    let _ = TAKERS.insert(&bound_key(sk.id(), sk.netns(), port), &taker, 0);
    if how != HOW_BIND {
        port_use::took(sk.netns(), &taker);
    }
    if how == HOW_BIND || stream_all() {
        report_taken(sk, port, how);
    }
}

/// connect() got a port, or uses the one that the socket was bound to before.
#[inline(always)]
pub fn connected<A: Access>(sk: Sock<A>) {
    let port = sk.local_port();
    if !passes(sk, port, sk.remote_port()) {
        return;
    }
    let netns = sk.netns();
    let bound = bound_key(sk.id(), netns, port);
    let key = connected_key(sk, netns, port);
    if let Some(before) = TAKERS.get_ptr(&bound) {
        // The port was taken by bind(): who and how stand, and now its peer is known too.
        // SAFETY: a map value stays readable for the length of a program run.
        let taker = unsafe { *before };
        let _ = TAKERS.insert(&key, &taker, 0);
        let _ = TAKERS.remove(&bound);
        port_use::connected_bound(netns, &taker);
        return;
    }
    // SAFETY: a helper without arguments.
    let now = unsafe { bpf_ktime_get_ns() };
    let mut taker = Taker { since_ns: now, how: HOW_CONNECT, ..Default::default() };
    current::fill(&mut taker.task);
    let _ = TAKERS.insert(&key, &taker, 0);
    port_use::took(netns, &taker);
    if stream_all() || port_use::is_served(port) {
        report_taken(sk, port, HOW_CONNECT);
    }
}

#[inline(always)]
fn report_taken<A: Access>(sk: Sock<A>, port: u16, how: u8) {
    let Some(mut record) = emit::reserve::<PortTaken>() else { return };
    sk.fill_endpoints(&mut record.endpoints, port);
    current::fill(&mut record.task);
    record.sk = sk.id();
    record.how = u32::from(how);
    record.options = u32::from(sk.options() | sk.inet_options());
    record.submit();
}

/// `inet_put_port`: the socket gives its port back. It may be a child of a listener, which took none itself.
/// Any context: the current task means nothing.
#[inline(always)]
pub fn released<A: Access>(sk: Sock<A>, port: u16, old_state: u8) {
    if port == 0 || !passes(sk, port, sk.remote_port()) {
        return;
    }
    let netns = sk.netns();
    let key =
        if sk.remote_port() != 0 { connected_key(sk, netns, port) } else { bound_key(sk.id(), netns, port) };
    let Some(taker) = TAKERS.get_ptr_mut(&key) else { return };
    if old_state == state::SYN_SENT {
        connect::ended(sk, port, taker);
    }
    // SAFETY: a map value stays readable for the length of a program run.
    let mut taker = unsafe { *taker };
    let _ = TAKERS.remove(&key);
    // tcp_time_wait() has put a remnant in the socket's place just before tcp_done() came here; these are the states it is
    // called in.
    let time_wait =
        matches!(old_state, state::FIN_WAIT2 | state::TIME_WAIT | state::CLOSING | state::FIN_WAIT1);
    // SAFETY: a helper without arguments.
    taker.released_ns = unsafe { bpf_ktime_get_ns() };
    if time_wait {
        let _ = DEPARTED.insert(&key, &taker, 0);
    }
    port_use::gave_back(netns, &taker, time_wait);
    if stream_all() {
        let Some(mut record) = emit::reserve::<PortReleased>() else { return };
        sk.fill_endpoints(&mut record.endpoints, port);
        record.sk = sk.id();
        record.held_ns = taker.released_ns.saturating_sub(taker.since_ns);
        record.tgid = taker.task.tgid;
        record.comm = taker.task.comm;
        record.how = u16::from(taker.how);
        record.time_wait = u16::from(time_wait);
        record.submit();
    }
}

/// Tracepoint tier: the current task connects `sk`, whose port will be chosen after this.
#[inline(always)]
pub fn connecting<A: Access>(sk: Sock<A>) {
    // SAFETY: a helper without arguments.
    let now = unsafe { bpf_ktime_get_ns() };
    let mut taker = Taker { since_ns: now, how: HOW_CONNECT, ..Default::default() };
    current::fill(&mut taker.task);
    let _ = TAKERS.insert(&bound_key(sk.id(), sk.netns(), 0), &taker, 0);
}

/// Tracepoint tier: the connect is answered; now its port is known. Softirq: the taker is who called connect().
#[inline(always)]
pub fn connecting_done<A: Access>(sk: Sock<A>) {
    let netns = sk.netns();
    let port = sk.local_port();
    let pending = bound_key(sk.id(), netns, 0);
    let Some(taker) = TAKERS.get_ptr_mut(&pending) else { return };
    if passes(sk, port, sk.remote_port()) {
        connect::established(sk, port, taker);
    }
    // SAFETY: a map value stays readable for the length of a program run.
    let mut taker = unsafe { *taker };
    let _ = TAKERS.remove(&pending);
    let bound = bound_key(sk.id(), netns, port);
    if let Some(before) = TAKERS.get_ptr(&bound) {
        // SAFETY: as above.
        taker = unsafe { *before };
        let _ = TAKERS.remove(&bound);
    }
    if !passes(sk, port, sk.remote_port()) {
        return;
    }
    let _ = TAKERS.insert(&connected_key(sk, netns, port), &taker, 0);
    if taker.how == HOW_CONNECT {
        port_use::took(netns, &taker);
    } else {
        port_use::connected_bound(netns, &taker);
    }
    if stream_all() || (taker.how == HOW_CONNECT && port_use::is_served(port)) {
        let Some(mut record) = emit::reserve::<PortTaken>() else { return };
        sk.fill_endpoints(&mut record.endpoints, port);
        record.task = taker.task;
        record.sk = sk.id();
        record.how = u32::from(taker.how);
        record.options = u32::from(sk.options() | sk.inet_options());
        record.submit();
    }
}

/// Tracepoint tier: `sk` went from `old_state` to CLOSE. Its port is cleared already, its source port is not.
#[inline(always)]
pub fn closed<A: Access>(sk: Sock<A>, old_state: u8) {
    let port = sk.source_port();
    if old_state == state::SYN_SENT {
        let pending = bound_key(sk.id(), sk.netns(), 0);
        if let Some(taker) = TAKERS.get_ptr_mut(&pending) {
            if passes(sk, port, sk.remote_port()) {
                connect::ended(sk, port, taker);
            }
            let _ = TAKERS.remove(&pending);
        }
        // connect() sets SYN_SENT, then asks for a port; only without one does it close the socket portless. Process context.
        if port == 0 {
            port_use::refused(sk);
        }
    }
    released(sk, port, old_state);
}
