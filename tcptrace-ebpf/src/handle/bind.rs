//! bind() or listen() succeeded or failed for its port. Process context: the current task asks.

use aya_log_ebpf::debug;
use tcptrace_common::{
    port::{FOUND_BIND_HASH, HOW_BIND, HOW_BIND_ANY, HOW_LISTEN_ANY, Holder},
    record::{BindFail, HOLDERS, REUSE_STATE_UNKNOWN, STAGE_BIND, STAGE_LISTEN},
};

use crate::{
    emit,
    filter::passes,
    handle::{
        port,
        taker::{self, Hashed},
    },
    kernel::{Access, Probed, Sock, bind_hash::Bucket, current, socket_address, state},
};

const EADDRINUSE: u32 = 98;

/// How many owners of a port are looked at: a listener with thousands of connections is the last of as many.
const OWNERS: u32 = 128;

/// `inet_csk_get_port(sk, asked)` returned `result`: 0, or 1 for a conflict up to 6.0 and -EADDRINUSE since.
#[inline(always)]
pub fn got_port<A: Access>(sk: Sock<A>, asked: u16, result: i32) {
    let listening = sk.state() == state::LISTEN;
    if result == 0 {
        // listen() asks again for the port that bind() got, unless it comes with none.
        if !listening {
            port::bound(sk, sk.local_port(), if asked == 0 { HOW_BIND_ANY } else { HOW_BIND });
        } else if asked == 0 {
            port::bound(sk, sk.local_port(), HOW_LISTEN_ANY);
        }
        return;
    }
    let errno = if result > 0 { EADDRINUSE } else { result.unsigned_abs() };
    let stage = if listening { STAGE_LISTEN } else { STAGE_BIND };
    in_use(sk, asked, sk.local_address(), errno, stage);
}

/// `sk` did not get port `asked` at `address`: it is in use.
#[inline(always)]
pub fn in_use<A: Access>(sk: Sock<A>, asked: u16, address: [u8; 16], errno: u32, stage: u32) {
    let Some(mut record) = begin(sk, asked, address, errno, stage) else { return };
    if asked != 0 && errno == EADDRINUSE {
        if let Some(bucket) = Bucket::find(sk, asked) {
            record.reuse_state = bucket.reuse_state();
            name_holders(&mut record, bucket, sk.id());
        }
    }
    record.submit();
}

/// bind() to the `struct sockaddr` in kernel memory at `wanted` returned `result`, not 0. A port that is in use is seen where
/// the port is asked for ([`got_port`]), which finds the holders. A security module is asked about sockets of every kind.
#[inline(always)]
pub fn bind_failed<A: Access>(sk: Sock<A>, wanted: u64, result: i32, stage: u32) {
    let errno = result.unsigned_abs();
    if errno == EADDRINUSE || !sk.is_tcp_of_application() {
        return;
    }
    let (address, port) = match socket_address(wanted) {
        Some(wanted) => wanted,
        // Of another family, which is why it failed.
        None => ([0; 16], 0),
    };
    refused(sk, port, address, errno, stage);
}

/// listen() returned `result`, likewise.
#[inline(always)]
pub fn listen_failed<A: Access>(sk: Sock<A>, result: i32) {
    let errno = result.unsigned_abs();
    if errno != EADDRINUSE && sk.is_tcp() {
        refused(sk, sk.local_port(), sk.local_address(), errno, STAGE_LISTEN);
    }
}

/// `sk` did not get `address`, whoever has the port.
#[inline(always)]
pub fn refused<A: Access>(sk: Sock<A>, asked: u16, address: [u8; 16], errno: u32, stage: u32) {
    if let Some(record) = begin(sk, asked, address, errno, stage) {
        record.submit();
    }
}

/// A record of a failure, still without holders; `None` if nobody wants it or there is no room.
#[inline(always)]
fn begin<A: Access>(
    sk: Sock<A>,
    asked: u16,
    address: [u8; 16],
    errno: u32,
    stage: u32,
) -> Option<emit::Entry<BindFail>> {
    if !passes(sk, asked, 0) {
        return None;
    }
    debug!((), "port {} refused: errno {}, stage {}", asked, errno, stage);
    let mut record = emit::reserve::<BindFail>()?;
    record.endpoints.local = address;
    record.endpoints.local_port = asked;
    record.endpoints.family = sk.family();
    record.endpoints.netns = sk.netns();
    record.endpoints.device = sk.device();
    current::fill(&mut record.task);
    record.sk = sk.id();
    record.errno = errno;
    record.stage = stage;
    record.options = u32::from(sk.options() | sk.inet_options());
    record.reuse_state = REUSE_STATE_UNKNOWN;
    record.own_range = sk.own_range();
    Some(record)
}

/// Walks the bind bucket: the first holders met, the last place kept for a listener, which is met after its children.
///
/// In two passes, the first of which only notes addresses: with a long loop body the verifier of 5.10 takes minutes. The
/// counts live in the record, where the verifier does not track their values; kept in registers, each value would be a
/// state of its own.
#[inline(always)]
fn name_holders(record: &mut BindFail, bucket: Bucket, requester: u64) {
    let mut owners = bucket.owners();
    for _ in 0..OWNERS {
        if owners.is_done() {
            break;
        }
        let Some(holder) = owners.step() else { continue };
        // At listen() the requester itself is among the owners.
        if holder.id() == requester {
            continue;
        }
        record.holders_met += 1;
        let kept = record.holders_len as usize;
        let slot = if kept < HOLDERS {
            record.holders_len = kept as u32 + 1;
            kept
        } else if holder.state() == state::LISTEN {
            HOLDERS - 1
        } else {
            continue;
        };
        let Some(slot) = record.holders.get_mut(slot) else { break };
        slot.sk = holder.id();
    }
    for slot in &mut record.holders {
        if slot.sk != 0 {
            fill_holder(slot, Sock::at(slot.sk));
        }
    }
}

/// Not inlined: eight copies of it would not help anyone.
#[inline(never)]
fn fill_holder(to: &mut Holder, sk: Sock<Probed>) {
    let port = sk.local_port();
    sk.fill_endpoints(&mut to.endpoints, port);
    let state = sk.state();
    to.sk = sk.id();
    to.state = state;
    to.found = FOUND_BIND_HASH;
    to.options = sk.options();
    let time_wait = state == state::TIME_WAIT;
    if time_wait {
        // Only struct sock_common is there in an inet_timewait_sock.
        to.uid = u32::MAX;
    } else {
        to.uid = sk.uid();
        to.ino = sk.ino();
        to.options |= sk.inet_options();
    }
    let remote_port = sk.remote_port();
    let key =
        if remote_port != 0 { Hashed::connected(sk, port, remote_port) } else { Hashed::bound(sk, port) };
    let entry = taker::recall(&key);
    if entry.is_null() {
        return;
    }
    // SAFETY: a map value stays readable for the length of a program run.
    let entry = unsafe { &*entry };
    // One that has given its port back had the port of the remnant that is left, not of a socket that came after it.
    if (time_wait || entry.taker.released_ns == 0) && !entry.is_mixed() {
        to.taker = entry.taker;
    }
}
