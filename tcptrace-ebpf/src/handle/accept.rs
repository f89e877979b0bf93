//! accept() returned a connection. Process context: the current task accepts.

use aya_ebpf::helpers::bpf_ktime_get_ns;
use tcptrace_common::{
    listener::{ACCEPTOR_SLOTS, ListenerState},
    record::{Accept, AcceptFail, ListenerRef, WAIT_UNKNOWN},
};

use crate::{
    emit::{self, add},
    filter::{passes, stream_all},
    handle::{histogram, listener, queued::Queued},
    kernel::{Access, Probed, Sock, current, state},
    maps::{ACCEPT_FAILS, AcceptFailKey, AcceptFails, LISTENERS, WAITS},
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
    if is_new_acceptor(state, now) || stream_all() {
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
    if is_new_acceptor(state, now) || stream_all() {
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

/// Whether the current thread is not yet known to accept here: then this accept is reported, so that user space knows all that
/// do. A thread that shares its place with another one waits for its turn.
#[inline(always)]
fn is_new_acceptor(state: &mut ListenerState, now: u64) -> bool {
    /// Units of 2^30 ns for which a place is kept.
    const KEPT: u64 = 10;
    let thread = current::thread() as u32;
    let place = thread as usize & (ACCEPTOR_SLOTS - 1);
    let moment = now >> 30;
    // SAFETY: below ACCEPTOR_SLOTS.
    let slot = unsafe { (&raw mut state.acceptors).cast::<u64>().add(place) };
    // SAFETY: as above; other CPUs write whole words.
    let known = unsafe { slot.read_volatile() };
    if known >> 32 == u64::from(thread) || (known != 0 && moment.wrapping_sub(known & 0xffff_ffff) < KEPT) {
        return false;
    }
    // SAFETY: as above.
    unsafe { slot.write_volatile(u64::from(thread) << 32 | (moment & 0xffff_ffff)) };
    true
}

/// Whether accept() failed for want of something, rather than because there was nothing to accept, or a connection or the
/// wait for one had ended.
#[inline(always)]
pub fn is_failure(result: i64) -> bool {
    /// EPERM, ENOMEM, ENFILE, EMFILE, ENOBUFS.
    const FAILURES: [i64; 5] = [-1, -12, -23, -24, -105];
    result < 0 && FAILURES.contains(&result)
}

/// accept() of the current task at `sk` failed with `errno`. Records are limited: a program that does not expect it tries again
/// at once, for ever.
#[inline(always)]
pub fn failed(sk: Sock<Probed>, errno: u32) {
    /// Records of one process and reason in a second.
    const RECORDS: u64 = 64;
    const SECOND: u64 = 1_000_000_000;
    let port = sk.local_port();
    if !sk.is_tcp_of_application() || sk.state() != state::LISTEN || !passes(sk, port, 0) {
        return;
    }
    let key = AcceptFailKey { listener: sk.id(), tgid: (current::thread() >> 32) as u32, errno };
    // SAFETY: a helper without arguments.
    let now = unsafe { bpf_ktime_get_ns() };
    let (total, in_second) = match ACCEPT_FAILS.get_ptr_mut(&key) {
        Some(known) => {
            // SAFETY: a map value stays readable and writable for the length of a program run.
            let known = unsafe { &mut *known };
            add(&raw mut known.total, 1);
            if now.saturating_sub(known.second_ns) >= SECOND {
                known.second_ns = now;
                known.in_second = 0;
            }
            known.in_second += 1;
            (known.total, known.in_second)
        }
        None => {
            let first = AcceptFails { total: 1, second_ns: now, in_second: 1 };
            let _ = ACCEPT_FAILS.insert(&key, &first, 0);
            (1, 1)
        }
    };
    if in_second > RECORDS {
        return;
    }
    let Some(mut record) = emit::reserve::<AcceptFail>() else { return };
    sk.fill_endpoints(&mut record.endpoints, port);
    record.listener = sk.as_listener();
    current::fill(&mut record.task);
    record.errno = errno;
    record.limit = current::open_files_limit();
    record.total = total;
    let known =
        LISTENERS.get_ptr(&sk.id()).or_else(|| LISTENERS.get_ptr(&listener::port_key(sk.netns(), port)));
    if let Some(state) = known {
        // SAFETY: a map value stays readable for the length of a program run.
        record.accepted = unsafe { (*state).accepted };
    }
    record.submit();
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
