//! kprobe and kretprobe programs, for where fexit cannot attach (arm64 before 6.4, x86 before 6.6 for functions of more
//! than six arguments, functions without BTF). Arguments are untyped: everything is read through `bpf_probe_read_kernel`. Which
//! registers they are in is `kernel/registers.rs`'s affair: `ctx.arg()` and `ctx.ret()` know one architecture only.
//!
//! Where the entry says enough there is no return probe: kretprobes draw on a pool of instances that can run dry.
//!
//! The kernel runs no kprobe's program while another is running on the same CPU (`bpf_prog_active`), and before 6.7 does not
//! even count what it skips. So there is none here on what every connection does in process context, where a packet's
//! program may come in between: taking and giving back ports is seen by BTF tracepoints, which have no such rule.

use aya_ebpf::{
    macros::{kprobe, kretprobe},
    programs::{ProbeContext, RetProbeContext},
};

use tcptrace_common::record::{STAGE_BIND, STAGE_SECURITY};

use crate::{
    handle::{accept, bind, drop, half_open, handshake, listen, queued},
    kernel::{Probed, Request, Skb, Sock, argument, current, result, state, syscall_second_argument},
    maps::{CALL_BIND, CALL_GET_PORT, CALL_LISTEN, CALL_LISTEN_START, CALLS, Call, CallKey, packet},
};

type Socket = Sock<Probed>;
type Packet = Skb<Probed>;

/// Keeps two arguments for the return probe of the same call.
#[inline(always)]
fn enter(which: u64, first: u64, second: u64) {
    let _ = CALLS.insert(&CallKey { thread: current::thread(), which }, &Call { first, second }, 0);
}

/// What [`enter`] kept.
#[inline(always)]
fn leave(which: u64) -> Option<Call> {
    let key = CallKey { thread: current::thread(), which };
    let call = CALLS.get_ptr(&key)?;
    // SAFETY: a map value stays readable for the length of a program run.
    let call = unsafe { *call };
    let _ = CALLS.remove(&key);
    Some(call)
}

/// `__x64_sys_listen(const struct pt_regs *regs)`, `__arm64_sys_listen`
#[kprobe]
fn kprobe_sys_listen(ctx: ProbeContext) -> u32 {
    listen::asked(syscall_second_argument::<Probed>(argument::<0>(&ctx)));
    0
}

/// `int inet_csk_listen_start(struct sock *sk[, int backlog])`
#[kprobe]
fn kprobe_listen_start(ctx: ProbeContext) -> u32 {
    enter(CALL_LISTEN_START, argument::<0>(&ctx), 0);
    0
}
/// Its return.
#[kretprobe]
fn kretprobe_listen_start(ctx: RetProbeContext) -> u32 {
    let Some(call) = leave(CALL_LISTEN_START) else { return 0 };
    if result(&ctx) as i32 == 0 {
        listen::listening(Socket::at(call.first), false);
    }
    0
}

/// `int inet_listen(struct socket *sock, int backlog)`
#[kprobe]
fn kprobe_inet_listen(ctx: ProbeContext) -> u32 {
    enter(CALL_LISTEN, argument::<0>(&ctx), 0);
    0
}
/// Its return.
#[kretprobe]
fn kretprobe_inet_listen(ctx: RetProbeContext) -> u32 {
    let Some(call) = leave(CALL_LISTEN) else { return 0 };
    let sk = Socket::of_socket(call.first);
    match result(&ctx) as i32 {
        0 => listen::listening(sk, true),
        result => bind::listen_failed(sk, result),
    }
    0
}

/// `int inet_bind(struct socket *sock, struct sockaddr *uaddr, int addr_len)` and `inet6_bind`, through proto_ops; `mptcp_bind`,
/// where it passes by them (6.6 and later); before all of these, `security_socket_bind`, with the same arguments
#[kprobe]
fn kprobe_bind(ctx: ProbeContext) -> u32 {
    enter(CALL_BIND, argument::<0>(&ctx), argument::<1>(&ctx));
    0
}
/// The return of the protocols'.
#[kretprobe]
fn kretprobe_bind(ctx: RetProbeContext) -> u32 {
    bind_done(&ctx, STAGE_BIND)
}
/// The return of `security_socket_bind`.
#[kretprobe]
fn kretprobe_security_bind(ctx: RetProbeContext) -> u32 {
    bind_done(&ctx, STAGE_SECURITY)
}

#[inline(always)]
fn bind_done(ctx: &RetProbeContext, stage: u32) -> u32 {
    let Some(call) = leave(CALL_BIND) else { return 0 };
    let result = result(ctx) as i32;
    if result != 0 {
        bind::bind_failed(Socket::of_socket(call.first), call.second, result, stage);
    }
    0
}

/// `void inet_csk_listen_stop(struct sock *sk)`
#[kprobe]
fn kprobe_listen_stop(ctx: ProbeContext) -> u32 {
    listen::closing(Socket::at(argument::<0>(&ctx)));
    0
}

