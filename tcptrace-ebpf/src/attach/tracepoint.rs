//! Tracepoints, for hosts that allow neither trampolines nor kprobes: state changes and packet drops by BTF tracepoint,
//! accept, bind and listen by the system call's own tracepoint. What no tracepoint shows (a SYN dropped at a full queue is
//! freed by `consume_skb()`), user space polls from sock_diag and the counters.

use aya_ebpf::{
    EbpfContext as _,
    helpers::generated::bpf_probe_read_user,
    macros::{btf_tracepoint, tracepoint},
    programs::{BtfTracePointContext, TracePointContext},
};
use tcptrace_common::{
    ABSENT,
    config::{SERVE_CONNECT, SERVE_ENQUEUE, SERVE_LISTEN},
    port::{HOW_BIND, HOW_BIND_ANY},
    record::STAGE_BIND,
    stand_in::{DROP, RESET, STATE_CHILD, STATE_PORT},
    wire::{AF_INET, AF_INET6},
};

use crate::{
    handle::{accept, bind, connect, drop, half_open, handshake, listen, port, queued},
    kernel::{Access as _, Direct, Probed, Request, Skb, Sock, current, layout, mapped, state},
    maps::{CALL_SYS_BIND, CALLS, Call, CallKey, SERVES},
    stand_in,
};

const EADDRINUSE: i64 = 98;
const EBUSY: i32 = 16;

// `inet_sock_set_state(const struct sock *sk, const int oldstate, const int newstate)`, in three programs with a stand-in for
// those that have work in softirq: the kernel skips a program that would interrupt itself on the same CPU (since 6.1), and a
// state change in process context may be interrupted by one in softirq.

/// A TCP socket and its old and new state; `None` for other protocols, and if nobody wants `what`.
#[inline(always)]
fn state_change(ctx: &BtfTracePointContext, what: u32) -> Option<(Sock<Direct>, u8, u8)> {
    let sk = Sock::<Direct>::at(ctx.arg(0));
    if !sk.is_tcp() {
        return None;
    }
    let serves = SERVES.get_ptr(0)?;
    // SAFETY: an array slot is always there.
    if unsafe { *serves } & what == 0 {
        return None;
    }
    let old: i32 = ctx.arg(1);
    let new: i32 = ctx.arg(2);
    Some((sk, old as u8, new as u8))
}

/// Process context: the current task listens, closes a listener, or connects.
#[btf_tracepoint(function = "inet_sock_set_state")]
fn tp_set_state_task(ctx: BtfTracePointContext) -> u32 {
    if let Some((sk, old, new)) = state_change(&ctx, SERVE_LISTEN) {
        match (old, new) {
            // The port is not yet confirmed; if that fails, CLOSE follows.
            (_, state::LISTEN) => listen::listening(sk, false),
            (state::LISTEN, state::CLOSE) => listen::closing(sk),
            _ => {}
        }
    }
    if let Some((sk, state::CLOSE, state::SYN_SENT)) = state_change(&ctx, SERVE_CONNECT) {
        // The port is chosen after this.
        port::connecting(sk);
    }
    0
}

/// Softirq: a child is established, after it was enqueued. (LISTEN to SYN_RECV comes too early: up to 6.14 the addresses are
/// not there yet.)
#[btf_tracepoint(function = "inet_sock_set_state")]
fn tp_set_state_child(ctx: BtfTracePointContext) -> u32 {
    stand_in::attend(STATE_CHILD, change(&ctx));
    child_state(&ctx);
    0
}

/// Where `tp_set_state_child` was skipped.
#[btf_tracepoint(function = "inet_sock_set_state")]
fn tp_set_state_child_stand_in(ctx: BtfTracePointContext) -> u32 {
    if stand_in::is_needed(STATE_CHILD, change(&ctx)) {
        child_state(&ctx);
    }
    0
}

#[inline(always)]
fn child_state(ctx: &BtfTracePointContext) {
    if let Some((sk, state::SYN_RECV, state::ESTABLISHED)) = state_change(ctx, SERVE_ENQUEUE) {
        handshake::established(sk);
    }
}

/// Any context: a connect is answered, a socket gives its port back.
#[btf_tracepoint(function = "inet_sock_set_state")]
fn tp_set_state_port(ctx: BtfTracePointContext) -> u32 {
    stand_in::attend(STATE_PORT, change(&ctx));
    port_state(&ctx);
    0
}

/// Where `tp_set_state_port` was skipped.
#[btf_tracepoint(function = "inet_sock_set_state")]
fn tp_set_state_port_stand_in(ctx: BtfTracePointContext) -> u32 {
    if stand_in::is_needed(STATE_PORT, change(&ctx)) {
        port_state(&ctx);
    }
    0
}

