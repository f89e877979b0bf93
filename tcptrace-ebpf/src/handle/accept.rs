//! accept() returned a connection. Process context: the current task accepts.

use aya_ebpf::helpers::bpf_ktime_get_ns;
use tcptrace_common::{
    listener::ListenerState,
    record::{Accept, WAIT_UNKNOWN},
};

use crate::{
    emit::{self, add},
    filter::{passes, stream_all},
    handle::{histogram, listener},
    kernel::{Access, Sock, current},
    maps::{QUEUED, Queued, WAITS},
};

/// When `child` entered the accept queue, forgotten with this call; time 0 when that was not seen. (Not an `Option`: the
/// compiler would carry its unset payload in a register, which the verifier refuses.)
#[inline(always)]
pub fn take_queued(child: u64) -> Queued {
    let Some(queued) = QUEUED.get_ptr(&child) else { return Queued { time_ns: 0, listener: 0 } };
    // SAFETY: a map value stays readable for the length of a program run.
    let queued = unsafe { *queued };
    let _ = QUEUED.remove(&child);
    queued
}

/// `sk`, a listener, gave `child` to the current task.
#[inline(always)]
pub fn accepted<A: Access>(sk: Sock<A>, child: Sock<A>, queued: Queued) {
    let port = sk.local_port();
    if !passes(sk, port, 0) {
        return;
    }
    let Some(state) = listener::state_of(sk) else { return };
    state.depth = sk.accept_queue_depth();
    let wait = count_accept(state, queued);
    if wait != WAIT_UNKNOWN {
        histogram::count(&WAITS, sk.id(), wait);
    }
    if stream_all() {
        let Some(mut record) = emit::reserve::<Accept>() else { return };
        child.fill_endpoints(&mut record.endpoints, port);
        sk.fill_listener(&mut record.listener);
        current::fill(&mut record.task);
        record.wait_ns = wait;
        record.child = child.id();
        record.submit();
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
    let wait = count_accept(state, queued);
    if wait != WAIT_UNKNOWN {
        histogram::count(&WAITS, listener::port_key(child.netns(), port), wait);
    }
    if stream_all() {
        let Some(mut record) = emit::reserve::<Accept>() else { return };
        child.fill_endpoints(&mut record.endpoints, port);
        current::fill(&mut record.task);
        record.wait_ns = wait;
        record.child = child.id();
        record.submit();
    }
}

/// Counts one accept by the current task; the connection's accept wait in ns.
#[inline(always)]
fn count_accept(state: &mut ListenerState, queued: Queued) -> u64 {
    // SAFETY: a helper without arguments.
    let now = unsafe { bpf_ktime_get_ns() };
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
