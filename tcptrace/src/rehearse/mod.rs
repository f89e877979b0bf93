//! Makes the incidents of the [`catalogue`] in private network namespaces, with real sockets and processes.
//!
//! A [`Stage`] is a private network namespace; actors are separate, named processes in it; an [`Incident`] directs them
//! and says afterwards, from its own books and the kernel's counters, what really happened: the [`GroundTruth`]. From the code
//! that is judged it takes names (of confidences and observations) and the programs that stage a denial, never an answer.
//!
//! ```no_run
//! use tcptrace::rehearse::{Options, incident};
//! let mut incident = incident("accept-queue-overflow", &Options::default())?;
//! let netns = incident.stage().netns_inode(); // filter the tracer to this namespace
//! incident.prepare()?;                        // what must be older than the tracer
//! // … attach …
//! let truth = incident.play()?;               // the server still lives: the tracer may look at it
//! // … stop tracing, compare …
//! drop(incident);                             // ends every process and the namespace
//! # Ok::<(), tcptrace::rehearse::Error>(())
//! ```

mod actor;
mod cancel;
mod cgroup;
mod counters;
mod drill;
mod error;
mod incident;
mod ipvs;
mod judge;
mod mptcp;
mod namespace;
mod netlink;
mod nft;
mod stage;
mod truth;

pub use actor::{ACTOR_SUBCOMMAND, Identity, actor_main};
pub use cancel::Cancel;
pub use counters::Counters;
pub use drill::{Expected, Value, Wrong, drill, ipv6_is_off};
pub use error::{Error, Result};
pub use incident::{Entry, Family, Incident, Options, Variant, catalogue, entry, incident};
pub use judge::{Claims, judge_waits};
pub use namespace::Namespace;
pub use stage::{Layout, Stage};
pub use truth::{Allowed, AllowedAt, Expectation, GroundTruth, Party, Question};
