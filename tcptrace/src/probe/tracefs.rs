//! The tracing file system, which names the tracepoints of system calls.

use std::path::Path;

use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};

const TRACEFS: &str = "/sys/kernel/tracing";

/// Mounts tracefs for this process alone where nobody has mounted it: tracing must not change the host. Called before
/// other threads start. A failure costs the observations that need it, which then say so.
pub fn mount_privately() {
    let is_mounted = |at: &str| Path::new(at).join("events").is_dir();
    if is_mounted(TRACEFS) || is_mounted("/sys/kernel/debug/tracing") {
        return;
    }
    let mounted = unshare(CloneFlags::CLONE_NEWNS)
        .and_then(|()| {
            mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_SLAVE, None::<&str>)
        })
        .and_then(|()| mount(Some("tracefs"), TRACEFS, Some("tracefs"), MsFlags::empty(), None::<&str>));
    if let Err(error) = mounted {
        log::debug!("tracefs could not be mounted privately: {error}");
    }
}