/// `tcp_v4_route_req`, `tcp_v6_route_req`; up to 5.10 `tcp_v4_init_req`, `tcp_v6_init_req`
#[kprobe]
fn kprobe_route_req(_ctx: ProbeContext) -> u32 {
    handshake::passed_queue_checks();
    0
}

/// `int tcp_conn_request(rsk_ops, af_ops, struct sock *sk, struct sk_buff *skb)`
#[kprobe]
fn kprobe_conn_request(ctx: ProbeContext) -> u32 {
    if let Some(packet) = packet() {
        packet.syn_listener = argument::<2>(&ctx);
        packet.syn_skb = argument::<3>(&ctx);
    }
    0
}
/// Its return.
#[kretprobe]
fn kretprobe_conn_request(_ctx: RetProbeContext) -> u32 {
    let Some(packet) = packet() else { return 0 };
    let (listener, skb) = (packet.syn_listener, packet.syn_skb);
    packet.syn_listener = 0;
    if listener != 0 {
        handshake::syn_handled(Socket::at(listener), Packet::at(skb));
    }
    0
}

/// `tcp_v4_syn_recv_sock(sk, skb, …)`
#[kprobe]
fn kprobe_syn_recv_v4(ctx: ProbeContext) -> u32 {
    if let Some(packet) = packet() {
        packet.ack4_listener = argument::<0>(&ctx);
        packet.ack4_skb = argument::<1>(&ctx);
        packet.ack4_request = argument::<2>(&ctx);
    }
    0
}
/// Its return.
#[kretprobe]
fn kretprobe_syn_recv_v4(ctx: RetProbeContext) -> u32 {
    let Some(packet) = packet() else { return 0 };
    let (listener, skb) = (packet.ack4_listener, packet.ack4_skb);
    packet.ack4_listener = 0;
    if listener != 0 {
        handshake::child_made(Socket::at(listener), Packet::at(skb), packet.ack4_request, result(&ctx));
    }
    0
}

/// `tcp_v6_syn_recv_sock(sk, skb, …)`
#[kprobe]
fn kprobe_syn_recv_v6(ctx: ProbeContext) -> u32 {
    if let Some(packet) = packet() {
        packet.ack6_listener = argument::<0>(&ctx);
        packet.ack6_skb = argument::<1>(&ctx);
        packet.ack6_request = argument::<2>(&ctx);
    }
    0
}
/// Its return. For a v4-mapped peer it called the IPv4 one, which has reported.
#[kretprobe]
fn kretprobe_syn_recv_v6(ctx: RetProbeContext) -> u32 {
    let Some(packet) = packet() else { return 0 };
    let (listener, skb) = (packet.ack6_listener, Packet::at(packet.ack6_skb));
    packet.ack6_listener = 0;
    if listener != 0 && !skb.is_ipv4() {
        handshake::child_made(Socket::at(listener), skb, packet.ack6_request, result(&ctx));
    }
    0
}

/// `void inet_csk_prepare_forced_close(struct sock *sk)`
#[kprobe]
fn kprobe_forced_close(_ctx: ProbeContext) -> u32 {
    handshake::child_abandoned();
    0
}

/// `inet_csk_complete_hashdance(sk, child, req, bool own_req)`: it enqueues exactly if `own_req` and the listener still
/// listens, both known at entry.
#[kprobe]
fn kprobe_hashdance(ctx: ProbeContext) -> u32 {
    let sk = Socket::at(argument::<0>(&ctx));
    if argument::<3>(&ctx) & 0xff != 0 && sk.state() == state::LISTEN {
        handshake::enqueued(sk, Socket::at(argument::<1>(&ctx)), Request::at(argument::<2>(&ctx)), false);
    } else {
        handshake::not_enqueued(sk, argument::<1>(&ctx));
    }
    0
}

/// `inet_csk_reqsk_queue_add(sk, req, child)`: it enqueues exactly if the listener still listens.
#[kprobe]
fn kprobe_queue_add(ctx: ProbeContext) -> u32 {
    let sk = Socket::at(argument::<0>(&ctx));
    if sk.state() == state::LISTEN {
        handshake::enqueued(sk, Socket::at(argument::<2>(&ctx)), Request::at(argument::<1>(&ctx)), false);
    } else {
        handshake::not_enqueued(sk, argument::<2>(&ctx));
    }
    0
}

/// `security_sock_graft(struct sock *sk, struct socket *parent)`: `sock_graft()` calls it from inet_accept() in the
/// accepting task with the child. A return probe on inet_csk_accept would hold one instance for each thread that blocks in
/// it. Other families graft too: what counts is a child that was seen entering an accept queue.
#[kprobe]
fn kprobe_sock_graft(ctx: ProbeContext) -> u32 {
    // An application of MPTCP gets the connection, not the subflow that was queued.
    let child = Socket::at(argument::<0>(&ctx)).first_subflow();
    let queued = queued::leave(child.id(), child.remote_port());
    if queued.listener != 0 {
        accept::accepted(Socket::at(queued.listener), child, queued);
    }
    0
}

