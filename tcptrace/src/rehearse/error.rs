//! What can go wrong while an incident is staged, by what the person at the keyboard can do about it.

use std::io;

/// Result of everything in this room.
pub type Result<T> = std::result::Result<T, Error>;

/// Why an incident could not be staged.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No such incident, variant or option.
    #[error("{0}")]
    Usage(String),
    /// The kernel or the container runtime refused; the text says what to do.
    #[error("{what}: {source}; {advice}")]
    NotPermitted {
        /// What was tried.
        what: String,
        /// What the kernel said.
        source: io::Error,
        /// What to do about it.
        advice: &'static str,
    },
    /// This kernel cannot do it at all.
    #[error("{0}")]
    NotSupported(String),
    /// [`super::Cancel::cancel`] was called.
    #[error("interrupted")]
    Cancelled,
    /// An actor process misbehaved or died.
    #[error("actor {role}: {problem}")]
    Actor {
        /// The actor's name.
        role: String,
        /// What happened.
        problem: String,
    },
    /// A system call failed that should not.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// Everything worked, but what was to happen did not; tracing it would prove nothing.
    #[error("the incident did not come about: {0}")]
    NotStaged(String),
}

/// Says what was being done when an I/O error came up.
pub(super) trait During<T> {
    /// Turns the error into [`Error::Io`] with `what` in front of it.
    fn during(self, what: impl Into<String>) -> Result<T>;
}

impl<T> During<T> for io::Result<T> {
    fn during(self, what: impl Into<String>) -> Result<T> {
        self.map_err(|source| Error::Io { what: what.into(), source })
    }
}

impl<T> During<T> for nix::Result<T> {
    fn during(self, what: impl Into<String>) -> Result<T> {
        self.map_err(io::Error::from).during(what)
    }
}
