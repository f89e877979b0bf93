//! Has the kernel deny every bind() of a control group, as systemd does for a unit with `SocketBindDeny=`: for rehearsals.

use std::os::fd::AsFd;

use aya::{
    Ebpf,
    programs::{CgroupAttachMode, CgroupSockAddr, ProgramError},
};

use super::{error::ProbeError, object};

/// Lasts as long as this.
#[derive(Debug)]
pub struct Denial(#[expect(dead_code, reason = "held for its links")] Ebpf);

/// Denies bind() to IPv4 and IPv6 sockets that are made in `cgroup` (a directory of the v2 hierarchy) from now on: EPERM.
///
/// # Errors
/// When BPF programs may not be loaded, or attached to control groups.
pub fn deny_binds(cgroup: impl AsFd) -> Result<Denial, ProbeError> {
    object::raise_memlock();
    let mut ebpf = object::quick_loader().load(object::OBJECT).map_err(|error| ProbeError::load(&error))?;
    for name in ["deny_bind_v4", "deny_bind_v6"] {
        let program =
            ebpf.program_mut(name).ok_or_else(|| ProbeError::Object(format!("it has no program {name}")))?;
        let mut attach = || -> Result<(), ProgramError> {
            let program: &mut CgroupSockAddr = program.try_into()?;
            program.load()?;
            program.attach(&cgroup, CgroupAttachMode::default())?;
            Ok(())
        };
        attach().map_err(|error| ProbeError::NothingAttached(format!("cgroup {name}: {error}")))?;
    }
    Ok(Denial(ebpf))
}
