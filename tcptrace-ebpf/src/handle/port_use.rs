//! How many ephemeral ports each process takes and gives back, and connects that got none.

use aya_ebpf::helpers::bpf_ktime_get_ns;
use tcptrace_common::{
    port::{HOW_BIND, HOW_CONNECT, PortUse, PortUseKey, REFUSALS_STREAMED, Taker},
    record::NoPort,
    wire::Task,
};

use crate::{
    emit::{self, add},
    filter::{passes, stream_all},
    kernel::{Access, Sock, current},
    maps::{PORT_USE, SERVED},
};

/// The counts of the process of `task`; `None` (and a loss counted) when there is no room.
#[inline(always)]
fn of(netns: u32, task: &Task) -> Option<*mut PortUse> {
    let key = PortUseKey { netns, tgid: task.tgid };
    if let Some(counts) = PORT_USE.get_ptr_mut(&key) {
        return Some(counts);
    }
    begin(&key, task);
    PORT_USE.get_ptr_mut(&key)
}

/// Not inlined: it happens once a process.
#[inline(never)]
fn begin(key: &PortUseKey, task: &Task) {
    // SAFETY: a helper without arguments.
    let now = unsafe { bpf_ktime_get_ns() };
    let fresh = PortUse { since_ns: now, window_ns: now, comm: task.comm, ..Default::default() };
    // BPF_NOEXIST: another CPU may have been quicker.
    if PORT_USE.insert(key, &fresh, 1).is_err() && PORT_USE.get_ptr(key).is_none() {
        emit::lost(0);
    }
}

/// The kernel chose a port for `taker`, whose socket `sk` is.
#[inline(always)]
pub fn took<A: Access>(sk: Sock<A>, taker: &Taker) {
    let Some(counts) = of(sk.netns(), &taker.task) else { return };
    let by_connect = taker.how == HOW_CONNECT;
    // SAFETY: members of a map value, which stays readable for the length of a program run.
    unsafe {
        add(if by_connect { &raw mut (*counts).by_connect } else { &raw mut (*counts).by_bind }, 1);
        // Without IP_BIND_ADDRESS_NO_PORT bind() would have taken the port.
        if by_connect && sk.has_bound_address() {
            add(&raw mut (*counts).late, 1);
        }
        if sk.own_range() != 0 {
            add(&raw mut (*counts).own_range, 1);
        }
    }
}

/// A socket whose port was taken by bind() is connected now.
#[inline(always)]
pub fn connected_bound(netns: u32, taker: &Taker) {
    if taker.how == HOW_BIND || taker.bootstrapped != 0 {
        return;
    }
    let Some(counts) = of(netns, &taker.task) else { return };
    // SAFETY: as above.
    add(unsafe { &raw mut (*counts).bound_connects }, 1);
}

/// The port of `taker` is given back, or left to TIME_WAIT.
#[inline(always)]
pub fn gave_back(netns: u32, taker: &Taker, time_wait: bool) {
    // Nor was it counted as taken if it was not seen.
    if taker.how == HOW_BIND || taker.bootstrapped != 0 {
        return;
    }
    let Some(counts) = PORT_USE.get_ptr_mut(&PortUseKey { netns, tgid: taker.task.tgid }) else { return };
    // SAFETY: as above.
    unsafe {
        add(&raw mut (*counts).released, 1);
        if time_wait {
            add(&raw mut (*counts).time_wait, 1);
        }
    }
}

/// Whether some server has or had this port.
#[inline(always)]
pub fn is_served(port: u16) -> bool {
    let Some(ports) = SERVED.get_ptr(0) else { return false };
    // SAFETY: an array slot is always there, and 1024 words have a bit for each port.
    let word = unsafe { *ports.cast::<u64>().add(usize::from(port >> 6)) };
    word >> (port & 63) & 1 != 0
}

/// connect() of the current task fails: it got no port, or its socket's own is in use for the same connection.
#[inline(always)]
pub fn refused<A: Access>(sk: Sock<A>) {
    let port = sk.local_port();
    if !passes(sk, port, sk.remote_port()) {
        return;
    }
    let mut task = Task::default();
    current::fill(&mut task);
    let Some(counts) = of(sk.netns(), &task) else { return };
    // SAFETY: a helper without arguments; members of a map value, which stays readable for the length of a program run, and of
    // which only counts that are atomically added to matter.
    let total = unsafe {
        if port == 0 {
            add(&raw mut (*counts).refused, 1);
        }
        let now = bpf_ktime_get_ns();
        if now.wrapping_sub((*counts).window_ns) > 1_000_000_000 {
            (*counts).window_ns = now;
            (*counts).streamed = 0;
        }
        if (*counts).streamed >= REFUSALS_STREAMED && !stream_all() {
            return;
        }
        (*counts).streamed += 1;
        (*counts).refused
    };
    let Some(mut record) = emit::reserve::<NoPort>() else { return };
    sk.fill_endpoints(&mut record.endpoints, port);
    record.task = task;
    record.sk = sk.id();
    record.total = total;
    record.options = u32::from(sk.options() | sk.inet_options());
    record.own_range = sk.own_range();
    record.submit();
}