#[inline(always)]
fn port_state(ctx: &BtfTracePointContext) {
    if let Some((sk, old, new)) = state_change(ctx, SERVE_CONNECT) {
        match (old, new) {
            (state::SYN_SENT, state::ESTABLISHED) => port::connecting_done(sk),
            (old, state::CLOSE) if old != state::LISTEN => port::closed(sk, old),
            _ => {}
        }
    }
}

/// Which change of which socket this is, in one word: the states go where addresses of sockets are all alike.
#[inline(always)]
fn change(ctx: &BtfTracePointContext) -> u64 {
    let (old, new): (u32, u32) = (ctx.arg(1), ctx.arg(2));
    subject(ctx) ^ u64::from((old ^ (new << 2)) & 0x3f)
}

/// Which socket or packet the event is about. Read as a number: the verifier lets nobody calculate with the pointer that the
/// argument is.
#[inline(always)]
fn subject(ctx: &BtfTracePointContext) -> u64 {
    Probed::read(ctx.as_ptr() as u64, 0)
}

/// `kfree_skb(skb, location, reason, rx_sk)` since 6.11; the reason that matters since 6.15
#[btf_tracepoint(function = "kfree_skb")]
fn tp_kfree_skb(ctx: BtfTracePointContext) -> u32 {
    let overflow = layout!(drop_tcp_listen_overflow);
    if overflow == ABSENT || layout!(params_trace_kfree_skb) != 5 {
        return 0;
    }
    let reason: u32 = ctx.arg(2);
    if reason != overflow {
        return 0;
    }
    // rx_sk may be NULL. Since 6.13 the verifier knows that and wants this test before it is used at all; the releases that
    // did not know have no such reason, and left above.
    let listener: u64 = ctx.arg(3);
    let skb: u64 = ctx.arg(0);
    if listener == 0 {
        return 0;
    }
    handshake::ack_overflowed(Sock::<Probed>::at(listener), Skb::<Probed>::at(skb));
    0
}

/// `kfree_skb(skb, location[, reason[, rx_sk]])`, for all tiers
#[btf_tracepoint(function = "kfree_skb")]
fn tp_handshake_drop(ctx: BtfTracePointContext) -> u32 {
    stand_in::attend(DROP, subject(&ctx));
    dropped(&ctx);
    0
}

/// Where `tp_handshake_drop` was skipped.
#[btf_tracepoint(function = "kfree_skb")]
fn tp_handshake_drop_stand_in(ctx: BtfTracePointContext) -> u32 {
    if stand_in::is_needed(DROP, subject(&ctx)) {
        dropped(&ctx);
    }
    0
}

#[inline(always)]
fn dropped(ctx: &BtfTracePointContext) {
    let location: u64 = ctx.arg(1);
    let params = layout!(params_trace_kfree_skb);
    // The leading context counts.
    let reason: u32 = if params == 4 || params == 5 { ctx.arg(2) } else { 0 };
    drop::dropped(Skb::<Probed>::at(ctx.arg(0)), location, reason);
}

/// `tcp_retransmit_synack(const struct sock *sk, const struct request_sock *req)`, for all tiers
#[btf_tracepoint(function = "tcp_retransmit_synack")]
fn tp_retransmit_synack(ctx: BtfTracePointContext) -> u32 {
    half_open::retransmitted(Request::at(ctx.arg(1)));
    0
}

/// `tcp_retransmit_skb(const struct sock *sk, const struct sk_buff *skb[, int err])`, for all tiers. Up to 6.16 it tells of what
/// was sent; since, also of what could not be sent, which is a loss like any other for the one who waits. But where the last
/// copy still waits in a queue of this host (until a neighbour has answered, for instance), `__tcp_retransmit_skb` sends none
/// (`skb_still_in_host_queue`, EBUSY): none is lost, and `TCPSynRetrans` counts none.
#[btf_tracepoint(function = "tcp_retransmit_skb")]
fn tp_retransmit_skb(ctx: BtfTracePointContext) -> u32 {
    // The leading context counts.
    if layout!(params_trace_tcp_retransmit_skb) == 4 {
        let error: i32 = ctx.arg(2);
        if error == -EBUSY {
            return 0;
        }
    }
    connect::retransmitted(Sock::<Direct>::at(ctx.arg(0)));
    0
}

/// `tcp_receive_reset(struct sock *sk)`, for all tiers
#[btf_tracepoint(function = "tcp_receive_reset")]
fn tp_receive_reset(ctx: BtfTracePointContext) -> u32 {
    stand_in::attend(RESET, subject(&ctx));
    connect::reset(Sock::<Direct>::at(ctx.arg(0)));
    0
}

