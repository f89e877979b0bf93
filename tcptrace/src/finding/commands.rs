//! Commands in remedies: they must work where the trouble is, which may be another network namespace.
//!
//! A finding says in which namespace its command belongs; the way there is added when the finding is reported
//! ([`Remedy::settle`](super::Remedy::settle)), from what the coverage says about this host.

use crate::event::PortSet;

use super::party::ProcessName;

/// A command and the network namespace that it is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CommandLine {
    /// The command itself.
    pub(crate) line: String,
    /// Where it is to run; `None`: anywhere.
    pub(crate) place: Option<CommandPlace>,
}

/// Where a command is to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CommandPlace {
    /// The network namespace.
    pub(crate) netns: u32,
    /// A process that lives there, if one is known.
    pub(crate) pid: Option<u32>,
}

impl<T: Into<String>> From<T> for CommandLine {
    fn from(line: T) -> Self {
        Self { line: line.into(), place: None }
    }
}

/// `sysctl -w SETTING`, in the network namespace `netns`, entered through a process that lives there if it is known.
pub(super) fn sysctl(netns: u32, process: Option<&ProcessName>, setting: &str) -> CommandLine {
    inside(netns, process, &format!("sysctl -w {setting}"))
}

/// Adds `ports` to those that are reserved in the network namespace `netns`, whatever is reserved there when it is run. `more`
/// settings follow in the same call, and are made after it.
pub(super) fn reserve(
    netns: u32,
    process: Option<&ProcessName>,
    ports: &PortSet,
    more: Option<&str>,
) -> CommandLine {
    const RESERVED: &str = "net.ipv4.ip_local_reserved_ports";
    let more = more.map_or_else(String::new, |more| format!(" {more}"));
    // The kernel takes an empty last member for none.
    let add = format!("sysctl -w {RESERVED}=\"{ports},$(sysctl -n {RESERVED})\"{more}");
    inside(netns, process, &format!("sh -c '{add}'"))
}

/// `command`, likewise.
pub(super) fn inside(netns: u32, process: Option<&ProcessName>, command: &str) -> CommandLine {
    let pid = process.and_then(|process| process.pid);
    CommandLine { line: command.to_owned(), place: Some(CommandPlace { netns, pid }) }
}
