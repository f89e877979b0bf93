//! A process has a socket open: found when somebody asked who has what, not when it was opened.

use tcptrace_common::{
    open_socket::OpenSocket,
    port::{HOW_UNKNOWN, Taker},
};

use crate::{
    filter::is_asked_for,
    handle::taker::{self, Hashed},
    kernel::{Access, OPEN_SOCKETS, Probed, Sock, TaskFile, state},
};

const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;

/// A member of [`OPEN_SOCKETS`], read so that the compiler cannot fold in the value it sees here.
macro_rules! asked {
    ($member:ident) => {
        // SAFETY: OPEN_SOCKETS is an initialised static; volatile because user space replaces it before load.
        unsafe { core::ptr::read_volatile(&raw const OPEN_SOCKETS.$member) }
    };
}

/// The iterator met a file. Writes a row if it is a TCP socket with a port that was asked for.
#[inline(always)]
pub fn met(entry: &TaskFile) {
    if TaskFile::has_typed_socket() {
        let sk = entry.typed_socket();
        if sk.id() != 0 && is_wanted(sk) {
            tell(entry, Sock::at(sk.id()));
        }
    } else if let Some(sk) = entry.probed_socket() {
        if is_wanted(sk) {
            tell(entry, sk);
        }
    }
}

#[inline(always)]
fn is_wanted<A: Access>(sk: Sock<A>) -> bool {
    let family = sk.family();
    if family != AF_INET && family != AF_INET6 {
        return false;
    }
    // The port stands beside the family: of most sockets no other line of memory is touched.
    let local = sk.local_port();
    if local == 0 || local < asked!(first) || local > asked!(last) {
        return false;
    }
    // Beside them as well.
    let state = asked!(state);
    if state != 0 && u16::from(sk.state()) != state {
        return false;
    }
    sk.is_tcp_of_application() && is_asked_for(sk, local, sk.remote_port())
}

#[inline(always)]
fn tell(entry: &TaskFile, sk: Sock<Probed>) {
    let local = sk.local_port();
    let mut row = OpenSocket::default();
    sk.fill_endpoints(&mut row.endpoints, local);
    row.sk = sk.id();
    row.ino = entry.inode();
    row.cookie = sk.cookie();
    row.tgid = entry.tgid();
    row.fd = entry.descriptor();
    row.uid = sk.uid();
    row.state = sk.state();
    if row.state == state::LISTEN {
        row.depth = sk.accept_queue_depth();
        row.limit = sk.accept_queue_limit();
    }
    row.options = sk.options() | sk.inet_options();
    row.mptcp = u8::from(sk.is_mptcp());
    row.locks = sk.locks();
    entry.write(&row);
    if asked!(remember) != 0 {
        remember(entry, sk, &row);
    }
}

/// As if it had been seen taking the port, so that a TIME_WAIT remnant of an older connection has a name, too. Whoever was seen
/// taking it stands, and of several processes that share it the first.
#[inline(always)]
fn remember(entry: &TaskFile, sk: Sock<Probed>, row: &OpenSocket) {
    let mut taker = Taker { how: HOW_UNKNOWN, bootstrapped: 1, ..Default::default() };
    taker.task.tgid = row.tgid;
    taker.task.tid = row.tgid;
    taker.task.uid = row.uid;
    taker.task.comm = entry.comm();
    let (local, remote) = (row.endpoints.local_port, row.endpoints.remote_port);
    let key = if remote != 0 { Hashed::connected(sk, local, remote) } else { Hashed::bound(sk, local) };
    if taker::recall_live(&key).is_null() {
        taker::remember(&key, &taker);
    }
}
