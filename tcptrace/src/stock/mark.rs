//! What is wrong with a listener, or may become so: sentences that stand under its line.

use super::{LimitedBy, Listener};
use crate::finding::words::count;

/// What kind of thing is wrong. The worst first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum MarkKind {
    /// The accept queue is full: whatever comes is dropped.
    Full,
    /// All owners are stopped.
    ProcessStopped,
    /// An owner can open no more files, so accept() fails.
    FdLimit,
    /// The SYN queue is full.
    SynQueueFull,
    /// Connections wait, and threads of an owner are in uninterruptible sleep.
    ProcessBlocked,
    /// Connections wait at this member of a group and at no other.
    Uneven,
    /// The argument of listen() was cut by somaxconn.
    BacklogTruncated,
    /// The port lies in the ephemeral range, unreserved.
    EphemeralPort,
    /// Nobody has the listener open.
    NoOwner,
}

impl MarkKind {
    /// Name in output.
    pub fn name(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::ProcessStopped => "process-stopped",
            Self::FdLimit => "fd-limit",
            Self::SynQueueFull => "syn-queue-full",
            Self::ProcessBlocked => "process-blocked",
            Self::Uneven => "uneven",
            Self::BacklogTruncated => "backlog-truncated",
            Self::EphemeralPort => "ephemeral-port",
            Self::NoOwner => "no-owner",
        }
    }

    /// Whether it hurts now; otherwise it may one day.
    pub fn is_trouble(self) -> bool {
        self < Self::BacklogTruncated
    }
}

/// Something that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    /// What kind of thing.
    pub kind: MarkKind,
    /// In words.
    pub text: String,
}

impl Listener {
    /// What is wrong with it, the worst first.
    pub fn marks(&self) -> Vec<Mark> {
        let mut marks: Vec<Mark> = [
            self.full(),
            self.stopped(),
            self.fd_limit(),
            self.syn_queue_full(),
            self.blocked(),
            self.uneven(),
            self.truncated(),
            self.ephemeral_port(),
            self.no_owner(),
        ]
        .into_iter()
        .flatten()
        .collect();
        marks.sort_by_key(|mark| mark.kind);
        marks
    }

    /// What limits the accept queue, and what does not.
    pub fn limit_in_words(&self) -> String {
        let limit = self.limit.limit;
        let somaxconn = |other: &str| {
            self.limit.somaxconn.map_or_else(String::new, |value| format!("; somaxconn ({value}) {other}"))
        };
        match self.limit.limited_by() {
            LimitedBy::Argument { seen: true } => {
                let asked = self.limit.backlog.unwrap_or(limit);
                format!("the limit is the program's: listen(fd, {asked}){}", somaxconn("is not it"))
            }
            LimitedBy::Argument { seen: false } => {
                format!("the limit {limit} is the program's listen() argument{}", somaxconn("allows more"))
            }
            LimitedBy::Somaxconn => {
                let asked = self.limit.backlog.map_or_else(|| "more".to_owned(), signed);
                format!("the limit is net.core.somaxconn: listen(fd, {asked}) was cut to {limit}")
            }
            LimitedBy::ProbablySomaxconn => {
                format!(
                    "the limit is what net.core.somaxconn is ({limit}), which probably cut the program's argument"
                )
            }
            LimitedBy::Unknown => {
                format!(
                    "the limit {limit} is the program's argument, or what somaxconn was when listen() was called"
                )
            }
        }
    }

    fn full(&self) -> Option<Mark> {
        self.is_full().then(|| {
            let waiting = count(self.socket.depth.into(), "connection waits", "connections wait");
            mark(
                MarkKind::Full,
                format!("accept queue full: {waiting}, more are dropped; {}", self.limit_in_words()),
            )
        })
    }

    fn stopped(&self) -> Option<Mark> {
        let pid = self.owner().map(|owner| owner.process.who.pid)?;
        self.is_stopped().then(|| {
            let who = if self.owners.len() > 1 { "all its processes are" } else { "its process is" };
            let text =
                format!("{who} stopped (by a signal or a debugger), nobody can accept: kill -CONT {pid}");
            mark(MarkKind::ProcessStopped, text)
        })
    }

