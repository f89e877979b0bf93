//! Connects that are not answered at once: SYNs sent again, and how it ended. None of this runs for a connect that is
//! answered, unless every connect was asked for.

use aya_ebpf::helpers::bpf_ktime_get_ns;
use tcptrace_common::{
    connect::{
        CONNECT_CANCELLED, CONNECT_ERROR, CONNECT_ESTABLISHED, CONNECT_REFUSED, CONNECT_SYN_AGAIN,
        CONNECT_TIMED_OUT, CONNECT_UNREACHABLE, CONNECTS_STREAMED, ConnectKey, ConnectTotals,
    },
    port::{HOW_CONNECT, Taker},
    record::{CONNECT_AGE_UNKNOWN, Connect, Established},
    wire::Task,
};

use crate::{
    emit::{self, add},
    filter::{passes, stream_all},
    handle::taker::{self, Hashed},
    kernel::{Access, Sock, current, state},
    maps::{CONNECTS, ZEROES},
};

const ECONNREFUSED: u32 = 111;
const ETIMEDOUT: u32 = 110;

/// What is remembered of the connect of `sk`: under its addresses; in the tiers that learn its port later, under the socket.
#[inline(always)]
fn connector<A: Access>(sk: Sock<A>, port: u16) -> Option<*mut Taker> {
    let mut entry = taker::recall_live(&Hashed::connected(sk, port, sk.remote_port()));
    if entry.is_null() {
        entry = taker::recall_live(&Hashed::bound(sk, 0));
    }
    if entry.is_null() {
        return None;
    }
    // SAFETY: a map value stays readable and writable for the length of a program run.
    Some(unsafe { &raw mut (*entry).taker })
}

/// Who connects `sk`, if that was seen.
#[inline(always)]
pub fn fill_task<A: Access>(sk: Sock<A>, to: &mut Task) {
    if let Some(taker) = connector(sk, sk.local_port()) {
        // SAFETY: a map value stays readable for the length of a program run.
        *to = unsafe { (*taker).task };
    }
}

/// The counts for `key`; `None` (and a loss counted) when there is no room.
#[inline(always)]
fn totals_of(key: &ConnectKey, now: u64) -> Option<*mut ConnectTotals> {
    if let Some(totals) = CONNECTS.get_ptr_mut(key) {
        return Some(totals);
    }
    // Made of the zero page, and not on the stack, of which the tracepoint that comes here on 5.10 has no more to give.
    let zero = ZEROES.get_ptr(0)?.cast::<ConnectTotals>();
    // BPF_NOEXIST: another CPU may have been quicker.
    // SAFETY: the zero array is longer than a ConnectTotals, and all-zero bytes are a valid one.
    if CONNECTS.insert(key, unsafe { &*zero }, 1).is_ok() {
        if let Some(fresh) = CONNECTS.get_ptr_mut(key) {
            // SAFETY: a map value stays writable for the length of a program run.
            unsafe {
                (*fresh).since_ns = now;
                (*fresh).window_ns = now;
            }
        }
    }
    let totals = CONNECTS.get_ptr_mut(key);
    if totals.is_none() {
        emit::lost(0);
    }
    totals
}

/// What is to be told of a connect.
struct News {
    result: u32,
    errno: u32,
    syns_again: u32,
    /// `CONNECT_AGE_UNKNOWN` if that was not seen.
    age_ns: u64,
    port: u16,
}

