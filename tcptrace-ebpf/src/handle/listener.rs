//! The state kept for each listener.

use tcptrace_common::listener::ListenerState;

use crate::{
    emit::lost,
    kernel::{Access, Sock},
    maps::{LISTENERS, ZEROES},
};

/// State under `key`, made on the spot for a listener that is older than the tracer.
#[inline(always)]
pub fn state_of<A: Access>(sk: Sock<A>) -> Option<&'static mut ListenerState> {
    let key = sk.id();
    if let Some(state) = LISTENERS.get_ptr_mut(&key) {
        // SAFETY: a map value stays readable and writable for the length of a program run, even if deleted meanwhile.
        return Some(unsafe { &mut *state });
    }
    let state = fresh(key)?;
    sk.fill_endpoints(&mut state.endpoints, sk.local_port());
    state.ino = sk.ino();
    state.limit = sk.accept_queue_limit();
    Some(state)
}

/// Zeroed state under `key`, whatever was there before.
#[inline(always)]
pub fn fresh(key: u64) -> Option<&'static mut ListenerState> {
    let zero = ZEROES.get_ptr(0)?.cast::<ListenerState>();
    // SAFETY: the zero array is longer than a ListenerState, and all-zero bytes are a valid one.
    if LISTENERS.insert(&key, unsafe { &*zero }, 0).is_err() {
        lost(0);
        return None;
    }
    let state = LISTENERS.get_ptr_mut(&key)?;
    // SAFETY: as in `state_of`.
    Some(unsafe { &mut *state })
}

/// Notes the depth of the accept queue as it is now.
#[inline(always)]
pub fn note_depth(state: &mut ListenerState, depth: u32, limit: u32) {
    state.depth = depth;
    state.limit = limit;
    if depth > state.depth_max {
        state.depth_max = depth;
    }
}

/// Notes the length of the SYN queue as it is now.
#[inline(always)]
pub fn note_syn_queue(state: &mut ListenerState, length: u32) {
    if length > state.syn_queue_max {
        state.syn_queue_max = length;
    }
}

/// Tracepoint tier: state of whatever listens at `port` in the namespace of `sk`, one of its children. Which listener that
/// is (address, reuseport member) cannot be seen there, so namespace and port are the key; no kernel address is so small.
#[inline(always)]
pub fn state_by_port<A: Access>(sk: Sock<A>, port: u16) -> Option<&'static mut ListenerState> {
    let netns = sk.netns();
    let key = port_key(netns, port);
    if let Some(state) = LISTENERS.get_ptr_mut(&key) {
        // SAFETY: as in `state_of`.
        return Some(unsafe { &mut *state });
    }
    let state = fresh(key)?;
    state.endpoints.local_port = port;
    state.endpoints.netns = netns;
    state.endpoints.family = sk.family();
    Some(state)
}

/// Key of a listener that is known by namespace and port only.
#[inline(always)]
pub fn port_key(netns: u32, port: u16) -> u64 {
    u64::from(netns) << 16 | u64::from(port)
}
