//! Loads what will probably be attached, several programs at a time. The start mostly waits for the verifier, which works on one
//! program for one thread, and takes no lock for those who may load BPF programs (`bpf_check`).

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZero;
use std::sync::{Mutex, PoisonError};
use std::thread;

use aya::{
    Ebpf,
    programs::{BtfTracePoint, FEntry, FExit, KProbe, Program, ProgramError, TracePoint},
};

use super::plan::Kind;

/// More verify no quicker: a few programs take as long as all others together.
const THREADS: usize = 4;

/// How a program is to be loaded.
pub(super) type Wanted = BTreeMap<&'static str, (Kind, &'static str)>;

/// Loads each program of `wanted`. The names of those that were; one that the kernel refuses is left for the next try, which
/// tells why.
pub(super) fn preload(ebpf: &mut Ebpf, aya_btf: &aya::Btf, wanted: &Wanted) -> BTreeSet<&'static str> {
    let programs: Vec<(&'static str, &mut Program, Kind, &'static str)> = ebpf
        .programs_mut()
        .filter_map(|(name, program)| {
            let (name, (kind, target)) = wanted.get_key_value(name)?;
            Some((*name, program, *kind, *target))
        })
        .collect();
    let waiting = Mutex::new(programs.into_iter());
    let worker = || {
        let mut done = Vec::new();
        loop {
            // A statement of its own: the lock is given back before the verifier is asked.
            let next = waiting.lock().unwrap_or_else(PoisonError::into_inner).next();
            let Some((name, program, kind, target)) = next else { return done };
            match load(program, kind, target, aya_btf) {
                Ok(()) => done.push(name),
                Err(error) => log::debug!("{name}: not loaded beforehand: {error}"),
            }
        }
    };
    let threads = thread::available_parallelism().map_or(1, NonZero::get).min(THREADS);
    thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(worker)).collect();
        let mut done: BTreeSet<&'static str> = worker().into_iter().collect();
        for other in others {
            done.extend(other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        }
        done
    })
}

/// Has the kernel verify `program` for `target`.
///
/// # Errors
///
/// What the kernel says against it.
pub(super) fn load(
    program: &mut Program,
    kind: Kind,
    target: &str,
    aya_btf: &aya::Btf,
) -> Result<(), ProgramError> {
    let start = std::time::Instant::now();
    match kind {
        Kind::Fentry => <&mut FEntry>::try_from(&mut *program)?.load(target, aya_btf),
        Kind::Fexit => <&mut FExit>::try_from(&mut *program)?.load(target, aya_btf),
        Kind::Kprobe | Kind::Kretprobe => <&mut KProbe>::try_from(&mut *program)?.load(),
        Kind::BtfTracepoint => <&mut BtfTracePoint>::try_from(&mut *program)?.load(target, aya_btf),
        Kind::SyscallTracepoint => <&mut TracePoint>::try_from(&mut *program)?.load(),
    }?;
    log::debug!("{} {target}: verified in {:.1} ms", kind.name(), start.elapsed().as_secs_f64() * 1e3);
    Ok(())
}

/// Gives a loaded program back.
///
/// # Errors
///
/// If it is not loaded.
pub(super) fn unload(program: &mut Program) -> Result<(), ProgramError> {
    match program {
        Program::FEntry(program) => program.unload(),
        Program::FExit(program) => program.unload(),
        Program::KProbe(program) => program.unload(),
        Program::BtfTracePoint(program) => program.unload(),
        Program::TracePoint(program) => program.unload(),
        // The plan has no others.
        _ => Ok(()),
    }
}
