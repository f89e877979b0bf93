//! What the live suite runs, as data: cases that every run plays on every kernel, and a rotation of which each run plays a part.
//!
//! Every variant of every rehearsal is in one of the two: `tcptrace/tests/suite.rs` compares them with the catalogue.

use std::time::Duration;

/// A way to attach that is forced, and what the coverage must then say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tier {
    Auto,
    /// Nothing is forced, on a kernel without trampolines (arm64 before 6.4): it goes by kprobes, and says why.
    AutoByKprobe,
    Kprobe,
    Tracepoint,
}

impl Tier {
    pub(crate) const ALL: [Self; 3] = [Self::Auto, Self::Kprobe, Self::Tracepoint];

    /// For `--attach`.
    pub(crate) fn attach(self) -> &'static str {
        match self {
            Self::Auto | Self::AutoByKprobe => "auto",
            Self::Kprobe => "kprobe",
            Self::Tracepoint => "tracepoint",
        }
    }

    /// The highest tier in use: all kernels of the matrix allow fexit, but for the one that the name says.
    pub(crate) fn covered_as(self) -> &'static str {
        match self {
            Self::Auto => "fexit",
            Self::AutoByKprobe | Self::Kprobe => "kprobe",
            Self::Tracepoint => "tracepoint",
        }
    }

    /// Whether every event is seen, so that our counts must equal the kernel's.
    pub(crate) fn is_full(self) -> bool {
        self != Self::Tracepoint
    }

    /// What an observation may go by in this tier, by the first word of `via`.
    pub(crate) fn allowed_ways(self) -> &'static [&'static str] {
        const TRACEPOINTS: [&str; 4] = ["tracepoint", "tp_btf", "raw_tp", "iter"];
        const KPROBES: [&str; 6] = ["kprobe", "kretprobe", "tracepoint", "tp_btf", "raw_tp", "iter"];
        const ALL: [&str; 8] =
            ["fexit", "fentry", "kprobe", "kretprobe", "tracepoint", "tp_btf", "raw_tp", "iter"];
        match self {
            Self::Auto => &ALL,
            Self::AutoByKprobe | Self::Kprobe => &KPROBES,
            Self::Tracepoint => &TRACEPOINTS,
        }
    }
}

/// How a case's output is judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Judge {
    /// Against the ground truth that the rehearsal prints: what it expects is found, and nothing else.
    Rehearsal,
    /// Every probe is named, and fired unless it says why it is not attached.
    SelfTest,
    /// The same, where IPv6 is off: what needs it was not tried, and says so.
    SelfTestWithoutIpv6,
    /// Little is attached, and the coverage names the kernel's lockdown as the reason.
    Lockdown,
}

/// One command.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Case {
    pub(crate) name: &'static str,
    /// What follows `tcptrace`; `--attach` and `--json` are added.
    pub(crate) arguments: &'static [&'static str],
    pub(crate) judge: Judge,
    /// Under emulation, loading the programs alone may take most of a minute.
    pub(crate) timeout: Duration,
    /// In which tiers it is asked.
    pub(crate) tiers: &'static [Tier],
}

const TIMEOUT: Duration = Duration::from_secs(180);

