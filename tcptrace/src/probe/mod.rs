//! The kernel side seen from user space: BTF layout, attach plan and coverage, loading, ring buffer to bytes.

pub mod attach;
mod batch;
pub mod btf;
mod cost;
pub mod coverage;
pub mod deny;
pub mod deny_packets;
pub mod error;
mod hindrance;
mod misses;
mod object;
pub mod open_sockets;
pub mod plan;
mod preload;
mod tracefs;
pub mod tracer;

pub use attach::{Attached, Tier};
pub use cost::ProgramCosts;
pub use coverage::{Coverage, Observed, Status};
pub use error::ProbeError;
pub use hindrance::hindrances;
pub use plan::BackEnd;
pub use tracer::{Options, Tracer};
