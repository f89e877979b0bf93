//! Ports taken and given back. Kept in the kernel, so that a failed bind names its holder in the same event.

use aya_ebpf::helpers::bpf_ktime_get_ns;
use tcptrace_common::{
    port::{HOW_BIND, HOW_CONNECT, Taker},
    record::{PortReleased, PortTaken},
};

use crate::{
    emit,
    filter::{passes, stream_all},
    handle::{
        connect, port_use,
        taker::{self, Hashed},
    },
    kernel::{Access, Sock, current, state},
};

/// bind(), or listen() on an unbound socket, got `port`.
#[inline(always)]
pub fn bound<A: Access>(sk: Sock<A>, port: u16, how: u8) {
    if !passes(sk, port, 0) {
        return;
    }
    // SAFETY: a helper without arguments.
    let now = unsafe { bpf_ktime_get_ns() };
    let taker = taken_now(now, how);
    taker::remember(&Hashed::bound(sk, port), &taker);
    if how != HOW_BIND {
        port_use::took(sk, &taker);
    }
    if how == HOW_BIND || stream_all() {
        report_taken(sk, port, &taker, now);
    }
}

/// The current task took a port.
#[inline(always)]
fn taken_now(now: u64, how: u8) -> Taker {
    Taker {
        task: current::task(),
        since_ns: now,
        released_ns: 0,
        how,
        bootstrapped: 0,
        syns_again: 0,
        told: 0,
        pad: [0; 4],
    }
}

/// connect() got a port, or uses the one that the socket was bound to before.
#[inline(always)]
pub fn connected<A: Access>(sk: Sock<A>) {
    let (port, remote_port) = sk.ports();
    if !passes(sk, port, remote_port) {
        return;
    }
    let key = Hashed::connected(sk, port, remote_port);
    let before = taker::recall_live(&Hashed::bound(sk, port));
    if !before.is_null() {
        // The port was taken by bind(): who and how stand, and now its peer is known too.
        // SAFETY: a map value stays readable and writable for the length of a program run.
        let before = unsafe { &mut *before };
        if !before.is_mixed() {
            let taker = before.taker;
            taker::remember(&key, &taker);
            port_use::connected_bound(sk.netns(), &taker);
        }
        taker::forget(before);
        return;
    }
    // SAFETY: a helper without arguments.
    let now = unsafe { bpf_ktime_get_ns() };
    let taker = taken_now(now, HOW_CONNECT);
    taker::remember(&key, &taker);
    port_use::took(sk, &taker);
    // What is streamed of the connect itself tells the port, too.
    if port_use::is_served(port) {
        report_taken(sk, port, &taker, now);
    }
}

/// Streams that `taker` took a port for `sk`.
// Not inlined, for a stack frame of its own.
#[inline(never)]
fn report_taken<A: Access>(sk: Sock<A>, port: u16, taker: &Taker, now: u64) {
    emit::send(now, |header| PortTaken {
        header,
        endpoints: sk.endpoints(port),
        task: taker.task,
        sk: sk.id(),
        how: u32::from(taker.how),
        options: u32::from(sk.options() | sk.inet_options()),
    });
}

/// `inet_put_port`: the socket gives its port back. It may be a child of a listener, which took none itself.
/// Any context: the current task means nothing.
#[inline(always)]
pub fn released<A: Access>(sk: Sock<A>, (port, remote_port): (u16, u16), old_state: impl FnOnce() -> u8) {
    if port == 0 || !passes(sk, port, remote_port) {
        return;
    }
    let key =
        if remote_port != 0 { Hashed::connected(sk, port, remote_port) } else { Hashed::bound(sk, port) };
    let entry = taker::recall_live(&key);
    if entry.is_null() {
        return;
    }
    // SAFETY: a map value stays readable and writable for the length of a program run.
    let entry = unsafe { &mut *entry };
    let old_state = old_state();
    if old_state == state::SYN_SENT {
        connect::ended(sk, port, &raw mut entry.taker);
    }
    // tcp_time_wait() has put a remnant in the socket's place just before tcp_done() came here; these are the states it is
    // called in.
    let time_wait =
        matches!(old_state, state::FIN_WAIT2 | state::TIME_WAIT | state::CLOSING | state::FIN_WAIT1);
    // SAFETY: a helper without arguments.
    let now = if time_wait || stream_all() { unsafe { bpf_ktime_get_ns() } } else { 0 };
    if !entry.is_mixed() {
        port_use::gave_back(sk.netns(), &entry.taker, time_wait);
        if stream_all() {
            emit::send(now, |header| PortReleased {
                header,
                endpoints: sk.endpoints(port),
                sk: sk.id(),
                held_ns: now.saturating_sub(entry.taker.since_ns),
                tgid: entry.taker.task.tgid,
                how: u16::from(entry.taker.how),
                time_wait: u16::from(time_wait),
                comm: entry.taker.task.comm,
            });
        }
    }
    if time_wait {
        entry.taker.released_ns = now;
    } else {
        taker::forget(entry);
    }
}

