//! Runs that the kernel skipped: a program that would have interrupted itself (or, for kprobes, another) is not run.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::Duration;

use super::plan::{STAND_INS, Skip, skip_of};

/// `BPF_OBJ_GET_INFO_BY_FD` (uapi/linux/bpf.h).
const OBJ_GET_INFO_BY_FD: libc::c_long = 15;

/// `struct bpf_prog_info` (uapi/linux/bpf.h) up to `verified_insns`, as 64-bit words: `recursion_misses` stands at byte 208 since
/// 5.12, after `run_time_ns` at 192 and `run_cnt` at 200, and `verified_insns`, a half word, at 216 since 5.16; older kernels fill
/// less and leave them zero.
const WORDS: usize = 28;
const RUN_TIME: usize = 192 / 8;
const RUN_COUNT: usize = 200 / 8;
const RECURSION_MISSES: usize = 208 / 8;
const VERIFIED: usize = 216 / 8;

/// The `info` variant of `union bpf_attr`.
#[repr(C)]
struct InfoAttr {
    fd: u32,
    len: u32,
    info: u64,
}

/// How often the kernel skipped the program behind `fd`; 0 before 5.12, which does not count.
pub(super) fn of_program(fd: BorrowedFd<'_>) -> u64 {
    info_of(fd).get(RECURSION_MISSES).copied().unwrap_or(0)
}

/// How many instructions the verifier went through for the program behind `fd`; `None` before 5.16, which does not tell.
pub(super) fn verified_of_program(fd: BorrowedFd<'_>) -> Option<u64> {
    // The lower half: all processors here are little-endian.
    let verified = info_of(fd).get(VERIFIED).map(|word| word & u64::from(u32::MAX));
    verified.filter(|instructions| *instructions > 0)
}

/// How long the program behind `fd` ran, and how often, while the kernel measured that (5.1).
pub(super) fn cost_of_program(fd: BorrowedFd<'_>) -> (Duration, u64) {
    let info = info_of(fd);
    let word = |index: usize| info.get(index).copied().unwrap_or(0);
    (Duration::from_nanos(word(RUN_TIME)), word(RUN_COUNT))
}

/// What the kernel says of the program behind `fd`; zeros where it says nothing.
fn info_of(fd: BorrowedFd<'_>) -> [u64; WORDS] {
    let mut info = [0_u64; WORDS];
    let mut attr = InfoAttr {
        fd: u32::try_from(fd.as_fd().as_raw_fd()).unwrap_or(u32::MAX),
        len: u32::try_from(size_of_val(&info)).unwrap_or(0),
        info: info.as_mut_ptr() as u64,
    };
    // SAFETY: the kernel writes at most `len` bytes to `info`, and reads and writes `attr`; both outlive the call.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, OBJ_GET_INFO_BY_FD, &raw mut attr, size_of::<InfoAttr>()) };
    if result == 0 { info } else { [0; WORDS] }
}

/// What of the skipped runs is a loss: without those that a stand-in made up for (`stood_in`, by its index), without the
/// stand-ins' own (what they miss, the first one did unless it was skipped itself), and without those of which nothing is lost
/// ([`Skip::Harmless`]) unless everything is streamed.
pub(super) fn worth_telling(
    mut missed: BTreeMap<&'static str, u64>,
    stood_in: impl Fn(u32) -> u64,
    streams_all: bool,
) -> BTreeMap<&'static str, u64> {
    for (program, index) in STAND_INS {
        if let Some(missed) = missed.get_mut(program).filter(|missed| **missed > 0) {
            let stood_in = stood_in(*index);
            log::debug!("{program}: {missed} runs skipped, {stood_in} of them done by its stand-in");
            *missed = missed.saturating_sub(stood_in);
        }
    }
    missed.retain(|program, count| {
        let is_told = streams_all || skip_of(program) != Skip::Harmless;
        if !is_told && *count > 0 {
            log::debug!("{program}: {count} runs skipped");
        }
        is_told && !program.ends_with("_stand_in")
    });
    missed
}

#[cfg(test)]
mod tests {
    use super::super::plan::observations;
    use super::*;

    #[test]
    fn lost_is_what_nobody_stood_in_for() {
        let lost = |skipped, stood_in| {
            let missed = BTreeMap::from([
                ("tp_handshake_drop", skipped),
                ("tp_handshake_drop_stand_in", 4),
                ("tp_receive_reset", 5),
                ("fexit_accept", 1),
            ]);
            worth_telling(missed, |_| stood_in, false)
        };
        assert_eq!(lost(311, 311), BTreeMap::from([("tp_handshake_drop", 0), ("fexit_accept", 1)]));
        assert_eq!(lost(311, 309)["tp_handshake_drop"], 2);
        assert_eq!(lost(0, 1)["tp_handshake_drop"], 0);
    }

    #[test]
    fn all_is_told_of_when_all_is_streamed() {
        let missed = BTreeMap::from([("tp_receive_reset", 5)]);
        assert_eq!(worth_telling(missed, |_| 0, true)["tp_receive_reset"], 5);
    }

    #[test]
    fn every_stand_in_is_in_the_plan() {
        let planned = |name: &str| {
            let mut probes = observations().flat_map(|o| o.ways).flat_map(|way| way.probes);
            probes.any(|probe| probe.program == name)
        };
        for (program, _) in STAND_INS {
            assert!(planned(program) && planned(&format!("{program}_stand_in")), "{program}");
        }
    }
}