/// Counts `news`, and streams it unless there is too much of it. A function of its own for its share of the stack.
#[inline(never)]
fn tell<A: Access>(sk: Sock<A>, task: &Task, key: &ConnectKey, now: u64, news: &News) {
    let Some(totals) = totals_of(key, now) else { return };
    // SAFETY: members of a map value, which stays readable for the length of a program run; only atomic adds change counts.
    unsafe {
        let count = match news.result {
            CONNECT_SYN_AGAIN => {
                if news.syns_again == 1 {
                    add(&raw mut (*totals).unanswered, 1);
                }
                &raw mut (*totals).syns_again
            }
            CONNECT_ESTABLISHED => &raw mut (*totals).established,
            CONNECT_REFUSED => &raw mut (*totals).refused,
            CONNECT_UNREACHABLE => &raw mut (*totals).unreachable,
            CONNECT_TIMED_OUT => &raw mut (*totals).timed_out,
            CONNECT_CANCELLED => &raw mut (*totals).cancelled,
            _ => &raw mut (*totals).errors,
        };
        // To be called off at once is no failure; it is streamed all the same if all were asked for.
        let counts = news.syns_again != 0 || news.result != CONNECT_CANCELLED;
        if counts {
            add(count, 1);
        }
        if now.wrapping_sub((*totals).window_ns) > 1_000_000_000 {
            (*totals).window_ns = now;
            (*totals).streamed = 0;
        }
        if (*totals).streamed >= CONNECTS_STREAMED && !stream_all() {
            return;
        }
        add(&raw mut (*totals).streamed, 1);
    }
    let Some(mut record) = emit::reserve::<Connect>() else { return };
    sk.fill_endpoints(&mut record.endpoints, news.port);
    record.endpoints.remote = key.peer;
    record.endpoints.remote_port = key.port;
    record.task = *task;
    record.sk = sk.id();
    record.ino = sk.ino();
    record.age_ns = news.age_ns;
    record.result = news.result;
    record.errno = news.errno;
    record.syns_again = news.syns_again;
    // SAFETY: as above.
    record.totals = unsafe { *totals };
    record.submit();
}

/// Time since connect() was called.
#[inline(always)]
fn age_of(taker: &Taker, now: u64) -> u64 {
    // A port that bind() got was taken earlier; of a socket older than the tracer that is not known.
    if taker.how == HOW_CONNECT && taker.since_ns != 0 {
        now.wrapping_sub(taker.since_ns)
    } else {
        CONNECT_AGE_UNKNOWN
    }
}

/// The value itself, of which the verifier knows nothing.
///
/// [`tell`] finds it on its caller's stack. There 5.10 and 6.1 take two paths for the same that differ in nothing else, follow the
/// first one only, and then cut off every branch that it did not take: what could not be reached was counted as called off.
#[inline(always)]
fn hidden(value: u32) -> u32 {
    let Some(zeroes) = ZEROES.get_ptr(0) else { return value };
    // SAFETY: an array slot is always there; volatile because the compiler must not know either that it is zero.
    value ^ unsafe { zeroes.cast::<u32>().read_volatile() }
}

/// `news` of a connect whose beginning was perhaps not seen: then `taker` is null.
///
/// Not inlined: each of its callers would have a copy of its variables on the stack, which on 5.10 is too small for that.
#[inline(never)]
fn tell_of<A: Access>(sk: Sock<A>, port: u16, taker: *mut Taker, result: u32, errno: u32) {
    let netns = sk.netns();
    // SAFETY: a helper without arguments.
    let now = unsafe { bpf_ktime_get_ns() };
    let mut news = News { result: hidden(result), errno, syns_again: 0, age_ns: CONNECT_AGE_UNKNOWN, port };
    let mut task = Task::default();
    if !taker.is_null() {
        // SAFETY: a map value stays readable for the length of a program run.
        unsafe {
            task = (*taker).task;
            news.age_ns = age_of(&*taker, now);
            news.syns_again = u32::from((*taker).syns_again);
        }
    } else if result == CONNECT_SYN_AGAIN {
        news.syns_again = u32::from(sk.retransmits()) + 1;
    }
    let key =
        ConnectKey { peer: sk.remote_address(), netns, tgid: task.tgid, port: sk.remote_port(), pad: [0; 3] };
    tell(sk, &task, &key, now, &news);
}

/// Does what is to be done about `sk` if it is a client that waits for an answer, and wanted: by its port, and by what is
/// known of its connect (null if that is older than the tracer).
#[inline(always)]
fn if_waiting<A: Access>(sk: Sock<A>, then: impl FnOnce(u16, *mut Taker)) {
    if sk.state() != state::SYN_SENT {
        return;
    }
    let port = sk.local_port();
    if passes(sk, port, sk.remote_port()) {
        then(port, connector(sk, port).unwrap_or(core::ptr::null_mut()));
    }
}

