//! tcptrace: why connections are not being set up on this host: who, where, why, and what to change.
//!
//! Data walks through the rooms of this crate top to bottom:
//! [`probe`] (or a recording) → [`event`] → [`correlate`] → [`finding`] → [`output`];
//! [`live`] drives the probes of this host; [`identity`] and [`host`] add what the kernel shows without probes; [`rehearse`] makes the incidents to explain.
//! [`software`] knows what to change in which server or client, in its own words.
//! [`config`] has the user's settings.
//! [`top`] shows all of it on a screen; [`agent`] runs all the time, and keeps and counts it.
//! [`stock`] is the host as it is now, for what needs no probes: [`check`]; [`who`] holds a port.

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
compile_error!(
    "tcptrace knows the registers and the system calls of x86-64 and arm64 only (tcptrace-ebpf/src/kernel/registers.rs)"
);

pub mod agent;
pub mod check;
pub mod cli;
pub mod command;
pub mod config;
pub mod correlate;
pub mod event;
pub mod finding;
#[cfg(any(test, feature = "fuzz"))]
pub mod fuzz;
pub mod host;
pub mod identity;
pub mod live;
pub mod output;
pub mod pipeline;
pub mod probe;
pub mod record;
pub mod rehearse;
pub mod report;
pub mod software;
pub mod stock;
pub mod top;
pub mod who;
pub mod why;