/// A rehearsal, judged by its own ground truth, in `tiers`.
const fn rehearsal(name: &'static str, arguments: &'static [&'static str], tiers: &'static [Tier]) -> Case {
    Case { name, arguments, judge: Judge::Rehearsal, timeout: TIMEOUT, tiers }
}

/// What the tracepoint tier cannot see, and the kprobe tier sees by the same handlers as the fexit tier.
const BEST: &[Tier] = &[Tier::Auto];

/// What takes programs of its own in each of the full tiers.
const FULL: &[Tier] = &[Tier::Auto, Tier::Kprobe];

pub(crate) const CASES: [Case; 30] = [
    rehearsal("accept-overflow", &["rehearse", "accept-overflow"], &Tier::ALL),
    // The tracepoint tier does not see listen() fail.
    rehearsal("port-grab", &["rehearse", "port-grab"], &[Tier::Tracepoint]),
    rehearsal("port-grab-every", &["rehearse", "port-grab", "--variant", "every"], FULL),
    rehearsal("port-grab-remedied", &["rehearse", "port-grab", "--variant", "remedied"], FULL),
    rehearsal("healthy", &["rehearse", "healthy"], &Tier::ALL),
    SELF_TEST,
    rehearsal("accept-stall", &["rehearse", "accept-stall"], BEST),
    rehearsal("slow-accept", &["rehearse", "slow-accept"], BEST),
    rehearsal("backlog-capture", &["rehearse", "backlog-capture"], BEST),
    rehearsal("syn-queue-full", &["rehearse", "syn-queue-full"], BEST),
    rehearsal("backlog-truncated", &["rehearse", "backlog-truncated"], BEST),
    rehearsal("listener-closed", &["rehearse", "listener-closed"], BEST),
    rehearsal("reuseport-imbalance", &["rehearse", "reuseport-imbalance"], BEST),
    rehearsal("storm", &["rehearse", "storm"], BEST),
    rehearsal("no-answer", &["rehearse", "no-answer", "--variant", "every"], FULL),
    rehearsal("no-answer-v6", &["rehearse", "no-answer", "--variant", "every", "--family", "6"], FULL),
    rehearsal("port-risk", &["rehearse", "port-risk"], &Tier::ALL),
    rehearsal("port-exhaustion", &["rehearse", "port-exhaustion"], &Tier::ALL),
    rehearsal(
        "port-exhaustion-bind",
        &["rehearse", "port-exhaustion", "--variant", "bind-before-connect", "--family", "6"],
        BEST,
    ),
    rehearsal("bind-refused", &["rehearse", "bind-refused", "--variant", "every"], &Tier::ALL),
    // Those that a kernel before 5.17, which gives no reasons, can tell as well.
    rehearsal("dropped-queue-unread", &["rehearse", "dropped", "--variant", "queue-unread"], BEST),
    rehearsal("dropped-queue-out", &["rehearse", "dropped", "--variant", "queue-out"], BEST),
    rehearsal("dropped-tracked-drop", &["rehearse", "dropped", "--variant", "tracked-drop"], BEST),
    rehearsal("dropped-cgroup-out", &["rehearse", "dropped", "--variant", "cgroup-out"], BEST),
    rehearsal("dropped-reject-reset", &["rehearse", "dropped", "--variant", "reject-reset"], BEST),
    rehearsal("dropped-neighbour-silent", &["rehearse", "dropped", "--variant", "neighbour-silent"], BEST),
    rehearsal(
        "dropped-neighbour-silent-v6",
        &["rehearse", "dropped", "--variant", "neighbour-silent", "--family", "6"],
        BEST,
    ),
    rehearsal("dropped-neighbour-table", &["rehearse", "dropped", "--variant", "neighbour-table"], BEST),
    rehearsal("dropped-conntrack-full", &["rehearse", "dropped", "--variant", "conntrack-full"], BEST),
    rehearsal("dropped-xdp-driver", &["rehearse", "dropped", "--variant", "xdp-driver"], BEST),
];

/// The self-test, which says whether a kernel's registers and structures are read rightly.
pub(crate) const SELF_TEST: Case = Case {
    name: "self-test",
    arguments: &["probes", "--self-test"],
    judge: Judge::SelfTest,
    timeout: TIMEOUT,
    tiers: &Tier::ALL,
};

/// What is played on arm64 beside the self-test: drops, conflicts, refused and unanswered connects, and that nothing is claimed
/// where nothing is wrong.
pub(crate) const ARM64: [Case; 4] = [
    rehearsal("accept-overflow", &["rehearse", "accept-overflow"], &Tier::ALL),
    rehearsal("port-grab", &["rehearse", "port-grab"], &Tier::ALL),
    rehearsal("no-answer", &["rehearse", "no-answer", "--variant", "closed-port"], &Tier::ALL),
    rehearsal("healthy", &["rehearse", "healthy"], &Tier::ALL),
];

/// A machine that is not like the others: another kind of kernel, or something is switched off at boot. And what is asked there.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Boot {
    /// The kernel with PREEMPT_RT; otherwise 6.12.
    pub(crate) realtime: bool,
    /// For the kernel's command line.
    pub(crate) argument: Option<&'static str>,
    pub(crate) case: Case,
}

/// Such machines, one in each turn of the rotation.
pub(crate) const BOOTS: [Boot; 3] = [
    Boot {
        realtime: false,
        argument: Some("ipv6.disable=1"),
        case: Case {
            name: "self-test-without-ipv6",
            arguments: &["probes", "--self-test"],
            judge: Judge::SelfTestWithoutIpv6,
            timeout: TIMEOUT,
            tiers: FULL,
        },
    },
    Boot {
        realtime: false,
        argument: Some("lockdown=confidentiality"),
        case: Case {
            name: "coverage-under-lockdown",
            arguments: &["probes"],
            judge: Judge::Lockdown,
            timeout: TIMEOUT,
            tiers: BEST,
        },
    },
    // With PREEMPT_RT softirqs are threads, and a task may be preempted in the middle of a program.
    Boot {
        realtime: true,
        argument: None,
        case: rehearsal("accept-overflow-realtime", &["rehearse", "accept-overflow"], FULL),
    },
];

/// A variant of a rehearsal in the rotation.
macro_rules! turn {
    ($incident:literal, $variant:literal) => {
        rehearsal(
            concat!($incident, "-", $variant),
            &["rehearse", $incident, "--variant", $variant],
            &Tier::ALL,
        )
    };
}

/// What no run plays whole; see [`super::rotation`]. `TCPTRACE_BLESS=1 cargo test -p tcptrace --test suite` adds what is new.
pub(crate) const ROTATION: &[Case] = include!("turns.rs");

impl Case {
    /// The rehearsal that it plays, and the variant if it names one.
    pub(crate) fn rehearsal(&self) -> Option<(&'static str, Option<&'static str>)> {
        match self.arguments {
            ["rehearse", incident, "--variant", variant, ..] => Some((incident, Some(variant))),
            ["rehearse", incident, ..] => Some((incident, None)),
            _ => None,
        }
    }

    /// The whole command.
    pub(crate) fn command(&self, program: &str, tier: Tier) -> Vec<String> {
        std::iter::once(program)
            .chain(self.arguments.iter().copied())
            .chain(["--attach", tier.attach(), "--json"])
            .map(str::to_owned)
            .collect()
    }
}