/// Tracepoint tier: the current task connects `sk`, whose port will be chosen after this.
#[inline(always)]
pub fn connecting<A: Access>(sk: Sock<A>) {
    // SAFETY: a helper without arguments.
    let now = unsafe { bpf_ktime_get_ns() };
    taker::remember(&Hashed::bound(sk, 0), &taken_now(now, HOW_CONNECT));
}

/// Tracepoint tier: the connect is answered; now its port is known. Softirq: the taker is who called connect().
// Not inlined, for a stack frame of its own.
#[inline(never)]
pub fn connecting_done<A: Access>(sk: Sock<A>) {
    let sk = sk.with_net();
    let (port, remote_port) = sk.ports();
    let pending = taker::recall_live(&Hashed::bound(sk, 0));
    if pending.is_null() {
        return;
    }
    // SAFETY: a map value stays readable and writable for the length of a program run.
    let pending = unsafe { &mut *pending };
    if passes(sk, port, remote_port) {
        connect::established(sk, port, &raw mut pending.taker);
    }
    let mut taker = pending.taker;
    let mut is_mixed = pending.is_mixed();
    taker::forget(pending);
    let before = taker::recall_live(&Hashed::bound(sk, port));
    if !before.is_null() {
        // SAFETY: as above.
        let before = unsafe { &mut *before };
        if is_of_this_socket(sk, &before.taker, taker.task.tgid) {
            taker = before.taker;
            is_mixed = before.is_mixed();
        }
        taker::forget(before);
    }
    if is_mixed || !passes(sk, port, remote_port) {
        return;
    }
    taker::remember(&Hashed::connected(sk, port, remote_port), &taker);
    if taker.how == HOW_CONNECT {
        port_use::took(sk, &taker);
    } else {
        port_use::connected_bound(sk.netns(), &taker);
    }
    if taker.how == HOW_CONNECT && port_use::is_served(port) {
        // SAFETY: a helper without arguments.
        report_taken(sk, port, &taker, unsafe { bpf_ktime_get_ns() });
    }
}

/// Tracepoint tier: whether `before`, who got by bind() the port that process `connecting` connects `sk` from, got it for this
/// socket. A port that is given back without a connection is not seen, and its entry outlives its socket; a new one may stand at
/// the same place in memory, and be given the same port: then a server that has closed would be taken for the client.
#[inline(always)]
fn is_of_this_socket<A: Access>(sk: Sock<A>, before: &Taker, connecting: u32) -> bool {
    match before.how {
        HOW_BIND => sk.has_bound_port(true),
        // bind() to port 0 leaves no trace in the socket. It may be handed on before connect(), but hardly ever is.
        _ => before.task.tgid == connecting,
    }
}

/// Tracepoint tier: `sk` went from `old_state` to CLOSE. Its port is cleared already, its source port is not.
// Not inlined, for a stack frame of its own.
#[inline(never)]
pub fn closed<A: Access>(sk: Sock<A>, old_state: u8) {
    let sk = sk.with_net();
    let ports = (sk.source_port(), sk.remote_port());
    if old_state == state::SYN_SENT {
        let pending = taker::recall_live(&Hashed::bound(sk, 0));
        if !pending.is_null() {
            // SAFETY: as above.
            let pending = unsafe { &mut *pending };
            if passes(sk, ports.0, ports.1) {
                connect::ended(sk, ports.0, &raw mut pending.taker);
            }
            taker::forget(pending);
        }
        // connect() sets SYN_SENT, then asks for a port; only without one does it close the socket portless. Process context.
        if ports.0 == 0 {
            port_use::refused(sk);
        }
    }
    released(sk, ports, || old_state);
}
