//! What records are made of.

use std::net::SocketAddr;

use smol_str::SmolStr;
use tcptrace_common::{record, wire};

use crate::event::cursor::{Cursor, Ended};
use crate::event::socket::address;
use crate::event::{Endpoints, Family, ListenerRef, SocketOptions, Task};

pub(super) fn age(ns: u64) -> Option<u64> {
    (ns != record::AGE_UNKNOWN).then_some(ns)
}

pub(super) fn endpoints(wire: &wire::Endpoints) -> Endpoints {
    let family = if wire.family == wire::AF_INET6 { Family::V6 } else { Family::V4 };
    let local = SocketAddr::new(address(wire.local, family), wire.local_port);
    let remote = SocketAddr::new(address(wire.remote, family), wire.remote_port);
    let is_remote = remote.port() != 0 || !remote.ip().is_unspecified();
    Endpoints { netns: wire.netns, family, local, remote: is_remote.then_some(remote), device: wire.device }
}

pub(super) fn listener_ref(from: &mut Cursor<'_>) -> Result<ListenerRef, Ended> {
    let listener = ListenerRef {
        sk: from.u64()?,
        inode: from.u64()?,
        depth: from.u32()?,
        limit: from.u32()?,
        syn_queue: from.u32()?,
    };
    from.skip::<4>()?;
    Ok(listener)
}

pub(super) fn task(from: &mut Cursor<'_>) -> Result<Task, Ended> {
    Ok(task_and_flags(from)?.0)
}

/// What was read of a task's flags.
pub(super) struct TaskFlags {
    /// Whether its process was exiting; `None` where the flags were not read.
    pub(super) exiting: Option<bool>,
    /// Whether it was a thread of the kernel.
    pub(super) kernel: bool,
}

/// A task and its flags.
pub(super) fn task_and_flags(from: &mut Cursor<'_>) -> Result<(Task, TaskFlags), Ended> {
    let pid = from.u32()?;
    let tid = from.u32()?;
    let uid = from.u32()?;
    let flags = from.u32()?;
    let exiting = (flags & wire::TASK_FLAGS_SEEN != 0).then_some(flags & wire::TASK_EXITING != 0);
    let kernel = flags & wire::TASK_KERNEL != 0;
    let task = Task { pid, tid, uid, cgroup: from.u64()?, comm: comm(&from.array::<{ wire::COMM_LEN }>()?) };
    Ok((task, TaskFlags { exiting, kernel }))
}

/// A command name up to its NUL; bytes that are not UTF-8 as `\xNN`.
pub(super) fn comm(bytes: &[u8]) -> SmolStr {
    let name = bytes.split(|&byte| byte == 0).next().unwrap_or_default();
    if let Ok(text) = str::from_utf8(name) {
        return text.into();
    }
    let mut text = String::with_capacity(4 * name.len());
    for chunk in name.utf8_chunks() {
        text.push_str(chunk.valid());
        for byte in chunk.invalid() {
            text.push_str(&format!("\\x{byte:02x}"));
        }
    }
    text.into()
}

pub(in crate::event) fn read_endpoints(from: &mut Cursor<'_>) -> Result<Endpoints, Ended> {
    Ok(endpoints(&wire::Endpoints {
        local: from.array()?,
        remote: from.array()?,
        local_port: from.u16()?,
        remote_port: from.u16()?,
        family: from.u16()?,
        pad: from.u16()?,
        netns: from.u32()?,
        device: from.u32()?,
    }))
}

pub(in crate::event) fn options(bits: u32) -> SocketOptions {
    let [low, ..] = bits.to_le_bytes();
    SocketOptions::from_bits(low)
}
