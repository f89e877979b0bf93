//! Typed views of kernel structures, a file each: the only place that knows offsets.
//!
//! Offsets come from [`LAYOUT`], which user space fills from the running kernel's BTF before it loads a program. The
//! verifier reads that map as constants, so a load through a BTF pointer at such an offset is checked like a load of a
//! named member, and a branch on [`ABSENT`] is pruned.

mod access;
mod address;
pub mod bind_hash;
pub mod current;
mod net;
mod registers;
mod request;
mod skb;
mod sock;
mod task_file;

use tcptrace_common::{ABSENT, KernelLayout, TraceConfig, open_socket::OpenSocketQuery};

pub use access::{Access, Direct, Probed};
pub use address::{is_mapped, mapped, socket_address};
pub use net::Net;
pub use registers::{argument, result, syscall_second_argument};
pub use request::Request;
pub use skb::{Skb, TCP_ACK, TCP_RST};
pub use sock::Sock;
pub use task_file::TaskFile;

/// The running kernel's layout. Overridden at load.
#[unsafe(no_mangle)]
pub static LAYOUT: KernelLayout = KernelLayout::NOTHING;

/// What the user asked for. Overridden at load.
#[unsafe(no_mangle)]
pub static CONFIG: TraceConfig = TraceConfig {
    flags: 0,
    netns: 0,
    port_count: 0,
    pad: 0,
    ports: [0; tcptrace_common::config::PORT_FILTERS],
};

/// What an iteration over open sockets is asked for. Overridden at load.
#[unsafe(no_mangle)]
pub static OPEN_SOCKETS: OpenSocketQuery =
    OpenSocketQuery { first: 0, last: u16::MAX, remember: 0, state: 0 };

/// An entry of [`LAYOUT`], read so that the compiler cannot fold in the value it sees here.
macro_rules! layout {
    ($entry:ident) => {
        // SAFETY: LAYOUT is an initialised static; volatile because user space replaces it before load.
        unsafe { core::ptr::read_volatile(&raw const $crate::kernel::LAYOUT.$entry) }
    };
}
pub(crate) use layout;

/// TCP in `sk_protocol` and in an IP header.
const IPPROTO_TCP: u8 = 6;

/// TCP states as the kernel numbers them (include/net/tcp_states.h).
pub mod state {
    pub const ESTABLISHED: u8 = 1;
    pub const SYN_SENT: u8 = 2;
    pub const SYN_RECV: u8 = 3;
    pub const FIN_WAIT1: u8 = 4;
    pub const FIN_WAIT2: u8 = 5;
    pub const TIME_WAIT: u8 = 6;
    pub const CLOSE: u8 = 7;
    pub const LISTEN: u8 = 10;
    pub const CLOSING: u8 = 11;
}
