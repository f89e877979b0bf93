//! What crosses the kernel boundary of tcptrace: event records, trace configuration, kernel layout, map values.
//!
//! Every type here is `repr(C)`, has only integer members (no bool, no enum, no reference), has its padding written out,
//! and has its size asserted, so that the same bytes mean the same thing to the eBPF object, to the agent that reads the
//! ring buffer, and to a fuzzer. Numbers that stand for a choice are constants in a module of their own.
//!
//! With the feature `user`, the types can be read from bytes and written as bytes (`zerocopy`, whose derives refuse a type with
//! padding that is not written out). There is no version number in a record: the agent embeds the eBPF object, and its build
//! refuses an object that was made of other sources than these.
#![no_std]

pub mod config;
pub mod connect;
pub mod drop;
pub mod layout;
pub mod listener;
pub mod open_socket;
pub mod port;
pub mod record;
pub mod stand_in;
pub mod wire;

pub use config::TraceConfig;
pub use layout::{ABSENT, KernelLayout};
