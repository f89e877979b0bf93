//! What records are made of.

use std::net::SocketAddr;

use smol_str::SmolStr;
use tcptrace_common::{record, wire};

use crate::event::socket::address;
use crate::event::{Endpoints, Family, ListenerRef, SocketOptions, Task};

pub(super) fn age(ns: u64) -> Option<u64> {
    (ns != record::AGE_UNKNOWN).then_some(ns)
}

pub(in crate::event) fn endpoints(from: &wire::Endpoints) -> Endpoints {
    let family = if from.family == wire::AF_INET6 { Family::V6 } else { Family::V4 };
    let local = SocketAddr::new(address(from.local, family), from.local_port);
    let remote = SocketAddr::new(address(from.remote, family), from.remote_port);
    let is_remote = remote.port() != 0 || !remote.ip().is_unspecified();
    Endpoints { netns: from.netns, family, local, remote: is_remote.then_some(remote), device: from.device }
}

pub(super) fn listener_ref(from: &record::ListenerRef) -> ListenerRef {
    let record::ListenerRef { sk, ino, depth, limit, syn_queue, pad: _ } = *from;
    ListenerRef { sk, inode: ino, depth, limit, syn_queue }
}

pub(super) fn task(from: &wire::Task) -> Task {
    let wire::Task { tgid, tid, uid, flags: _, cgroup, comm: name } = *from;
    Task { pid: tgid, tid, uid, cgroup, comm: comm(&name) }
}

/// The same where the process may be unknown.
pub(super) fn known_task(from: &wire::Task) -> Option<Task> {
    (from.tgid != 0).then(|| task(from))
}

/// Whether a task's process was exiting; `None` where its flags were not read.
pub(super) fn exiting(task: &wire::Task) -> Option<bool> {
    (task.flags & wire::TASK_FLAGS_SEEN != 0).then_some(task.flags & wire::TASK_EXITING != 0)
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

pub(in crate::event) fn options(bits: u32) -> SocketOptions {
    let [low, ..] = bits.to_le_bytes();
    SocketOptions::from_bits(low)
}
