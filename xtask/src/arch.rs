//! The processors that `tcptrace` runs on, and by what names everybody else knows them.

use clap::ValueEnum;

/// A processor's architecture. This machine is the first; guests of the other are emulated like those of the first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Arch {
    #[default]
    #[value(name = "x86-64", alias = "x86_64", alias = "amd64")]
    X86_64,
    #[value(name = "arm64", alias = "aarch64")]
    Arm64,
}

impl Arch {
    /// As on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::X86_64 => "x86-64",
            Self::Arm64 => "arm64",
        }
    }

    /// Debian's name.
    pub(crate) fn debian(self) -> &'static str {
        match self {
            Self::X86_64 => "amd64",
            Self::Arm64 => "arm64",
        }
    }

    /// As `uname -m` has it.
    pub(crate) fn processor(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64",
            Self::Arm64 => "aarch64",
        }
    }

    /// What Rust builds for.
    pub(crate) fn target(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64-unknown-linux-gnu",
            Self::Arm64 => "aarch64-unknown-linux-gnu",
        }
    }

    /// Before the name of what belongs to it: nothing for this machine's own.
    pub(crate) fn prefix(self) -> &'static str {
        match self {
            Self::X86_64 => "",
            Self::Arm64 => "arm64 ",
        }
    }
}
