//! After attaching, the agent keeps the capabilities that tracing goes on to need, and gives up the rest for good.
//!
//! Landlock, which would keep it from writing anywhere but in its directory, cannot be used: a process under Landlock may not look
//! into processes outside its own domain (`/proc/PID/fd`), and so would not know who has which socket.

use caps::{CapSet, Capability, CapsHashSet};
use nix::sys::prctl::set_no_new_privs;

/// What is kept, if it is there, and what for.
pub const NEEDED: &[(Capability, &str)] = &[
    (Capability::CAP_SYS_ADMIN, "to enter network namespaces, and to read BPF maps before Linux 5.19"),
    (Capability::CAP_SYS_PTRACE, "to see which process has a socket open (/proc/PID/fd, /proc/PID/ns)"),
    (Capability::CAP_DAC_READ_SEARCH, "to read what belongs to other users there"),
    (Capability::CAP_NET_ADMIN, "to read nftables, and the marks and filters of sockets"),
    (Capability::CAP_SYSLOG, "to name the kernel function that dropped a packet (/proc/kallsyms)"),
];

/// Gives up everything that is not [`NEEDED`], also for whatever would be executed; nothing brings it back. Threads that are
/// started after this have no more than this one.
///
/// # Errors
/// A sentence, when the kernel does not let us.
pub fn keep_needed() -> Result<(), String> {
    let failed = |error: caps::errors::CapsError| format!("capabilities cannot be given up: {error}");
    let wanted: CapsHashSet = NEEDED.iter().map(|(capability, _)| *capability).collect();
    let permitted = caps::read(None, CapSet::Permitted).map_err(failed)?;
    let kept: CapsHashSet = permitted.intersection(&wanted).copied().collect();
    // The bounding set can be cut only while CAP_SETPCAP is there: as a user it is not, and then no program brings them back either.
    if caps::has_cap(None, CapSet::Effective, Capability::CAP_SETPCAP).map_err(failed)? {
        for capability in caps::read(None, CapSet::Bounding).map_err(failed)?.difference(&wanted) {
            caps::drop(None, CapSet::Bounding, *capability).map_err(failed)?;
        }
    }
    // Kernels before 4.3 have none; nothing is in it then.
    let _none = caps::clear(None, CapSet::Ambient);
    caps::set(None, CapSet::Effective, &kept).map_err(failed)?;
    caps::set(None, CapSet::Inheritable, &CapsHashSet::new()).map_err(failed)?;
    caps::set(None, CapSet::Permitted, &kept).map_err(failed)?;
    set_no_new_privs().map_err(|errno| format!("no_new_privs cannot be set: {errno}"))
}

/// For a thread that needs none: one that answers requests, or only writes its own files.
pub(super) fn give_up_all() {
    for set in [CapSet::Effective, CapSet::Permitted, CapSet::Inheritable] {
        if let Err(error) = caps::clear(None, set) {
            log::debug!("a thread keeps its capabilities: {error}");
        }
    }
}