    fn fd_limit(&self) -> Option<Mark> {
        let at_limit = self.owners.iter().find(|owner| owner.process.is_at_file_limit())?;
        let open = at_limit.process.state.as_ref()?.open_files?;
        let pid = at_limit.process.who.pid;
        Some(mark(
            MarkKind::FdLimit,
            format!("pid {pid} is at its limit of open files ({open} open), so accept() fails"),
        ))
    }

    fn syn_queue_full(&self) -> Option<Mark> {
        let found = self.half_open.filter(|found| !found.shared)?;
        let limit = self.syn_queue_limit();
        // Whether a queue exactly at its limit is full depends on the release: `inet_csk_reqsk_queue_is_full()` compares with >= or >.
        (found.requests > 0 && found.requests >= limit.limit).then(|| {
            let then = match limit.cookies {
                Some(true) => "further SYNs are answered by cookies",
                Some(false) => "further SYNs are dropped (net.ipv4.tcp_syncookies is 0)",
                None => "further SYNs are answered by cookies or dropped",
            };
            let (requests, most, by) = (found.requests, limit.limit, limit.set_by);
            mark(
                MarkKind::SynQueueFull,
                format!("SYN queue full: {requests} half-open, limit {most} ({by}); {then}"),
            )
        })
    }

    fn blocked(&self) -> Option<Mark> {
        let blocked = self.owners.iter().find(|owner| owner.process.uninterruptible() > 0)?;
        (self.socket.depth > 0).then(|| {
            let threads = u64::try_from(blocked.process.uninterruptible()).unwrap_or(u64::MAX);
            let threads = count(threads, "thread", "threads");
            let pid = blocked.process.who.pid;
            let text = format!("{threads} of pid {pid} in uninterruptible sleep (disk, network file system) while connections wait");
            mark(MarkKind::ProcessBlocked, text)
        })
    }

    fn uneven(&self) -> Option<Mark> {
        let group = self.group?;
        // One that waits alone by chance is no pattern.
        let alone = self.socket.depth >= 8 && u64::from(self.socket.depth) == group.queued;
        alone.then(|| {
            let others = count(u64::from(group.members.saturating_sub(1)), "member has", "members have");
            mark(
                MarkKind::Uneven,
                format!("all that wait in this SO_REUSEPORT group wait here: the other {others} none"),
            )
        })
    }

    fn truncated(&self) -> Option<Mark> {
        let cut = self.limit.limited_by() == LimitedBy::Somaxconn && !self.is_full();
        cut.then(|| mark(MarkKind::BacklogTruncated, self.limit_in_words()))
    }

    fn ephemeral_port(&self) -> Option<Mark> {
        let range = self.ephemeral()?;
        let (port, first, last) = (self.socket.local.port(), range.first, range.last);
        Some(mark(
            MarkKind::EphemeralPort,
            format!(
                "port {port} is in the ephemeral range {first}-{last}, not reserved: a client may be given it while this is down"
            ),
        ))
    }

    fn no_owner(&self) -> Option<Mark> {
        let nobody = self.owners.is_empty() && self.owners_complete && !self.is_kernel_s();
        nobody.then(|| {
            let text = "no process has it open that can be found: in flight between processes, in io_uring, or of a single thread";
            mark(MarkKind::NoOwner, text.to_owned())
        })
    }
}

fn mark(kind: MarkKind, text: String) -> Mark {
    Mark { kind, text }
}

