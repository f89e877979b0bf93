//! accept() returned a connection. Process context: the current task accepts.

use aya_ebpf::helpers::bpf_ktime_get_ns;
use tcptrace_common::{
    listener::ListenerState,
    record::{Accept, ListenerRef, WAIT_UNKNOWN},
};

use crate::{
    emit::{self, add},
    filter::{passes, stream_all},
    handle::{histogram, listener, queued::Queued},
    kernel::{Access, Sock, current},
    maps::WAITS,
};

/// `sk`, a listener, gave `child` to the current task.
#[inline(always)]
pub fn accepted<A: Access>(sk: Sock<A>, child: Sock<A>, queued: Queued) {
    let port = sk.local_port();
    if !passes(sk, port, 0) {
        return;
    }
    let Some(state) = listener::state_of(sk) else { return };
    state.depth = sk.accept_queue_depth();
    // SAFETY: a helper without arguments.
    let now = unsafe { bpf_ktime_get_ns() };
    let wait = count_accept(state, queued, now);
    if wait != WAIT_UNKNOWN {
        histogram::count(&WAITS, sk.id(), wait);
    }
    if stream_all() {
        emit::send(now, |header| Accept {
            header,
            endpoints: child.endpoints(port),
            listener: ListenerRef {
                sk: sk.id(),
                ino: state.ino,
                depth: state.depth,
                limit: state.limit,
                syn_queue: sk.syn_queue(),
                pad: 0,
            },
            task: current::task(),
            wait_ns: wait,
            child: child.id(),
        });
    }
}

/// Tracepoint tier: the current task got `child` from a listener that cannot be seen from here.
#[inline(always)]
pub fn accepted_child<A: Access>(child: Sock<A>, queued: Queued) {
    let port = child.local_port();
    if !passes(child, port, 0) {
        return;
    }
    let Some(state) = listener::state_by_port(child, port) else { return };
    // SAFETY: a helper without arguments.
    let now = unsafe { bpf_ktime_get_ns() };
    let wait = count_accept(state, queued, now);
    if wait != WAIT_UNKNOWN {
        histogram::count(&WAITS, listener::port_key(child.netns(), port), wait);
    }
    if stream_all() {
        emit::send(now, |header| Accept {
            header,
            endpoints: child.endpoints(port),
            listener: ListenerRef::default(),
            task: current::task(),
            wait_ns: wait,
            child: child.id(),
        });
    }
}

/// Counts one accept by the current task; the connection's accept wait in ns.
#[inline(always)]
fn count_accept(state: &mut ListenerState, queued: Queued, now: u64) -> u64 {
    add(&raw mut state.accepted, 1);
    state.last_accept_ns = now;
    let thread = current::thread();
    state.last_acceptor_tgid = (thread >> 32) as u32;
    state.last_acceptor_tid = thread as u32;
    if queued.time_ns == 0 {
        return WAIT_UNKNOWN;
    }
    // Clocks of two CPUs may differ by some ns.
    let wait = now.saturating_sub(queued.time_ns);
    add(&raw mut state.waits, 1);
    add(&raw mut state.wait_total_ns, wait);
    if wait > state.wait_max_ns {
        state.wait_max_ns = wait;
    }
    wait
}
