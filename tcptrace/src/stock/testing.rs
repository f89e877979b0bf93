//! Prepared listeners, owners and requests.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::{HalfOpen, Limit, Listener, Owner, OwnerProcess};
use crate::event::{Family, SocketState};
use crate::host::knobs::Knobs;
use crate::host::sock_diag::{self, DiagSocket, Timer, TimerKind};
use crate::identity::process::Process;
use crate::identity::state::{ProcessState, RunState, Syscall, ThreadState};

fn family(address: SocketAddr) -> Family {
    if address.is_ipv4() { Family::V4 } else { Family::V6 }
}

/// A listener as sock_diag has it.
pub(crate) fn socket(local: &str) -> sock_diag::Listener {
    let local: SocketAddr = local.parse().unwrap();
    sock_diag::Listener {
        family: family(local),
        local,
        v6only: local.is_ipv6().then_some(false),
        ifindex: 0,
        inode: 1000,
        cookie: 1,
        uid: 0,
        depth: 0,
        limit: 511,
        drops: Some(0),
        cgroup: None,
    }
}

/// A half-open request, its family that of its listener.
pub(crate) fn request(local: &str) -> DiagSocket {
    let local: SocketAddr = local.parse().unwrap();
    DiagSocket {
        family: family(local),
        state: SocketState::SynRecv,
        local,
        remote: "192.0.2.1:40000".parse().unwrap(),
        ifindex: 0,
        cookie: 2,
        timer: Some(Timer { kind: TimerKind::Retransmit, left: Duration::from_secs(1), retransmits: 0 }),
        rqueue: 0,
        wqueue: 0,
        uid: 0,
        inode: 0,
        drops: None,
        v6only: None,
        cgroup: None,
        options: None,
        silent_for: None,
    }
}

/// An idle listener of `server[100]`, limit 511 of somaxconn 4096.
pub(crate) fn listener(local: &str) -> Listener {
    Listener {
        netns: 4_026_531_840,
        netns_name: None,
        own_netns: true,
        socket: socket(local),
        owners: vec![owner(100, "server", &[3], vec![thread(RunState::Sleeping)])],
        owners_complete: true,
        limit: Limit { limit: 511, backlog: None, somaxconn: Some(4096), somaxconn_then: None },
        half_open: Some(HalfOpen::default()),
        group: None,
        knobs: Arc::new(Knobs { somaxconn: Some(4096), tcp_syncookies: Some(1), ..Knobs::default() }),
        device: None,
        traced: None,
    }
}

/// A process with these threads that has the listener open.
pub(crate) fn owner(pid: u32, comm: &str, fds: &[u32], threads: Vec<ThreadState>) -> Owner {
    let who = Process {
        pid,
        ppid: 1,
        comm: comm.to_owned(),
        command: Some(format!("/usr/sbin/{comm} --serve")),
        exe: None,
        uid: Some(0),
        cgroup: None,
        container: None,
        unit: None,
        netns: None,
        start_time: 1,
        threads: u32::try_from(threads.len()).unwrap(),
    };
    let state =
        ProcessState { threads, threads_left_out: 0, open_files: Some(10), open_files_limit: Some(1024) };
    Owner { fds: fds.to_vec(), process: Arc::new(OwnerProcess { who, state: Some(state) }) }
}

/// A thread in this state whose system call may not be read.
pub(crate) fn thread(state: RunState) -> ThreadState {
    ThreadState { tid: 1, comm: "thread".to_owned(), state, wchan: None, syscall: None }
}

/// A thread that sleeps in this system call on this descriptor.
pub(crate) fn blocked_in(number: i64, fd: u64) -> ThreadState {
    ThreadState { syscall: Some(Syscall { number, first_argument: fd }), ..thread(RunState::Sleeping) }
}
