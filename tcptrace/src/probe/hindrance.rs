//! What stands in the way of observing more, where the system says so by itself.

use std::path::Path;

/// What the kernel is locked down to, if it is: `confidentiality` or `integrity`.
fn lockdown() -> Option<String> {
    match std::fs::read_to_string("/sys/kernel/security/lockdown") {
        Ok(line) => locked_down_to(&line),
        // No securityfs is mounted, as in a container. Then it can only have been asked for at boot.
        Err(_) => asked_for(&std::fs::read_to_string("/proc/cmdline").ok()?),
    }
}

/// What the kernel's command line locks it down to.
fn asked_for(command_line: &str) -> Option<String> {
    command_line.split_whitespace().rev().find_map(|word| word.strip_prefix("lockdown=")).map(str::to_owned)
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
    hindrances.extend(tracefs());
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    hindrances.extend(lacking(effective(&status)).map(str::to_owned));
    hindrances
}

/// The effective capabilities in a `/proc/PID/status`.
fn effective(status: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    line.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(u64::MAX)
}

/// What those capabilities do not allow (bits as in uapi/linux/capability.h).
fn lacking(effective: u64) -> impl Iterator<Item = &'static str> {
    const NEEDED: [(u32, &str); 2] = [
        (
            21,
            "other network namespaces may not be entered: no counters, settings or listeners of them (needs CAP_SYS_ADMIN)",
        ),
        (
            19,
            "other users' processes may not be looked at: namespaces and owners may be missing (needs CAP_SYS_PTRACE)",
        ),
    ];
    NEEDED.into_iter().filter(move |(bit, _)| effective & (1 << bit) == 0).map(|(_, words)| words)
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
    fn what_the_capabilities_do_not_allow_is_named() {
        let lacks = |status: &str| {
            let words: Vec<&str> = lacking(effective(status)).collect();
            ["CAP_SYS_ADMIN", "CAP_SYS_PTRACE"].map(|name| words.iter().any(|word| word.contains(name)))
        };
        assert_eq!(lacks("CapPrm:\t0\nCapEff:\t000001ffffffffff\n"), [false, false]);
        assert_eq!(lacks("CapEff:\t0000000000080000\n"), [true, false]);
        assert_eq!(lacks("CapEff:\t0000000000000000\n"), [true, true]);
    }

    #[test]
    fn the_mode_in_brackets_is_the_one_in_force() {
        assert_eq!(locked_down_to("none integrity [confidentiality]\n").as_deref(), Some("confidentiality"));
        assert_eq!(locked_down_to("none [integrity] confidentiality\n").as_deref(), Some("integrity"));
        assert_eq!(locked_down_to("[none] integrity confidentiality\n"), None);
        assert_eq!(locked_down_to(""), None);
    }

    #[test]
    fn without_securityfs_the_command_line_tells() {
        let line = "root=/dev/sda1 lockdown=integrity quiet lockdown=confidentiality panic=-1\n";
        assert_eq!(asked_for(line).as_deref(), Some("confidentiality"));
        assert_eq!(asked_for("root=/dev/sda1 nolockdown=1\n"), None);
    }
}
