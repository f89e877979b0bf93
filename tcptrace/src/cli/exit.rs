//! Exit codes: what a script may rely on.

use std::{fmt::Display, process::ExitCode};

/// How tcptrace ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Done.
    Done,
    /// Critical findings with `--fail-on critical`, risks from `check`, nobody found by `who`, or a rehearsal that was not diagnosed.
    Found,
    /// The command line is wrong.
    Usage,
    /// Not permitted.
    NotPermitted,
    /// Not supported by this kernel.
    NotSupported,
    /// An input file cannot be read.
    BadInput,
    /// The output or the recording cannot be written: the disk is full.
    CannotWrite,
    /// The command to be recorded is there and cannot be run; as a shell has it.
    NotRunnable,
    /// The command to be recorded is not there; as a shell has it.
    NoSuchCommand,
    /// As the command that was recorded ended.
    Command(u8),
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Done => 0,
            Exit::Found => 1,
            Exit::Usage => 2,
            Exit::NotPermitted => 3,
            Exit::NotSupported => 4,
            Exit::BadInput => 5,
            Exit::CannotWrite => 6,
            Exit::NotRunnable => 126,
            Exit::NoSuchCommand => 127,
            Exit::Command(code) => code,
        })
    }
}

/// Why a subcommand failed, with the code to end with.
#[derive(Debug)]
pub struct Failure {
    /// The code.
    pub exit: Exit,
    /// What failed, why, and what to do.
    pub message: String,
}

impl Failure {
    /// A failure to be ended with `exit`.
    pub fn new(exit: Exit, message: impl Display) -> Self {
        Self { exit, message: message.to_string() }
    }
}

impl From<crate::live::Error> for Failure {
    fn from(error: crate::live::Error) -> Self {
        let exit = match &error {
            crate::live::Error::Probe(probe) if probe.is_permission() => Exit::NotPermitted,
            crate::live::Error::Netns(_) => Exit::NotPermitted,
            crate::live::Error::Probe(_) => Exit::NotSupported,
        };
        Self::new(exit, error)
    }
}

impl From<crate::record::TapeError> for Failure {
    fn from(error: crate::record::TapeError) -> Self {
        Self::new(Exit::BadInput, error)
    }
}

impl From<crate::rehearse::Error> for Failure {
    fn from(error: crate::rehearse::Error) -> Self {
        let exit = match &error {
            crate::rehearse::Error::Usage(_) => Exit::Usage,
            crate::rehearse::Error::NotSupported(_) => Exit::NotSupported,
            _ => Exit::NotPermitted,
        };
        Self::new(exit, error)
    }
}
