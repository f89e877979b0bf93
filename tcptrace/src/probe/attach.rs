//! Works through the plan: for each observation, the ways from best to worst, each by trying. What the kernel's version
//! says about itself is never asked.

use std::collections::{BTreeMap, BTreeSet};

use aya::{
    Ebpf,
    programs::{
        BtfTracePoint, FEntry, FExit, KProbe, ProgramError, TracePoint, fentry::FEntryLinkId,
        fexit::FExitLinkId, kprobe::KProbeLinkId, tp_btf::BtfTracePointLinkId, trace_point::TracePointLinkId,
    },
};

use super::{
    btf::Btf,
    coverage::{Coverage, Observed, Status},
    hindrance::{LOCKDOWN, is_confidential},
    plan::{self, BackEnd, DEPENDENT, Kind, Observation, Probe, WITH_ALL, Way, observations},
    preload,
};

/// Which tiers may be used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tier {
    /// For each observation the best that works.
    #[default]
    Auto,
    /// This one alone.
    Only(BackEnd),
}

impl Tier {
    fn allows(self, back_end: BackEnd) -> bool {
        match self {
            Self::Auto => true,
            Self::Only(only) => only == back_end,
        }
    }
}

/// One attachment that stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attached {
    /// Name of the program in the object.
    pub program: &'static str,
    /// How.
    pub kind: Kind,
    /// Where.
    pub target: &'static str,
    /// For which observations.
    pub observations: Vec<&'static str>,
    /// Whether it sees IPv6 alone.
    pub is_ipv6: bool,
}

impl Attached {
    /// Whether the kernel skips it while another kprobe's program runs on the same CPU, or bpf(2) reads a map there.
    pub(super) fn is_kprobe(&self) -> bool {
        matches!(self.kind, Kind::Kprobe | Kind::Kretprobe)
    }
}

/// What came of the plan.
pub struct Outcome {
    /// For people and recordings.
    pub coverage: Coverage,
    /// The attachments that stand.
    pub attached: Vec<Attached>,
    /// Bit set of `config::SERVE_*` for `tp_set_state`.
    pub serves: u32,
}

/// Attaches what the plan asks for. Never fails as a whole: what could not be had is in the coverage.
///
/// What serves only to show every connection is left out unless `all`.
pub fn attach(
    ebpf: &mut Ebpf,
    btf: &Btf,
    aya_btf: &aya::Btf,
    missing: &[&str],
    tier: Tier,
    all: bool,
) -> Outcome {
    let mut attacher = Attacher {
        ebpf,
        btf,
        aya_btf,
        missing,
        tier,
        standing: BTreeMap::new(),
        refused: BTreeMap::new(),
        barred: Vec::new(),
        loaded: BTreeSet::new(),
    };
    let wanted: Vec<&'static Observation> =
        observations().filter(|o| all || !WITH_ALL.contains(&o.name)).collect();
    let mut left = wanted.iter();
    let mut chosen: Vec<Choice> = left.by_ref().take(1).map(|o| attacher.choose(o, BackEnd::Fexit)).collect();
    // The tier of the first observation is probably that of the others.
    if let Some(way) = chosen.first().and_then(|choice| choice.way) {
        attacher.preload(&wanted, way.back_end);
    }
    chosen.extend(left.map(|o| attacher.choose(o, BackEnd::Fexit)));
    // Within a group, either all in the full tiers or all by tracepoints: they share state in the kernel.
    let groups: BTreeSet<u8> = observations().map(|o| o.group).filter(|&group| group != 0).collect();
    for group in groups {
        let of_group = |o: &Observation| o.group == group;
        let mixed = wanted
            .iter()
            .zip(&chosen)
            .filter(|(o, _)| of_group(o))
            .any(|(_, c)| c.way.is_none_or(|w| w.back_end == BackEnd::Tracepoint));
        if !mixed {
            continue;
        }
        for (observation, choice) in wanted.iter().zip(&mut chosen).filter(|(o, _)| of_group(o)) {
            if choice.way.is_some_and(|w| w.back_end < BackEnd::Tracepoint) {
                attacher.release(observation.name);
                let why = "others that it works with are not to be had in that tier".to_owned();
                let mut failures = std::mem::take(&mut choice.failures);
                failures.push(why);
                *choice = attacher.choose(observation, BackEnd::Tracepoint);
                failures.append(&mut choice.failures);
                choice.failures = failures;
            }
        }
    }
    for (dependent, on) in DEPENDENT {
        let stands_by = wanted.iter().zip(&chosen).find(|(o, _)| o.name == *on).and_then(|(_, c)| c.way);
        for (observation, choice) in wanted.iter().zip(&mut chosen).filter(|(o, _)| o.name == *dependent) {
            if choice.way.is_some_and(|way| stands_by.is_none_or(|other| other.back_end != way.back_end)) {
                attacher.release(observation.name);
                choice.way = None;
                choice.failures.push(format!("{on} is made in another tier"));
            }
        }
    }
    attacher.unload_idle();
    let serves = chosen.iter().filter_map(|c| c.way).fold(0, |bits, way| bits | way.serves);
    let observations = wanted.iter().zip(chosen).map(|(o, c)| c.into_observed(o)).collect();
    let attached = attacher
        .standing
        .into_iter()
        .map(|((program, target), (kind, _, observations))| Attached {
            program,
            kind,
            target,
            observations,
            is_ipv6: plan::is_ipv6(program, target),
        })
        .collect();
    Outcome { coverage: Coverage { observations }, attached, serves }
}

