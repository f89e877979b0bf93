//! Runs that the kernel skipped: a program that would have interrupted itself (or, for kprobes, another) is not run.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use super::plan::{SKIPPED_IN_GOOD_FAITH, STAND_INS};

/// `BPF_OBJ_GET_INFO_BY_FD` (uapi/linux/bpf.h).
const OBJ_GET_INFO_BY_FD: libc::c_long = 15;

/// `struct bpf_prog_info` (uapi/linux/bpf.h) up to `recursion_misses`, as 64-bit words: the member stands at byte 208 since
/// 5.12, after `run_cnt` at 200; older kernels fill less and leave it zero.
const WORDS: usize = 27;
const RECURSION_MISSES: usize = 208 / 8;

/// The `info` variant of `union bpf_attr`.
#[repr(C)]
struct InfoAttr {
    fd: u32,
    len: u32,
    info: u64,
}

/// How often the kernel skipped the program behind `fd`; 0 before 5.12, which does not count.
pub(super) fn of_program(fd: BorrowedFd<'_>) -> u64 {
    let mut info = [0_u64; WORDS];
    let mut attr = InfoAttr {
        fd: u32::try_from(fd.as_fd().as_raw_fd()).unwrap_or(u32::MAX),
        len: u32::try_from(size_of_val(&info)).unwrap_or(0),
        info: info.as_mut_ptr() as u64,
    };
    // SAFETY: the kernel writes at most `len` bytes to `info`, and reads and writes `attr`; both outlive the call.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, OBJ_GET_INFO_BY_FD, &raw mut attr, size_of::<InfoAttr>()) };
    if result == 0 { info.get(RECURSION_MISSES).copied().unwrap_or(0) } else { 0 }
}

/// What of the skipped runs is a loss: what a program and its stand-in both missed, and without those of which nothing is lost
/// ([`SKIPPED_IN_GOOD_FAITH`]), unless everything is streamed.
pub(super) fn worth_telling(
    mut missed: BTreeMap<&'static str, u64>,
    streams_all: bool,
) -> BTreeMap<&'static str, u64> {
    for (program, stand_in) in STAND_INS {
        if let Some(both) = missed.remove(stand_in)
            && let Some(missed) = missed.get_mut(program)
        {
            if *missed > 0 {
                log::debug!("{program}: {missed} runs skipped, its stand-in's: {both}");
            }
            *missed = both.min(*missed);
        }
    }
    missed.retain(|program, count| {
        let is_told = streams_all || !SKIPPED_IN_GOOD_FAITH.contains(program);
        if !is_told && *count > 0 {
            log::debug!("{program}: {count} runs skipped");
        }
        is_told
    });
    missed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lost_is_what_the_stand_in_missed_too() {
        let missed = |first, second| {
            let missed = BTreeMap::from([
                ("tp_handshake_drop", first),
                ("tp_handshake_drop_stand_in", second),
                ("tp_receive_reset", 5),
                ("fexit_accept", 1),
            ]);
            worth_telling(missed, false)
        };
        assert_eq!(missed(311, 0), BTreeMap::from([("tp_handshake_drop", 0), ("fexit_accept", 1)]));
        assert_eq!(missed(311, 2)["tp_handshake_drop"], 2);
        assert_eq!(missed(0, 9)["tp_handshake_drop"], 0);
    }

    #[test]
    fn all_is_told_of_when_all_is_streamed() {
        assert_eq!(worth_telling(BTreeMap::from([("tp_receive_reset", 5)]), true)["tp_receive_reset"], 5);
    }
}
