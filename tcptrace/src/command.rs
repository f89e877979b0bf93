//! The one place that makes commands for another network namespace: remedies of findings, of `check`, `why` and `who`.
//!
//! A command must work where the trouble is. In the namespace that tcptrace was started in it is printed as it is; any other
//! namespace is entered first, through pid 1 if it is the host's, a process that lives there, its name, or, where none of these is
//! known, whichever process `lsns` finds in it. A bare command in the wrong namespace would change a setting of the wrong host.

/// Which network namespaces need no looking for. Inode numbers are compared with those of this host, never with a constant: the
/// initial namespace has another number since Linux 6.18.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standpoint {
    /// The namespace that tcptrace runs in (`/proc/self/ns/net`), and with it the shell that it was started from.
    pub own: Option<u32>,
    /// The namespace of pid 1 (`/proc/1/ns/net`), where it may be looked at.
    pub host: Option<u32>,
}

/// A network namespace, and what is known of ways into it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Inside<'a> {
    /// Its inode number.
    pub netns: u32,
    /// A process in it.
    pub pid: Option<u32>,
    /// Its name in `/run/netns`.
    pub name: Option<&'a str>,
}

impl Standpoint {
    /// `command`, to be pasted into the shell that tcptrace runs in, for the namespace that `place` is.
    #[must_use]
    pub fn inside(&self, place: Inside<'_>, command: &str) -> String {
        let Inside { netns, pid, name } = place;
        if self.own == Some(netns) {
            return command.to_owned();
        }
        // All of several commands are for that namespace, not the first alone.
        let together;
        let command = if is_one(command) {
            command
        } else {
            together = format!("sh -c {}", quoted(command));
            &together
        };
        if self.host == Some(netns) {
            return format!("nsenter -t 1 -n {command}");
        }
        match (pid, name) {
            (Some(pid), _) => format!("nsenter -t {pid} -n {command}"),
            (None, Some(name)) => format!("ip netns exec {} {command}", quoted(name)),
            (None, None) => {
                let member = format!("lsns -nt net -o NS,PID | awk '$1=={netns}{{print $2}}'");
                format!("nsenter -t \"$({member})\" -n {command}")
            }
        }
    }
}

/// Whether `command` is a single one, which may be put behind another as it stands.
fn is_one(command: &str) -> bool {
    let mut quote = None;
    for c in command.chars() {
        match quote {
            Some(open) if c == open => quote = None,
            None if c == '\'' || c == '"' => quote = Some(c),
            None if ";|&<>(`".contains(c) => return false,
            _ => {}
        }
    }
    true
}

/// `name` as one word of a shell: names in `/run/netns` are whatever their makers chose.
fn quoted(name: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.:@%+".contains(c);
    if !name.is_empty() && !name.starts_with('-') && name.chars().all(is_plain) {
        return name.to_owned();
    }
    format!("'{}'", name.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: u32 = 4_026_531_833;
    const HOST: u32 = 4_026_531_840;

    fn here() -> Standpoint {
        Standpoint { own: Some(OWN), host: Some(HOST) }
    }

    #[test]
    fn the_own_namespace_is_not_entered_whatever_its_number() {
        for netns in [OWN, HOST, 7] {
            let standpoint = Standpoint { own: Some(netns), host: None };
            let place = Inside { netns, pid: Some(9), name: Some("blue") };
            assert_eq!(standpoint.inside(place, "sysctl -w a=1"), "sysctl -w a=1");
        }
    }

    #[test]
    fn the_host_s_is_entered_through_pid_1_from_a_container() {
        assert_eq!(here().inside(Inside { netns: HOST, pid: Some(9), name: None }, "x"), "nsenter -t 1 -n x");
    }

    #[test]
    fn others_are_entered_by_process_then_by_name_then_by_whom_lsns_finds() {
        let way = |pid, name| here().inside(Inside { netns: 42, pid, name }, "x");
        assert_eq!(way(Some(9), Some("blue")), "nsenter -t 9 -n x");
        assert_eq!(way(None, Some("blue")), "ip netns exec blue x");
        let found = "nsenter -t \"$(lsns -nt net -o NS,PID | awk '$1==42{print $2}')\" -n x";
        assert_eq!(way(None, None), found);
    }

    #[test]
    fn several_commands_are_all_for_that_namespace() {
        let way = |command| here().inside(Inside { netns: 42, pid: Some(9), name: None }, command);
        assert_eq!(way("conntrack -S; conntrack -L"), "nsenter -t 9 -n sh -c 'conntrack -S; conntrack -L'");
        assert_eq!(way("kill $(pidof x)"), "nsenter -t 9 -n sh -c 'kill $(pidof x)'");
        assert_eq!(way("sh -c 'a; b'"), "nsenter -t 9 -n sh -c 'a; b'");
        assert_eq!(way("ss -K 'sport = :80 | x'"), "nsenter -t 9 -n ss -K 'sport = :80 | x'");
        assert_eq!(way("ss 'sport = :80'; y"), r"nsenter -t 9 -n sh -c 'ss '\''sport = :80'\''; y'");
        let own = Inside { netns: OWN, pid: Some(9), name: None };
        assert_eq!(here().inside(own, "a; b"), "a; b");
    }

    #[test]
    fn a_name_cannot_smuggle_in_a_command() {
        assert_eq!(quoted("cni-0a1b"), "cni-0a1b");
        assert_eq!(quoted("a;reboot"), "'a;reboot'");
        assert_eq!(quoted("it's"), "'it'\\''s'");
        assert_eq!(quoted("-n"), "'-n'");
    }
}