/// The way that worked for one observation, and why better ones did not.
struct Choice {
    way: Option<&'static Way>,
    via: Vec<String>,
    failures: Vec<String>,
}

impl Choice {
    fn into_observed(self, observation: &Observation) -> Observed {
        let mut reasons = self.failures;
        match self.way {
            Some(way) => {
                reasons.extend(way.limit.map(str::to_owned));
                Observed {
                    name: observation.name,
                    status: Status::Attached,
                    back_end: Some(way.tier()),
                    via: self.via.join(", "),
                    reason: join(&reasons),
                }
            }
            None => {
                if reasons.is_empty() {
                    reasons.push("nothing of the tier that was asked for shows it".to_owned());
                }
                let polled = observation.polled;
                reasons.extend(polled.map(str::to_owned));
                Observed {
                    name: observation.name,
                    status: if polled.is_some() { Status::Polled } else { Status::Missing },
                    back_end: None,
                    via: if polled.is_some() { "sock_diag".to_owned() } else { String::new() },
                    reason: join(&reasons),
                }
            }
        }
    }
}

fn join(reasons: &[String]) -> Option<String> {
    (!reasons.is_empty()).then(|| reasons.join("; "))
}

enum Link {
    Fentry(FEntryLinkId),
    Fexit(FExitLinkId),
    Kprobe(KProbeLinkId),
    BtfTracepoint(BtfTracePointLinkId),
    Tracepoint(TracePointLinkId),
}

struct Attacher<'a> {
    ebpf: &'a mut Ebpf,
    btf: &'a Btf,
    aya_btf: &'a aya::Btf,
    missing: &'a [&'a str],
    tier: Tier,
    /// Attachments that stand, and for which observations. A program may serve several.
    standing: BTreeMap<(&'static str, &'static str), (Kind, Link, Vec<&'static str>)>,
    /// Those that failed, and why: what refused a program once refuses it to the next observation as well.
    refused: BTreeMap<(&'static str, &'static str), String>,
    /// Kinds of attachment that the kernel refuses whatever the function, and why: the verifier need not look at more of them.
    barred: Vec<(Kind, String)>,
    loaded: BTreeSet<&'static str>,
}