/// As the program wrote it: the kernel takes the argument for unsigned.
fn signed(argument: u32) -> String {
    i32::from_ne_bytes(argument.to_ne_bytes()).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::PortRange;
    use crate::identity::state::RunState;
    use crate::stock::testing::{listener, owner, thread};
    use crate::stock::{Group, HalfOpen};

    fn kinds(listener: &Listener) -> Vec<MarkKind> {
        listener.marks().iter().map(|mark| mark.kind).collect()
    }

    fn text(listener: &Listener) -> String {
        listener.marks().first().unwrap().text.clone()
    }

    #[test]
    fn nothing_is_wrong_with_an_idle_listener() {
        assert_eq!(kinds(&listener("0.0.0.0:80")), []);
    }

    #[test]
    fn a_full_queue_names_the_knob() {
        let mut full = listener("0.0.0.0:80");
        (full.socket.depth, full.socket.limit, full.limit.limit) = (21, 20, 20);
        assert_eq!(kinds(&full), [MarkKind::Full]);
        assert_eq!(
            text(&full),
            "accept queue full: 21 connections wait, more are dropped; the limit 20 is the program's listen() argument; somaxconn (4096) allows more"
        );
        full.socket.depth = 20;
        assert_eq!(kinds(&full), []);
    }

    #[test]
    fn a_cut_argument_is_named_as_written() {
        let mut cut = listener("0.0.0.0:80");
        cut.socket.limit = 128;
        cut.limit = super::super::Limit {
            limit: 128,
            backlog: Some(u32::MAX),
            somaxconn: Some(128),
            somaxconn_then: Some(128),
        };
        assert_eq!(kinds(&cut), [MarkKind::BacklogTruncated]);
        assert!(text(&cut).contains("listen(fd, -1) was cut to 128"), "{}", text(&cut));
    }

    #[test]
    fn stopped_only_if_all_are() {
        let mut shared = listener("0.0.0.0:80");
        let stopped = |pid| owner(pid, "a", &[3], vec![thread(RunState::Stopped)]);
        shared.owners = vec![stopped(7), owner(8, "b", &[3], vec![thread(RunState::Sleeping)])];
        assert_eq!(kinds(&shared), []);
        shared.owners = vec![stopped(7), stopped(8)];
        assert_eq!(kinds(&shared), [MarkKind::ProcessStopped]);
        assert!(text(&shared).ends_with("kill -CONT 7"));
    }

    #[test]
    fn syn_queues_fill_at_their_limit_and_only_if_they_are_known_to_be_one_s_own() {
        let mut half = listener("0.0.0.0:80");
        half.socket.limit = 20;
        half.half_open = Some(HalfOpen { requests: 20, ..HalfOpen::default() });
        assert_eq!(kinds(&half), [MarkKind::SynQueueFull]);
        half.half_open = Some(HalfOpen { requests: 20, shared: true, ..HalfOpen::default() });
        assert_eq!(kinds(&half), []);
        // listen(0): no request is not a full queue.
        half.socket.limit = 0;
        half.half_open = Some(HalfOpen::default());
        assert_eq!(kinds(&half), []);
    }

    #[test]
    fn ports_in_the_range_are_at_risk_until_they_are_reserved() {
        let mut risky = listener("0.0.0.0:35010");
        let knobs = std::sync::Arc::make_mut(&mut risky.knobs);
        knobs.ip_local_port_range = Some(PortRange { first: 32768, last: 60999 });
        assert_eq!(kinds(&risky), [MarkKind::EphemeralPort]);
        let knobs = std::sync::Arc::make_mut(&mut risky.knobs);
        knobs.ip_local_reserved_ports = Some([35010].into_iter().collect());
        assert_eq!(kinds(&risky), []);
    }

    #[test]
    fn nobody_is_said_only_when_everybody_was_asked() {
        let mut orphan = listener("0.0.0.0:80");
        orphan.owners.clear();
        assert_eq!(kinds(&orphan), [MarkKind::NoOwner]);
        orphan.owners_complete = false;
        assert_eq!(kinds(&orphan), []);
        (orphan.owners_complete, orphan.socket.inode) = (true, 0);
        assert_eq!(kinds(&orphan), []);
    }

    #[test]
    fn one_busy_member_of_a_group() {
        let mut member = listener("0.0.0.0:80");
        member.socket.depth = 9;
        member.group = Some(Group { members: 4, queued: 9 });
        assert_eq!(kinds(&member), [MarkKind::Uneven]);
        member.group = Some(Group { members: 4, queued: 10 });
        assert_eq!(kinds(&member), []);
    }
}
