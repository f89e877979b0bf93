//! What stands in the way of observing more, where the system says so by itself.

use std::path::Path;

/// What the kernel is locked down to, if it is: `confidentiality` or `integrity`.
fn lockdown() -> Option<String> {
    locked_down_to(&std::fs::read_to_string("/sys/kernel/security/lockdown").ok()?)
}

/// The file's line is `none [integrity] confidentiality`.
fn locked_down_to(line: &str) -> Option<String> {
    let (_, rest) = line.split_once('[')?;
    let (mode, _) = rest.split_once(']')?;
    (mode != "none").then(|| mode.to_owned())
}

/// Whether the kernel forbids BPF programs to read its memory.
pub(super) fn is_confidential() -> bool {
    lockdown().is_some_and(|mode| mode == "confidentiality")
}

/// What stands in the way, a few words each.
#[must_use]
pub fn hindrances() -> Vec<String> {
    let mut hindrances = Vec::new();
    if is_confidential() {
        hindrances.push(LOCKDOWN.to_owned());
    }
    if let Some(why) = tracefs() {
        hindrances.push(why);
    }
    hindrances
}

pub(super) const LOCKDOWN: &str =
    "kernel lockdown (confidentiality): BPF programs may not read kernel memory";

/// Why the tracepoints of system calls and kprobes by name are not to be had, if they are not: tracefs is root's, mode 0700.
fn tracefs() -> Option<String> {
    let refused = |at: &str| {
        let events = Path::new(at).join("events");
        matches!(events.read_dir(), Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied)
    };
    refused("/sys/kernel/tracing")
        .then(|| "tracefs may not be read: system calls are not seen (needs CAP_DAC_READ_SEARCH)".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mode_in_brackets_is_the_one_in_force() {
        assert_eq!(locked_down_to("none integrity [confidentiality]\n").as_deref(), Some("confidentiality"));
        assert_eq!(locked_down_to("none [integrity] confidentiality\n").as_deref(), Some("integrity"));
        assert_eq!(locked_down_to("[none] integrity confidentiality\n"), None);
        assert_eq!(locked_down_to(""), None);
    }
}