impl Attacher<'_> {
    fn choose(&mut self, observation: &'static Observation, from: BackEnd) -> Choice {
        let mut failures: Vec<String> = Vec::new();
        let tier = self.tier;
        for way in observation.ways.iter().filter(|w| w.back_end >= from && tier.allows(w.back_end)) {
            match self.try_way(observation.name, way) {
                Ok(Done { via, gaps }) => {
                    failures.extend(gaps);
                    return Choice { way: Some(way), via, failures };
                }
                Err(why) => {
                    log::debug!("{}: {why}", observation.name);
                    failures.push(why);
                }
            }
        }
        Choice { way: None, via: Vec::new(), failures }
    }

    /// Loads at once what `wanted` will need, if `tier` or a lower one is what this kernel allows.
    fn preload(&mut self, wanted: &[&'static Observation], tier: BackEnd) {
        let mut programs = preload::Wanted::new();
        for observation in wanted {
            let likely = |way: &&Way| {
                let needed = way.needs.is_none_or(|needed| !self.missing.contains(&needed));
                let mut probes = way.probes.iter().filter(|probe| probe.spare.is_none());
                needed
                    && way.back_end >= tier
                    && self.tier.allows(way.back_end)
                    && probes.all(|probe| self.target(probe).is_ok())
            };
            for probe in observation.ways.iter().find(likely).map_or(&[][..], |way| way.probes) {
                if !self.is_pointless(probe)
                    && !self.loaded.contains(probe.program)
                    && let Ok(target) = self.target(probe)
                {
                    programs.insert(probe.program, (probe.kind, target));
                }
            }
        }
        self.loaded.extend(preload::preload(self.ebpf, self.aya_btf, &programs));
    }

    /// Whether `probe` would see nothing on this kernel, and its observation stands without it.
    fn is_pointless(&self, probe: &Probe) -> bool {
        let has = |function: &&str| self.btf.has_function(function);
        probe.spare.is_some_and(|spare| !spare.only_with.iter().all(has))
    }

    /// Gives back what was loaded and is not attached: of another tier, or of a group that went to another one.
    fn unload_idle(&mut self) {
        let standing: BTreeSet<&str> = self.standing.keys().map(|(program, _)| *program).collect();
        for name in self.loaded.iter().filter(|name| !standing.contains(**name)) {
            if let Some(Err(error)) = self.ebpf.program_mut(name).map(preload::unload) {
                log::debug!("{name}: could not be unloaded: {error}");
            }
        }
    }

    /// All probes of `way`, or none.
    fn try_way(&mut self, observation: &'static str, way: &Way) -> Result<Done, String> {
        if let Some(needed) = way.needs.filter(|needed| self.missing.contains(needed)) {
            return Err(format!("{}: this kernel has no {needed}", way.back_end.name()));
        }
        let mut done = Done { via: Vec::new(), gaps: Vec::new() };
        for probe in way.probes {
            if self.is_pointless(probe) {
                continue;
            }
            match self.stand(observation, probe) {
                Ok(target) => done.via.push(format!("{} {target}", probe.kind.name())),
                Err(why) => match probe.spare {
                    Some(spare) => done.gaps.push(format!("{}: {why}", spare.gap)),
                    None => {
                        self.release(observation);
                        return Err(why);
                    }
                },
            }
        }
        Ok(done)
    }

    /// Has `probe` attached for `observation`; the target on success, a sentence on failure.
    fn stand(&mut self, observation: &'static str, probe: &Probe) -> Result<&'static str, String> {
        let target = self.target(probe)?;
        if let Some((_, _, observations)) = self.standing.get_mut(&(probe.program, target)) {
            if !observations.contains(&observation) {
                observations.push(observation);
            }
            return Ok(target);
        }
        if let Some(why) = self.refused.get(&(probe.program, target)) {
            return Err(why.clone());
        }
        let refused = |why: &str| format!("{} {target}: {why}", probe.kind.name());
        if let Some((_, why)) = self.barred.iter().find(|(kind, _)| kind.is_like(probe.kind)) {
            return Err(refused(why));
        }
        let link = self.load_and_attach(probe, target).map_err(|error| {
            let why = explain(&error, probe.kind);
            if is_of_the_kind(&error, probe.kind) {
                self.barred.push((probe.kind, why.clone()));
            }
            let why = refused(&why);
            self.refused.insert((probe.program, target), why.clone());
            why
        })?;
        self.standing.insert((probe.program, target), (probe.kind, link, vec![observation]));
        Ok(target)
    }

    /// The first target that this kernel has. For a kprobe that is only tried: static functions may be missing from BTF
    /// (arm64 5.10) and still be there.
    fn target(&self, probe: &Probe) -> Result<&'static str, String> {
        let has = |target: &str| match probe.kind {
            Kind::Fentry | Kind::Fexit | Kind::Kprobe | Kind::Kretprobe => self.btf.has_function(target),
            Kind::BtfTracepoint => self.btf.has_tracepoint(target),
            Kind::SyscallTracepoint => true,
        };
        let by_name = matches!(probe.kind, Kind::Kprobe | Kind::Kretprobe);
        probe
            .targets
            .iter()
            .copied()
            .find(|target| has(target))
            .or_else(|| probe.targets.last().copied().filter(|_| by_name))
            .ok_or_else(|| {
                format!(
                    "{} {}: this kernel has no such function",
                    probe.kind.name(),
                    probe.targets.join(" or ")
                )
            })
    }

    fn load_and_attach(&mut self, probe: &Probe, target: &'static str) -> Result<Link, ProgramError> {
        let program = self.ebpf.program_mut(probe.program).ok_or(ProgramError::NotLoaded)?;
        if !self.loaded.contains(probe.program) {
            preload::load(program, probe.kind, target, self.aya_btf)?;
            self.loaded.insert(probe.program);
        }
        Ok(match probe.kind {
            Kind::Fentry => Link::Fentry(<&mut FEntry>::try_from(program)?.attach()?),
            Kind::Fexit => Link::Fexit(<&mut FExit>::try_from(program)?.attach()?),
            Kind::Kprobe | Kind::Kretprobe => {
                Link::Kprobe(<&mut KProbe>::try_from(program)?.attach(target, 0)?)
            }
            Kind::BtfTracepoint => Link::BtfTracepoint(<&mut BtfTracePoint>::try_from(program)?.attach()?),
            Kind::SyscallTracepoint => {
                Link::Tracepoint(<&mut TracePoint>::try_from(program)?.attach("syscalls", target)?)
            }
        })
    }

    /// Takes back what stands for `observation` alone.
    fn release(&mut self, observation: &str) {
        for (_, _, observations) in self.standing.values_mut() {
            observations.retain(|o| *o != observation);
        }
        let idle: Vec<_> = self
            .standing
            .iter()
            .filter(|(_, (_, _, observations))| observations.is_empty())
            .map(|(key, _)| *key)
            .collect();
        for key in idle {
            if let Some((_, link, _)) = self.standing.remove(&key)
                && let Err(error) = self.detach(key.0, link)
            {
                log::warn!("{}: could not be detached again: {error}", key.0);
            }
        }
    }

    fn detach(&mut self, program: &str, link: Link) -> Result<(), ProgramError> {
        let program = self.ebpf.program_mut(program).ok_or(ProgramError::NotLoaded)?;
        match link {
            Link::Fentry(id) => <&mut FEntry>::try_from(program)?.detach(id),
            Link::Fexit(id) => <&mut FExit>::try_from(program)?.detach(id),
            Link::Kprobe(id) => <&mut KProbe>::try_from(program)?.detach(id),
            Link::BtfTracepoint(id) => <&mut BtfTracePoint>::try_from(program)?.detach(id),
            Link::Tracepoint(id) => <&mut TracePoint>::try_from(program)?.detach(id),
        }
    }
}

