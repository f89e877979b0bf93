//! A listener began, changed its backlog, or was closed. Process context: the current task is the one that does it.

use aya_log_ebpf::debug;
use tcptrace_common::record::{LISTEN_AGAIN, LISTEN_BACKLOG_SEEN, Listen, ListenerClosed};

use crate::{
    emit,
    filter::passes,
    handle::listener,
    kernel::{Access, Sock, current, state},
    maps::{CALL_SYS_LISTEN, CALLS, Call, CallKey, HANDSHAKES, LISTENERS, WAITS},
};

/// listen() was called with this backlog, before the kernel cuts it to somaxconn in `__sys_listen()`.
#[inline(always)]
pub fn asked(backlog: u64) {
    let key = CallKey { thread: current::thread(), which: CALL_SYS_LISTEN };
    // A full LRU evicts; the argument is then reported as unknown.
    let _ = CALLS.insert(&key, &Call { first: backlog, second: 0 }, 0);
}

/// The socket listens: for the first time, or `again` with another backlog.
#[inline(always)]
pub fn listening<A: Access>(sk: Sock<A>, again: bool) {
    let port = sk.local_port();
    if !passes(sk, port, 0) {
        return;
    }
    let limit = sk.accept_queue_limit();
    if again {
        // Called for every successful listen(), also the first, which `inet_csk_listen_start` has reported.
        let Some(known) = listener::state_of(sk) else { return };
        if known.limit == limit {
            return;
        }
        known.limit = limit;
    } else {
        // Anew even if there is an entry: the memory of a closed listener is used again.
        let Some(known) = listener::fresh(sk.id()) else { return };
        sk.fill_endpoints(&mut known.endpoints, port);
        known.ino = sk.ino();
        known.limit = limit;
    }
    let key = CallKey { thread: current::thread(), which: CALL_SYS_LISTEN };
    let mut flags = if again { LISTEN_AGAIN } else { 0 };
    let mut backlog = 0;
    if let Some(call) = CALLS.get_ptr(&key) {
        flags |= LISTEN_BACKLOG_SEEN;
        // SAFETY: a map value stays readable for the length of a program run.
        backlog = unsafe { (*call).first as u32 };
    }
    let _ = CALLS.remove(&key);

    debug!((), "listening at port {}: backlog {}, limit {}", port, backlog, limit);
    let Some(mut record) = emit::reserve::<Listen>() else { return };
    sk.fill_endpoints(&mut record.endpoints, port);
    record.listener = sk.as_listener();
    current::fill(&mut record.task);
    record.backlog = backlog;
    record.somaxconn = sk.net().somaxconn();
    record.options = u32::from(sk.options() | sk.inet_options());
    record.flags = flags;
    record.submit();
}

/// `inet_csk_listen_stop`: what waits in the accept queue is about to be reset.
#[inline(always)]
pub fn closing<A: Access>(sk: Sock<A>) {
    // tcp_disconnect() of a listener comes here too; nothing else but a listener does.
    if sk.state() != state::LISTEN && sk.state() != state::CLOSE {
        return;
    }
    // A port that the kernel chose is given back before this; the source port stays.
    let port = sk.source_port();
    if !passes(sk, port, 0) {
        return;
    }
    debug!((), "listener at port {} closes", port);
    let key = sk.id();
    if let Some(mut record) = emit::reserve::<ListenerClosed>() {
        sk.fill_endpoints(&mut record.endpoints, port);
        record.listener = sk.as_listener();
        current::fill(&mut record.task);
        record.task.flags = current::flags();
        if let Some(last) = LISTENERS.get_ptr(&key) {
            // SAFETY: a map value stays readable for the length of a program run.
            record.last = unsafe { *last };
        }
        record.submit();
    }
    let _ = LISTENERS.remove(&key);
    let _ = WAITS.remove(&key);
    let _ = HANDSHAKES.remove(&key);
}