/// Where `tp_receive_reset` was skipped: a connect that is refused by an RST nobody saw ends like one that ICMP refuses.
#[btf_tracepoint(function = "tcp_receive_reset")]
fn tp_receive_reset_stand_in(ctx: BtfTracePointContext) -> u32 {
    if stand_in::is_needed(RESET, subject(&ctx)) {
        connect::reset(Sock::<Direct>::at(ctx.arg(0)));
    }
    0
}

/// Offset of the first argument in a `sys_enter_*` record, each argument being 8 bytes.
const ARGUMENTS: usize = 16;
/// Offset of the result in a `sys_exit_*` record.
const RESULT: usize = 16;

#[inline(always)]
fn field(ctx: &TracePointContext, offset: usize) -> i64 {
    // SAFETY: within the record of a system-call tracepoint, whose layout is ABI.
    unsafe { ctx.read_at::<i64>(offset) }.unwrap_or(-1)
}

/// `sys_exit_accept` and `sys_exit_accept4`: the wait ends here, a little later than in `inet_csk_accept`
#[tracepoint]
fn tp_exit_accept(ctx: TracePointContext) -> u32 {
    let descriptor = field(&ctx, RESULT);
    if descriptor < 0 {
        if accept::is_failure(descriptor) {
            if let Some(listener) = current::accepting_at() {
                accept::failed(listener, descriptor.unsigned_abs() as u32);
            }
        }
        return 0;
    }
    if let Some(child) = current::socket_of_descriptor(descriptor) {
        if child.is_tcp() {
            accept::accepted_child(child, queued::leave(child.id(), child.remote_port()));
        }
    }
    0
}

/// `sys_enter_listen(int fd, int backlog)`
#[tracepoint]
fn tp_enter_listen(ctx: TracePointContext) -> u32 {
    listen::asked(field(&ctx, ARGUMENTS + 8) as u64);
    0
}

/// `sys_enter_bind(int fd, struct sockaddr *umyaddr, int addrlen)`
#[tracepoint]
fn tp_enter_bind(ctx: TracePointContext) -> u32 {
    let call = Call { first: field(&ctx, ARGUMENTS) as u64, second: field(&ctx, ARGUMENTS + 8) as u64 };
    let _ = CALLS.insert(&CallKey { thread: current::thread(), which: CALL_SYS_BIND }, &call, 0);
    0
}

/// `sys_exit_bind`
#[tracepoint]
fn tp_exit_bind(ctx: TracePointContext) -> u32 {
    let key = CallKey { thread: current::thread(), which: CALL_SYS_BIND };
    let Some(call) = CALLS.get_ptr(&key) else { return 0 };
    // SAFETY: a map value stays readable for the length of a program run.
    let call = unsafe { *call };
    let _ = CALLS.remove(&key);
    let result = field(&ctx, RESULT);
    let Some(sk) = current::socket_of_descriptor(call.first as i64) else { return 0 };
    let family = sk.family();
    if !sk.is_tcp_of_application() || (family != AF_INET && family != AF_INET6) {
        return 0;
    }
    // The address as the program gave it; the kernel has cleared its own copy after a failure.
    let mut asked = [0_u8; 24];
    // SAFETY: the helper writes at most 24 bytes, or zeroes them when the user's memory cannot be read.
    unsafe { bpf_probe_read_user(asked.as_mut_ptr().cast(), 8, call.second as *const _) };
    let asked_family = u16::from_ne_bytes([asked[0], asked[1]]);
    let asked_port = u16::from_be_bytes([asked[2], asked[3]]);
    if result == 0 {
        let port = sk.local_port();
        // With IP_BIND_ADDRESS_NO_PORT connect() will choose it.
        if port != 0 {
            port::bound(sk, port, if asked_port == 0 { HOW_BIND_ANY } else { HOW_BIND });
        }
        return 0;
    }
    let address = if asked_family == AF_INET6 {
        // SAFETY: as above.
        unsafe { bpf_probe_read_user(asked.as_mut_ptr().cast(), 24, call.second as *const _) };
        let mut address = [0; 16];
        address.copy_from_slice(&asked[8..24]);
        address
    } else {
        mapped(u32::from_ne_bytes([asked[4], asked[5], asked[6], asked[7]]))
    };
    let errno = result.unsigned_abs() as u32;
    if result == -EADDRINUSE {
        bind::in_use(sk, asked_port, address, errno, STAGE_BIND);
    } else {
        bind::refused(sk, asked_port, address, errno, STAGE_BIND);
    }
    0
}
