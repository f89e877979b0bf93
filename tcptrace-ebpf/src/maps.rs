//! Maps, with what bounds them. Those whose entries have a type and a search of their own are beside these:
//! [`handle::queued`](crate::handle::queued) and [`handle::taker`](crate::handle::taker).

use aya_ebpf::{
    macros::map,
    maps::{Array, HashMap, LruHashMap, PerCpuArray, RingBuf},
};
use tcptrace_common::{
    ABSENT,
    connect::{ConnectKey, ConnectTotals},
    drop::{DropKey, DropTotals},
    listener::{Histogram, ListenerState, PrefixKey},
    port::{PortUse, PortUseKey},
    record::{KINDS, ListenerClosed},
    stand_in::{Attended, PAIRS},
};

use crate::kernel::{current, layout};

/// Records to user space. User space sets its size at load.
#[map]
pub static EVENTS: RingBuf = RingBuf::with_byte_size(4 << 20, 0);

/// Records that found no room, by kind; slot 0 counts map entries that found none. One value, so that user space reads it
/// with one call: while that runs, the kernel skips kprobes on the reader's CPU (`bpf_disable_instrumentation`).
#[map]
pub static LOST: Array<[u64; KINDS]> = Array::with_max_entries(1, 0);

/// Per-listener counters, keyed by the listener's address (in the tracepoint tier by namespace and port). A plain hash:
/// an LRU would forget a quiet listener, which is the one to remember when it stalls.
#[map]
pub static LISTENERS: HashMap<u64, ListenerState> = HashMap::with_max_entries(16_384, 0);

/// How long connections waited to be accepted, by listener as in [`LISTENERS`]. Fewer than there: only listeners that
/// accept have one, and each is 1.6 KiB.
#[map]
pub static WAITS: HashMap<u64, Histogram> = HashMap::with_max_entries(4_096, 0);

/// How long handshakes took, from the first SYN-ACK to the final ACK, likewise.
#[map]
pub static HANDSHAKES: HashMap<u64, Histogram> = HashMap::with_max_entries(4_096, 0);

/// Connections completed, by listener and remote network; counted only for listeners whose SYN-ACKs go unanswered.
#[map]
pub static PREFIXES: LruHashMap<PrefixKey, u64> = LruHashMap::with_max_entries(8_192, 0);

/// How many ephemeral ports each process takes and gives back: one lookup and one atomic add for each. LRU: processes come
/// and go; user space deletes those that hold nothing any more.
#[map]
pub static PORT_USE: LruHashMap<PortUseKey, PortUse> = LruHashMap::with_max_entries(16_384, 0);

/// Ports that servers have or had, a bit each, of all namespaces together: a client that is given one of them is worth a
/// record. Set by user space.
#[map]
pub static SERVED: Array<[u64; 1024]> = Array::with_max_entries(1, 0);

/// Connects that were not answered at once, by process and destination. LRU: what matters goes on happening.
#[map]
pub static CONNECTS: LruHashMap<ConnectKey, ConnectTotals> = LruHashMap::with_max_entries(4_096, 0);

/// Failed accepts, by listener, process and reason. LRU: what matters goes on happening.
#[map]
pub static ACCEPT_FAILS: LruHashMap<AcceptFailKey, AcceptFails> = LruHashMap::with_max_entries(1_024, 0);

/// Key of [`ACCEPT_FAILS`].
#[derive(Clone, Copy)]
#[repr(C)]
pub struct AcceptFailKey {
    /// The listener's address.
    pub listener: u64,
    /// Process that accepts.
    pub tgid: u32,
    /// Why it failed.
    pub errno: u32,
}

/// Value of [`ACCEPT_FAILS`].
#[derive(Clone, Copy)]
#[repr(C)]
pub struct AcceptFails {
    /// All failures.
    pub total: u64,
    /// When the present second began, for the limit on records.
    pub second_ns: u64,
    /// Failures in it.
    pub in_second: u64,
}

/// Packets of handshakes that were dropped, by why and where. LRU: what matters goes on happening.
#[map]
pub static DROPS: LruHashMap<DropKey, DropTotals> = LruHashMap::with_max_entries(4_096, 0);

/// Arguments of a call in progress, from entry probe to return probe, keyed by thread: these calls may be rescheduled
/// onto another CPU (`cond_resched()` in the port search). LRU: a thread killed in between leaves its entry behind.
#[map]
pub static CALLS: LruHashMap<CallKey, Call> = LruHashMap::with_max_entries(8_192, 0);

/// Key of [`CALLS`]: calls nest (listen calls get_port), so the thread alone is not enough.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct CallKey {
    /// `bpf_get_current_pid_tgid()`.
    pub thread: u64,
    /// One of `CALL_*`.
    pub which: u64,
}
/// In `inet_csk_listen_start`.
pub const CALL_LISTEN_START: u64 = 1;
/// In `inet_listen`.
pub const CALL_LISTEN: u64 = 2;
/// In `inet_csk_get_port`.
pub const CALL_GET_PORT: u64 = 3;
/// In the listen system call: `first` is the backlog argument.
pub const CALL_SYS_LISTEN: u64 = 4;
/// In the bind system call: `first` is the descriptor, `second` the user's address pointer.
pub const CALL_SYS_BIND: u64 = 5;
/// In `inet_bind` or `inet6_bind`: `first` is the socket, `second` the kernel's copy of the address.
pub const CALL_BIND: u64 = 6;

/// Value of [`CALLS`].
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Call {
    /// First argument worth keeping.
    pub first: u64,
    /// Second.
    pub second: u64,
}

