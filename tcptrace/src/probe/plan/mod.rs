//! What is observed, and by which attachments that can be done: the table that [`super::attach`] works through.
//!
//! Only functions called from another file, functions called through a pointer, and tracepoints: compilers inline calls
//! within a file, so a symbol may exist and never fire. The prototypes stand in the eBPF sources beside each program.

mod accept_queue;
mod client;
mod listener;
mod packet;
mod port;
mod shared;
mod skipped;
mod syn_queue;
#[cfg(test)]
mod tests;

pub use skipped::{STAND_INS, Skip, skip_of};

/// How a program is attached. In order of preference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum BackEnd {
    /// BPF trampolines: fentry and fexit.
    Fexit,
    /// kprobe and kretprobe.
    Kprobe,
    /// BTF tracepoints and the tracepoints of system calls.
    Tracepoint,
}

impl BackEnd {
    /// Its name in coverage and on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Fexit => "fexit",
            Self::Kprobe => "kprobe",
            Self::Tracepoint => "tracepoint",
        }
    }
}

/// The type of one attachment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Entry of a function, by trampoline.
    Fentry,
    /// Return of a function, by trampoline.
    Fexit,
    /// Entry of a function, by breakpoint or ftrace.
    Kprobe,
    /// Return of a function, likewise.
    Kretprobe,
    /// A tracepoint with typed arguments.
    BtfTracepoint,
    /// A tracepoint of the `syscalls` category. While one is attached, every system call of the host takes the slow path.
    SyscallTracepoint,
}

impl Kind {
    /// Its name in coverage.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Fentry => "fentry",
            Self::Fexit => "fexit",
            Self::Kprobe => "kprobe",
            Self::Kretprobe => "kretprobe",
            Self::BtfTracepoint => "tp_btf",
            Self::SyscallTracepoint => "tracepoint",
        }
    }

    /// Whether the kernel needs the same for both: trampolines, or kprobes.
    pub(super) const fn is_like(self, other: Self) -> bool {
        match self {
            Self::Fentry | Self::Fexit => matches!(other, Self::Fentry | Self::Fexit),
            Self::Kprobe | Self::Kretprobe => matches!(other, Self::Kprobe | Self::Kretprobe),
            Self::BtfTracepoint => matches!(other, Self::BtfTracepoint),
            Self::SyscallTracepoint => matches!(other, Self::SyscallTracepoint),
        }
    }
}

/// One attachment: a program of the eBPF object, and what it attaches to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probe {
    /// Name of the program in the object.
    pub program: &'static str,
    /// How it attaches.
    pub kind: Kind,
    /// Where to: the first of these that the kernel has.
    pub targets: &'static [&'static str],
    /// `Some`: the observation stands without it.
    pub spare: Option<Spare>,
    /// What is lost when the kernel skips a run of it.
    pub skip: Skip,
}

/// A probe that its observation stands without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spare {
    /// What is not seen if it cannot be attached, in a few words.
    pub gap: &'static str,
    /// Without one of these functions there is nothing that it would see.
    pub only_with: &'static [&'static str],
}

/// A kernel may be built without IPv6 (or with it as a module, whose functions cannot be reached).
const IPV6: Spare = Spare { gap: "IPv4 only", only_with: &[] };

/// A way to make an observation.
#[derive(Clone, Copy, Debug)]
pub struct Way {
    /// Which tier it belongs to.
    pub back_end: BackEnd,
    /// All of these are needed.
    pub probes: &'static [Probe],
    /// What this way sees less well than the first one; `None` if nothing.
    pub limit: Option<&'static str>,
    /// Bit that tells the `tp_set_state_*` programs to make this observation, which it shares with others; 0 for the other programs.
    pub serves: u32,
    /// Name of a layout entry without which this way sees nothing.
    pub needs: Option<&'static str>,
}

impl Way {
    /// The tier that this way shows to work: one of tracepoints alone works without trampolines and kprobes, whatever tiers it
    /// serves.
    #[must_use]
    pub fn tier(&self) -> BackEnd {
        let tracepoints = |probe: &Probe| matches!(probe.kind, Kind::BtfTracepoint | Kind::SyscallTracepoint);
        if self.probes.iter().all(tracepoints) { BackEnd::Tracepoint } else { self.back_end }
    }
}

/// Something that the tracer wants to see.
#[derive(Clone, Copy, Debug)]
pub struct Observation {
    /// Its name in coverage.
    pub name: &'static str,
    /// What it is, in a few words.
    pub what: &'static str,
    /// The ways, best first.
    pub ways: &'static [Way],
    /// How user space makes up for it when no way works: `Some` is coverage status `polled`.
    pub polled: Option<&'static str>,
    /// Observations of one group take part in one state machine in the kernel and must all come from the full tiers, or
    /// all from the tracepoint tier.
    pub group: u8,
}

const fn probe(program: &'static str, kind: Kind, targets: &'static [&'static str]) -> Probe {
    Probe { program, kind, targets, spare: None, skip: Skip::Lost }
}

const fn probe6(program: &'static str, kind: Kind, targets: &'static [&'static str]) -> Probe {
    Probe { spare: Some(IPV6), ..probe(program, kind, targets) }
}

impl Probe {
    const fn spare(self, spare: Spare) -> Self {
        Self { spare: Some(spare), ..self }
    }

    const fn one_call(self) -> Self {
        Self { skip: Skip::OneCall, ..self }
    }

    const fn harmless(self) -> Self {
        Self { skip: Skip::Harmless, ..self }
    }
}

const fn way(back_end: BackEnd, probes: &'static [Probe]) -> Way {
    Way { back_end, probes, limit: None, serves: 0, needs: None }
}

const fn tracepoint_way(probes: &'static [Probe], limit: &'static str, serves: u32) -> Way {
    Way { back_end: BackEnd::Tracepoint, probes, limit: Some(limit), serves, needs: None }
}

/// Observations that are made by programs of another one, and not where that one is made in another tier: those programs keep
/// state for it, which the other tier's keep as well.
pub const DEPENDENT: &[(&str, &str)] = &[(port::CONNECTION_EXISTS, "no-port")];

/// Every observation, in the order in which coverage shows them.
pub fn observations() -> impl Iterator<Item = &'static Observation> {
    let tables = [
        listener::OBSERVATIONS,
        syn_queue::OBSERVATIONS,
        accept_queue::OBSERVATIONS,
        port::OBSERVATIONS,
        client::OBSERVATIONS,
        packet::OBSERVATIONS,
    ];
    tables.into_iter().flatten()
}

/// Whether a program at that function sees IPv6 alone.
pub(super) fn is_ipv6(program: &str, target: &str) -> bool {
    let mut probes = observations().flat_map(|o| o.ways).flat_map(|way| way.probes);
    probes
        .any(|probe| probe.program == program && probe.targets.contains(&target) && probe.spare == Some(IPV6))
}

/// Observations that are made only if every connection is to be shown: they cost a run of a program for each.
pub const WITH_ALL: &[&str] = &["connect-established"];