/// `tcp_retransmit_skb`: a segment of `sk` was sent again. Any context.
#[inline(always)]
pub fn retransmitted<A: Access>(sk: Sock<A>) {
    if_waiting(sk, |port, taker| {
        if !taker.is_null() {
            // SAFETY: a map value; the socket's lock keeps others away from this member.
            unsafe { (*taker).syns_again = (*taker).syns_again.saturating_add(1) };
        }
        tell_of(sk, port, taker, CONNECT_SYN_AGAIN, sk.soft_error());
    });
}

/// `tcp_receive_reset`: an RST came for `sk`, whose state is still the one it was.
#[inline(always)]
pub fn reset<A: Access>(sk: Sock<A>) {
    if_waiting(sk, |port, taker| {
        if !taker.is_null() {
            // SAFETY: as above.
            unsafe { (*taker).told = 1 };
        }
        tell_of(sk, port, taker, CONNECT_REFUSED, ECONNREFUSED);
    });
}

/// A socket in SYN_SENT is closed: its connect has failed, if nobody has said so yet.
#[inline(always)]
pub fn ended<A: Access>(sk: Sock<A>, port: u16, taker: *mut Taker) {
    // SAFETY: a map value stays readable for the length of a program run.
    let (told, syns_again) = unsafe { ((*taker).told, (*taker).syns_again) };
    if told != 0 {
        return;
    }
    let errno = sk.error();
    let result = match errno {
        0 => CONNECT_CANCELLED,
        ETIMEDOUT => CONNECT_TIMED_OUT,
        _ => CONNECT_UNREACHABLE,
    };
    // To be called off before the first SYN was answered is what happens to the loser of a race, and no news.
    if result == CONNECT_CANCELLED && syns_again == 0 && !stream_all() {
        return;
    }
    tell_of(sk, port, taker, result, errno);
}

/// The handshake of a client is complete.
#[inline(always)]
pub fn established<A: Access>(sk: Sock<A>, port: u16, taker: *mut Taker) {
    // SAFETY: a map value stays readable for the length of a program run.
    if unsafe { (*taker).syns_again } != 0 {
        tell_of(sk, port, taker, CONNECT_ESTABLISHED, 0);
    } else if stream_all() {
        stream_established(sk, port, taker);
    }
}

/// A connect was answered at once: nothing of it is counted.
// Not inlined, for a stack frame of its own.
#[inline(never)]
fn stream_established<A: Access>(sk: Sock<A>, port: u16, taker: *const Taker) {
    // SAFETY: as above.
    let taker = unsafe { &*taker };
    // SAFETY: a helper without arguments.
    let now = unsafe { bpf_ktime_get_ns() };
    emit::send(now, |header| Established {
        header,
        endpoints: sk.endpoints(port),
        task: taker.task,
        sk: sk.id(),
        ino: sk.ino(),
        age_ns: age_of(taker, now),
    });
}

/// The same, of a connect that is still to be found.
#[inline(always)]
pub fn answered<A: Access>(sk: Sock<A>) {
    let port = sk.local_port();
    if !passes(sk, port, sk.remote_port()) {
        return;
    }
    if let Some(taker) = connector(sk, port) {
        established(sk, port, taker);
    }
}

/// connect() to `peer` failed with `errno` before a SYN was sent. Process context: the current task asked.
#[inline(always)]
pub fn failed_at_once<A: Access>(sk: Sock<A>, peer: [u8; 16], peer_port: u16, errno: u32) {
    let port = sk.local_port();
    if !passes(sk, port, peer_port) {
        return;
    }
    let mut task = Task::default();
    current::fill(&mut task);
    // SAFETY: a helper without arguments.
    let now = unsafe { bpf_ktime_get_ns() };
    let key = ConnectKey { peer, netns: sk.netns(), tgid: task.tgid, port: peer_port, pad: [0; 3] };
    tell(sk, &task, &key, now, &News { result: CONNECT_ERROR, errno, syns_again: 0, age_ns: 0, port });
}