/// `int alloc_fd(unsigned start, unsigned end, unsigned flags)`, up to 5.10 `__alloc_fd` of four arguments: gives accept() its
/// descriptor before it waits. A return probe on accept() itself would hold one instance for each thread that blocks in it.
#[kretprobe]
fn kretprobe_alloc_fd(ctx: RetProbeContext) -> u32 {
    let result = result(&ctx) as i32;
    if result >= 0 {
        return 0;
    }
    if accept::is_failure(i64::from(result)) {
        if let Some(listener) = current::accepting_at() {
            accept::failed(listener, result.unsigned_abs());
        }
    }
    0
}

/// `int inet_csk_get_port(struct sock *sk, unsigned short snum)`
#[kprobe]
fn kprobe_get_port(ctx: ProbeContext) -> u32 {
    enter(CALL_GET_PORT, argument::<0>(&ctx), argument::<1>(&ctx));
    0
}
/// Its return.
#[kretprobe]
fn kretprobe_get_port(ctx: RetProbeContext) -> u32 {
    let Some(call) = leave(CALL_GET_PORT) else { return 0 };
    bind::got_port(Socket::at(call.first), call.second as u16, result(&ctx) as i32);
    0
}

/// `cookie_v4_init_sequence` and `cookie_v6_init_sequence`
#[kprobe]
fn kprobe_cookie(_ctx: ProbeContext) -> u32 {
    handshake::cookie_made();
    0
}

/// Return of `struct dst_entry *tcp_v4_route_req(…)`, `tcp_v6_route_req`
#[kretprobe]
fn kretprobe_route_req(ctx: RetProbeContext) -> u32 {
    if result(&ctx) == 0 {
        handshake::no_way_back();
    }
    0
}

/// Return of `bool tcp_peer_is_proven(struct request_sock *req, struct dst_entry *dst)`
#[kretprobe]
fn kretprobe_peer_is_proven(ctx: RetProbeContext) -> u32 {
    if result(&ctx) as u8 == 0 {
        handshake::peer_not_proven();
    }
    0
}

/// `void reqsk_timer_handler(struct timer_list *t)`
#[kprobe]
fn kprobe_reqsk_timer(ctx: ProbeContext) -> u32 {
    half_open::timer_runs_out(argument::<0>(&ctx));
    0
}
/// Its return.
#[kretprobe]
fn kretprobe_reqsk_timer(_ctx: RetProbeContext) -> u32 {
    half_open::timer_ran_out();
    0
}

/// `inet_csk_reqsk_queue_drop(struct sock *sk, struct request_sock *req)`
#[kprobe]
fn kprobe_queue_drop(ctx: ProbeContext) -> u32 {
    half_open::dropped(Request::at(argument::<1>(&ctx)));
    0
}

/// `void inet_csk_reqsk_queue_drop_and_put(struct sock *sk, struct request_sock *req)`
#[kprobe]
fn kprobe_queue_drop_and_put(ctx: ProbeContext) -> u32 {
    half_open::dropped_and_put(Request::at(argument::<1>(&ctx)));
    0
}

/// `int tcp_v4_err(struct sk_buff *skb, u32 info)`
#[kprobe]
fn kprobe_icmp_v4(ctx: ProbeContext) -> u32 {
    half_open::icmp_error(Packet::at(argument::<0>(&ctx)).icmp_type());
    0
}

/// `int tcp_v6_err(struct sk_buff *skb, struct inet6_skb_parm *opt, u8 type, u8 code, int offset, __be32 info)`
#[kprobe]
fn kprobe_icmp_v6(ctx: ProbeContext) -> u32 {
    half_open::icmp_error(u16::from_be_bytes([argument::<2>(&ctx) as u8, argument::<3>(&ctx) as u8]));
    0
}

/// Return of either.
#[kretprobe]
fn kretprobe_icmp(_ctx: RetProbeContext) -> u32 {
    half_open::icmp_error_handled();
    0
}

/// `cookie_v4_check(struct sock *sk, struct sk_buff *skb)` and `cookie_v6_check`, likewise
#[kprobe]
fn kprobe_cookie_check(ctx: ProbeContext) -> u32 {
    if let Some(packet) = packet() {
        packet.cookie_listener = argument::<0>(&ctx);
        packet.cookie_skb = argument::<1>(&ctx);
    }
    0
}
/// Their return.
#[kretprobe]
fn kretprobe_cookie_check(ctx: RetProbeContext) -> u32 {
    let Some(packet) = packet() else { return 0 };
    let (listener, skb) = (packet.cookie_listener, packet.cookie_skb);
    packet.cookie_listener = 0;
    if listener != 0 {
        handshake::cookie_checked(Socket::at(listener), Packet::at(skb), result(&ctx));
    }
    0
}

/// `tcp_v4_send_reset(sk, skb)` and `tcp_v6_send_reset`
#[kprobe]
fn kprobe_send_reset(ctx: ProbeContext) -> u32 {
    drop::reset_sent(argument::<0>(&ctx), Packet::at(argument::<1>(&ctx)));
    0
}