/// State of the packet that this thread handles on this CPU, in softirq. The receive path of TCP does not migrate between the hooks
/// that share this, and one packet is finished before the same thread begins the next. See [`packet`].
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Packet {
    /// With PREEMPT_RT: the thread whose packet this is about.
    pub thread: u64,
    /// The SYN in progress passed both queue checks (its route was asked for).
    pub passed_queue_checks: u64,
    /// A child was created and then abandoned (`inet_csk_prepare_forced_close`) in the final ACK in progress.
    pub child_abandoned: u64,
    /// Child created by the final ACK (or Fast Open SYN) in progress and not yet counted as enqueued.
    pub fresh_child: u64,
    /// Request of that child.
    pub fresh_request: u64,
    /// Request whose final ACK was the last to be refused.
    pub refused_request: u64,
    /// The ICMP error in progress: [`ICMP_PRESENT`], type and code; 0 outside of one.
    pub icmp: u64,
    /// The SYN in progress is answered with a cookie.
    pub cookie: u64,
    /// The SYN in progress was refused one of the last places of `tcp_max_syn_backlog`.
    pub unproven: u64,
    /// There is no route for the answer to the SYN in progress.
    pub unrouted: u64,
    /// Request whose timer runs out; 0 outside `reqsk_timer_handler`.
    pub timer_request: u64,
    /// How often it had run out before.
    pub timer_timeouts: u64,
    /// State of its listener then.
    pub timer_listener_state: u64,
    /// kprobe tier: listener of the SYN in progress.
    pub syn_listener: u64,
    /// kprobe tier: the SYN itself.
    pub syn_skb: u64,
    /// kprobe tier: listener and packet of the final ACK in progress, IPv4 function.
    pub ack4_listener: u64,
    /// Its packet.
    pub ack4_skb: u64,
    /// Its request.
    pub ack4_request: u64,
    /// Likewise for the IPv6 function, which calls the IPv4 one for mapped peers.
    pub ack6_listener: u64,
    /// Its packet.
    pub ack6_skb: u64,
    /// Its request.
    pub ack6_request: u64,
    /// kprobe tier: listener of the ACK that may be a cookie.
    pub cookie_listener: u64,
    /// Its packet.
    pub cookie_skb: u64,
}

impl Packet {
    /// Forgets what another thread left here. It loses what it noted, which is no worse than not to have noted it.
    #[inline(always)]
    fn begin(&mut self, thread: u64) {
        let words = (&raw mut *self).cast::<u64>();
        for word in 0..size_of::<Self>() / size_of::<u64>() {
            // SAFETY: all of it are words. Each with a store of its own: the compiler would make a call of them.
            unsafe { words.add(word).write_volatile(0) };
        }
        self.thread = thread;
    }
}

/// Set in [`Packet::icmp`] while an ICMP error is handled, above its type (byte 1) and code (byte 0).
pub const ICMP_PRESENT: u64 = 1 << 16;
#[map]
pub static PACKET: PerCpuArray<Packet> = PerCpuArray::with_max_entries(THREADS, 0);
/// So many threads of a CPU can be in the middle of a packet without a thought for each other; a power of two. Without PREEMPT_RT it
/// is one: a softirq runs to its end.
const THREADS: u32 = 32;

/// What first programs of this CPU were there for, by pair; see [`stand_in`](crate::stand_in).
#[map]
pub static ATTENDED: PerCpuArray<Attended> = PerCpuArray::with_max_entries(PAIRS, 0);

/// What the `tp_set_state_*` programs are wanted for, a bit set of `config::SERVE_*`: decided after load, when user space knows which
/// observations no better attachment makes. The full tiers do not attach that program at all. Until `SERVE_ALL` is set, no program
/// counts anything.
#[map]
pub static SERVES: Array<u32> = Array::with_max_entries(1, 0);

/// Zeroes to copy from: a record in the ring buffer starts as whatever was there before, and every byte goes to user space.
#[map]
pub static ZEROES: Array<[u8; ZEROES_LEN]> = Array::with_max_entries(1, 0);
/// The longest record or map value that is filled in place.
pub const ZEROES_LEN: usize = 1664;
const _: () = assert!(size_of::<ListenerClosed>() <= ZEROES_LEN);
const _: () = assert!(size_of::<tcptrace_common::record::BindFail>() <= ZEROES_LEN);
const _: () = assert!(size_of::<Histogram>() <= ZEROES_LEN);

/// The state of the packet in progress.
///
/// Without PREEMPT_RT one softirq at a time runs on a CPU, to its end. With it softirqs run in threads (ksoftirqd, those of
/// interrupts, whoever sends over loopback), and since 7.3 without a lock of the CPU: one may be preempted between two of these hooks
/// by another with a packet of its own. So each thread has its place.
#[inline(always)]
pub fn packet() -> Option<&'static mut Packet> {
    if layout!(realtime_lock) == ABSENT {
        let packet = PACKET.get_ptr_mut(0)?;
        // SAFETY: a per-CPU array slot is always there, and only softirq programs of this CPU, which do not nest, use it.
        return Some(unsafe { &mut *packet });
    }
    let thread = current::thread();
    let packet = PACKET.get_ptr_mut(thread as u32 & (THREADS - 1))?;
    // SAFETY: as above; what preempts this thread has another place, or finds below that this one is not its own.
    let packet = unsafe { &mut *packet };
    if packet.thread != thread {
        packet.begin(thread);
    }
    Some(packet)
}
