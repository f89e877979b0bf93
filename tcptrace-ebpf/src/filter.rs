//! In-kernel filters: namespace and port. An unused filter is a pruned branch.

use tcptrace_common::config::{PORT_FILTERS, SERVE_ALL, STREAM_ALL, STREAM_SYNS};

use crate::{
    kernel::{Access, CONFIG, Sock},
    maps::SERVES,
};

/// A member of [`CONFIG`], read so that the compiler cannot fold in the value it sees here.
macro_rules! config {
    ($member:ident) => {
        // SAFETY: CONFIG is an initialised static; volatile because user space replaces it before load.
        unsafe { core::ptr::read_volatile(&raw const CONFIG.$member) }
    };
}

/// Every enqueue, accept, take and release was asked for.
#[inline(always)]
pub fn stream_all() -> bool {
    config!(flags) & STREAM_ALL != 0
}

/// Every SYN was asked for.
#[inline(always)]
pub fn stream_syns() -> bool {
    config!(flags) & STREAM_SYNS != 0
}

/// Whether all programs are attached. Attaching takes a second or so, one program after the other: until it is over none of them
/// counts, so that what one program counts and what another one counts are of the same time.
#[inline(always)]
fn has_begun() -> bool {
    let Some(serves) = SERVES.get_ptr(0) else { return false };
    // SAFETY: an array slot is always there; volatile because user space writes it while programs run.
    unsafe { serves.read_volatile() & SERVE_ALL != 0 }
}

/// Whether an event of `sk`, in its namespace, at these ports, was asked for, now that all programs are attached.
#[inline(always)]
pub fn passes<A: Access>(sk: Sock<A>, local_port: u16, remote_port: u16) -> bool {
    has_begun() && is_asked_for(sk, local_port, remote_port)
}

/// Whether `sk`, in its namespace, at these ports, was asked for. A remote port of 0 never matches.
#[inline(always)]
pub fn is_asked_for<A: Access>(sk: Sock<A>, local_port: u16, remote_port: u16) -> bool {
    let netns = config!(netns);
    if netns != 0 && sk.netns() != netns {
        return false;
    }
    wants_ports(local_port, remote_port)
}

/// [`passes`] for a packet that has no socket.
#[inline(always)]
pub fn wants(netns: u32, local_port: u16, remote_port: u16) -> bool {
    let wanted = config!(netns);
    has_begun() && (wanted == 0 || wanted == netns) && wants_ports(local_port, remote_port)
}

#[inline(always)]
fn wants_ports(local_port: u16, remote_port: u16) -> bool {
    let count = config!(port_count);
    if count == 0 {
        return true;
    }
    for i in 0..PORT_FILTERS {
        if i as u32 >= count {
            break;
        }
        // SAFETY: as above; i is within the array.
        let port = unsafe { core::ptr::read_volatile((&raw const CONFIG.ports).cast::<u16>().add(i)) };
        if port == local_port || (remote_port != 0 && port == remote_port) {
            return true;
        }
    }
    false
}
