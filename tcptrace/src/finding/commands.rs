//! Commands in remedies: they must work where the trouble is, which may be another network namespace.

use super::party::ProcessName;

/// Inode number of the initial network namespace on most kernels.
const USUAL_HOST_NETNS: u32 = 4_026_531_840;

/// `sysctl -w SETTING`, in the network namespace `netns`, entered through a process that lives there if it is known.
pub(super) fn sysctl(netns: u32, process: Option<&ProcessName>, setting: &str) -> String {
    inside(netns, process, &format!("sysctl -w {setting}"))
}

/// `command`, likewise.
pub(super) fn inside(netns: u32, process: Option<&ProcessName>, command: &str) -> String {
    match process.and_then(|process| process.pid) {
        Some(pid) if netns != USUAL_HOST_NETNS => format!("nsenter -t {pid} -n {command}"),
        _ => command.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn enters_the_namespace_unless_it_is_the_host_s() {
        let process = ProcessName { pid: Some(7), ..ProcessName::default() };
        assert_eq!(sysctl(USUAL_HOST_NETNS, Some(&process), "a=1"), "sysctl -w a=1");
        assert_eq!(sysctl(4_026_532_000, Some(&process), "a=1"), "nsenter -t 7 -n sysctl -w a=1");
        assert_eq!(sysctl(4_026_532_000, None, "a=1"), "sysctl -w a=1");
    }
}
