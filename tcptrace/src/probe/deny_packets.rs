//! Has the kernel drop packets by BPF programs, as a unit's IP filter or an XDP program does: for rehearsals.

use std::os::fd::AsFd;

use aya::{
    Ebpf,
    programs::{CgroupAttachMode, CgroupSkb, CgroupSkbAttachType, ProgramError, Xdp, XdpMode},
};

use super::{error::ProbeError, object};

/// Lasts as long as this.
#[derive(Debug)]
pub struct Dropping(#[expect(dead_code, reason = "held for its links")] Ebpf);

/// Drops every packet that comes in for sockets made in `cgroup` from now on, or every one that they send.
///
/// # Errors
/// When BPF programs may not be loaded, or attached to control groups.
pub fn drop_packets_of(cgroup: impl AsFd, outgoing: bool) -> Result<Dropping, ProbeError> {
    let direction = if outgoing { CgroupSkbAttachType::Egress } else { CgroupSkbAttachType::Ingress };
    with("drop_packets", |ebpf| {
        let program: &mut CgroupSkb = program(ebpf, "drop_packets")?.try_into()?;
        program.load()?;
        program.attach(&cgroup, direction, CgroupAttachMode::default())?;
        Ok(())
    })
}

/// Drops every TCP segment that comes in by the device with this index, in the calling thread's network namespace: in the
/// driver, where no trace of it is left, or (`generic`) a little later, where the kernel gives a reason.
///
/// # Errors
/// When BPF programs may not be loaded, or the device takes none.
pub fn drop_segments_on(device: u32, generic: bool) -> Result<Dropping, ProbeError> {
    let mode = if generic { XdpMode::Skb } else { XdpMode::Driver };
    with("drop_segments", |ebpf| {
        let program: &mut Xdp = program(ebpf, "drop_segments")?.try_into()?;
        program.load()?;
        program.attach_to_if_index(device, mode)?;
        Ok(())
    })
}

fn program<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut aya::programs::Program, ProgramError> {
    ebpf.program_mut(name).ok_or(ProgramError::NotLoaded)
}

fn with(
    name: &str,
    attach: impl FnOnce(&mut Ebpf) -> Result<(), ProgramError>,
) -> Result<Dropping, ProbeError> {
    object::raise_memlock();
    let mut ebpf = object::quick_loader().load(object::OBJECT).map_err(|error| ProbeError::load(&error))?;
    attach(&mut ebpf).map_err(|error| ProbeError::NothingAttached(format!("{name}: {error}")))?;
    Ok(Dropping(ebpf))
}