struct Done {
    via: Vec<String>,
    gaps: Vec<String>,
}

/// What errno 524 means.
const NO_TRAMPOLINE: &str = if cfg!(target_arch = "aarch64") {
    "this kernel cannot attach there (errno 524: no trampolines, which arm64 has since Linux 6.4)"
} else {
    "this kernel cannot attach there (errno 524: more than six arguments, or no trampolines)"
};
const TRACEFS: &str = "tracefs may not be read (needs CAP_DAC_READ_SEARCH)";

/// Whether the kernel refuses all of that kind, whatever the function: none may be loaded, or there are none.
fn is_of_the_kind(error: &ProgramError, kind: Kind) -> bool {
    match error {
        ProgramError::LoadError { io_error, .. } => {
            kind.is_like(Kind::Fexit) && io_error.raw_os_error() == Some(libc::EPERM) && !is_confidential()
        }
        ProgramError::SyscallError(error) => {
            kind.is_like(Kind::Fexit)
                && error.io_error.raw_os_error() == Some(libc::EPERM)
                && !is_confidential()
        }
        ProgramError::KProbeError(error) => kind.is_like(Kind::Kprobe) && !is_refused(error),
        _ => false,
    }
}

/// Whether a file that it takes may not be read.
fn is_refused(error: &(dyn std::error::Error + 'static)) -> bool {
    std::iter::successors(Some(error), |error| error.source()).any(|error| {
        error
            .downcast_ref::<std::io::Error>()
            .is_some_and(|error| error.kind() == std::io::ErrorKind::PermissionDenied)
    })
}

/// What a failure to load or attach means to a user.
pub(super) fn explain(error: &ProgramError, kind: Kind) -> String {
    const ENOTSUPP: i32 = 524;
    let errno = match error {
        ProgramError::LoadError { io_error, .. } => io_error.raw_os_error(),
        ProgramError::SyscallError(error) => error.io_error.raw_os_error(),
        _ => None,
    };
    match (error, errno) {
        (_, Some(libc::EPERM)) if is_confidential() => LOCKDOWN.to_owned(),
        (_, Some(libc::EPERM)) => "not permitted (capabilities or container policy)".to_owned(),
        (_, Some(ENOTSUPP)) => NO_TRAMPOLINE.to_owned(),
        (ProgramError::LoadError { io_error, verifier_log }, _) => {
            let log = verifier_log.to_string();
            let statistics = ["processed ", "stack depth ", "verification time "];
            let last = log.lines().rev().find(|line| {
                !line.trim().is_empty() && !statistics.iter().any(|word| line.starts_with(word))
            });
            log::debug!("verifier: {log}");
            // The helpers that read kernel memory are there in every kernel, but not under lockdown: "cannot use helper
            // bpf_probe_read#4", before 6.12 "unknown func bpf_probe_read#4".
            let lacks = ["use helper bpf_probe_read", "unknown func bpf_probe_read"];
            if last.is_some_and(|line| lacks.iter().any(|words| line.contains(words))) {
                return LOCKDOWN.to_owned();
            }
            format!("the verifier refused it ({io_error}): {}", last.unwrap_or("no word from it"))
        }
        (ProgramError::KProbeError(error), _) if is_refused(error) => TRACEFS.to_owned(),
        (ProgramError::TracePointError(error), _) if is_refused(error) => TRACEFS.to_owned(),
        (ProgramError::KProbeError(_), _) => "this kernel has no kprobes".to_owned(),
        (ProgramError::TracePointError(_), _) => "this kernel has no such tracepoint".to_owned(),
        (ProgramError::SyscallError(_), Some(libc::ENOENT))
            if matches!(kind, Kind::Kprobe | Kind::Kretprobe) =>
        {
            "this kernel has no such function".to_owned()
        }
        (ProgramError::SyscallError(inner), _) => format!("{}: {}", inner.call, inner.io_error),
        (error, _) => error.to_string(),
    }
}
