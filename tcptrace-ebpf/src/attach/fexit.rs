//! fentry and fexit programs: arguments are typed, the return value stands behind the last argument.
//!
//! `ctx` may only be indexed by constants, hence [`result_after`]'s branches on the number of parameters. The helper that
//! would find the return value by itself (`bpf_get_func_ret`) needs 5.17.

use aya_ebpf::{
    EbpfContext as _,
    macros::{fentry, fexit},
    programs::{FEntryContext, FExitContext},
};
use tcptrace_common::record::{STAGE_BIND, STAGE_SECURITY};

use crate::{
    handle::{accept, bind, connect, drop, half_open, handshake, listen, port, port_use, queued},
    kernel::{
        Direct, Probed, Request, Skb, Sock, current, is_mapped, layout, socket_address,
        syscall_second_argument,
    },
};

type Socket = Sock<Direct>;

const EADDRNOTAVAIL: i32 = 99;
type Packet = Skb<Direct>;

/// The slot of `ctx` at `INDEX`. In assembly because the compiler would merge two such loads in two branches into one at a
/// chosen offset, which no verifier accepts.
#[inline(always)]
fn slot<const INDEX: usize>(ctx: &FExitContext) -> u64 {
    let value: u64;
    // SAFETY: the verifier checks that the traced function has such a slot, on the one branch that is not pruned.
    unsafe {
        core::arch::asm!(
            "{value} = *(u64 *)({ctx} + {offset})",
            value = out(reg) value,
            ctx = in(reg) ctx.as_ptr(),
            offset = const INDEX * 8,
            options(nostack, readonly),
        );
    }
    value
}

/// Return value of a function that has `params` parameters on this kernel, one of two counts.
#[inline(always)]
fn result_after<const FEW: usize, const MANY: usize>(ctx: &FExitContext, params: u32) -> u64 {
    if params == MANY as u32 { slot::<MANY>(ctx) } else { slot::<FEW>(ctx) }
}

/// fentry `__x64_sys_listen(const struct pt_regs *regs)`
#[fentry]
fn fentry_sys_listen(ctx: FEntryContext) -> u32 {
    listen::asked(syscall_second_argument::<Direct>(ctx.arg::<u64>(0)));
    0
}

/// fexit `int inet_csk_listen_start(struct sock *sk, int backlog)` ≤ 5.16, `(struct sock *sk)` since
#[fexit]
fn fexit_listen_start(ctx: FExitContext) -> u32 {
    if result_after::<1, 2>(&ctx, layout!(params_inet_csk_listen_start)) as i32 == 0 {
        listen::listening(Socket::at(ctx.arg(0)), false);
    }
    0
}

/// fexit `int inet_listen(struct socket *sock, int backlog)`
#[fexit]
fn fexit_inet_listen(ctx: FExitContext) -> u32 {
    let result: i32 = ctx.arg(2);
    let sk = Socket::of_socket(ctx.arg(0));
    if result == 0 {
        listen::listening(sk, true);
    } else {
        bind::listen_failed(sk, result);
    }
    0
}

/// fexit `int inet_bind(struct socket *sock, struct sockaddr *uaddr, int addr_len)`, through proto_ops
#[fexit]
fn fexit_bind_v4(ctx: FExitContext) -> u32 {
    bind_done(&ctx, STAGE_BIND)
}

/// fexit `inet6_bind`, likewise
#[fexit]
fn fexit_bind_v6(ctx: FExitContext) -> u32 {
    bind_done(&ctx, STAGE_BIND)
}

/// fexit `mptcp_bind`, likewise, where it passes by `inet_bind` (6.6 and later)
#[fexit]
fn fexit_bind_mptcp(ctx: FExitContext) -> u32 {
    bind_done(&ctx, STAGE_BIND)
}

/// fexit `int security_socket_bind(struct socket *sock, struct sockaddr *address, int addrlen)`, called for each bind() before
/// the protocol's
#[fexit]
fn fexit_security_bind(ctx: FExitContext) -> u32 {
    bind_done(&ctx, STAGE_SECURITY)
}

#[inline(always)]
fn bind_done(ctx: &FExitContext, stage: u32) -> u32 {
    let result: i32 = ctx.arg(3);
    if result != 0 {
        bind::bind_failed(Socket::of_socket(ctx.arg(0)), slot::<1>(ctx), result, stage);
    }
    0
}

/// fentry `void inet_csk_listen_stop(struct sock *sk)`
#[fentry]
fn fentry_listen_stop(ctx: FEntryContext) -> u32 {
    listen::closing(Socket::at(ctx.arg(0)));
    0
}

/// fentry `tcp_v4_route_req`; up to 5.10 `tcp_v4_init_req`, which stands before the LSM check as the other does since
#[fentry]
fn fentry_route_req_v4(_ctx: FEntryContext) -> u32 {
    handshake::passed_queue_checks();
    0
}

/// fentry `tcp_v6_route_req`; up to 5.10 `tcp_v6_init_req`
#[fentry]
fn fentry_route_req_v6(_ctx: FEntryContext) -> u32 {
    handshake::passed_queue_checks();
    0
}

/// fexit `int tcp_conn_request(rsk_ops, af_ops, struct sock *sk, struct sk_buff *skb)`
#[fexit]
fn fexit_conn_request(ctx: FExitContext) -> u32 {
    handshake::syn_handled(Socket::at(ctx.arg(2)), Packet::at(ctx.arg(3)));
    0
}

/// fexit `struct sock *tcp_v4_syn_recv_sock(sk, skb, req, dst, req_unhash, own_req[, opt_child_init])`
#[fexit]
fn fexit_syn_recv_v4(ctx: FExitContext) -> u32 {
    let child = result_after::<6, 7>(&ctx, layout!(params_tcp_v4_syn_recv_sock));
    handshake::child_made(Socket::at(ctx.arg(0)), Packet::at(ctx.arg(1)), ctx.arg(2), child);
    0
}

/// fexit `tcp_v6_syn_recv_sock`, likewise. For a v4-mapped peer it calls the IPv4 one, which has reported.
#[fexit]
fn fexit_syn_recv_v6(ctx: FExitContext) -> u32 {
    let skb = Packet::at(ctx.arg(1));
    if skb.is_ipv4() {
        return 0;
    }
    let child = result_after::<6, 7>(&ctx, layout!(params_tcp_v6_syn_recv_sock));
    handshake::child_made(Socket::at(ctx.arg(0)), skb, ctx.arg(2), child);
    0
}

/// fentry `void inet_csk_prepare_forced_close(struct sock *sk)`
#[fentry]
fn fentry_forced_close(_ctx: FEntryContext) -> u32 {
    handshake::child_abandoned();
    0
}

/// fexit `struct sock *inet_csk_complete_hashdance(struct sock *sk, struct sock *child, struct request_sock *req, bool own_req)`
#[fexit]
fn fexit_hashdance(ctx: FExitContext) -> u32 {
    let queued: u64 = ctx.arg(4);
    if queued != 0 {
        handshake::enqueued(Socket::at(ctx.arg(0)), Socket::at(ctx.arg(1)), Request::at(ctx.arg(2)), true);
    } else {
        handshake::not_enqueued(Socket::at(ctx.arg(0)), ctx.arg(1));
    }
    0
}

/// fexit `struct sock *inet_csk_reqsk_queue_add(struct sock *sk, struct request_sock *req, struct sock *child)`
#[fexit]
fn fexit_queue_add(ctx: FExitContext) -> u32 {
    let queued: u64 = ctx.arg(3);
    if queued != 0 {
        handshake::enqueued(Socket::at(ctx.arg(0)), Socket::at(ctx.arg(2)), Request::at(ctx.arg(1)), true);
    } else {
        handshake::not_enqueued(Socket::at(ctx.arg(0)), ctx.arg(2));
    }
    0
}

/// fexit `struct sock *inet_csk_accept(sk, flags, err, kern)` ≤ 6.9, `(sk, struct proto_accept_arg *)` since
#[fexit]
fn fexit_accept(ctx: FExitContext) -> u32 {
    let child = result_after::<2, 4>(&ctx, layout!(params_inet_csk_accept));
    if child != 0 {
        let (sk, child) = (Socket::at(ctx.arg(0)), Socket::at(child));
        accept::accepted(sk, child, queued::leave(child.id(), child.remote_port()).at(sk.id()));
    }
    0
}

/// fexit `int __sys_accept4(int fd, struct sockaddr __user *, int __user *, int flags)`: accept() and accept4() of every
/// calling convention, not of io_uring
#[fexit]
fn fexit_sys_accept(ctx: FExitContext) -> u32 {
    let result: i32 = ctx.arg(4);
    if accept::is_failure(i64::from(result)) {
        let descriptor: i32 = ctx.arg(0);
        if let Some(listener) = current::socket_of_descriptor(i64::from(descriptor)) {
            accept::failed(listener, result.unsigned_abs());
        }
    }
    0
}

/// fexit `int inet_csk_get_port(struct sock *sk, unsigned short snum)`
#[fexit]
fn fexit_get_port(ctx: FExitContext) -> u32 {
    bind::got_port(Socket::at(ctx.arg(0)), ctx.arg(1), ctx.arg(2));
    0
}

/// fexit `int inet_hash_connect(struct inet_timewait_death_row *, struct sock *sk)`
#[fexit]
fn fexit_hash_connect_v4(ctx: FExitContext) -> u32 {
    port_chosen(Socket::at(ctx.arg(1)), ctx.arg(2));
    0
}

/// fexit `int inet6_hash_connect(struct inet_timewait_death_row *, struct sock *sk)`
#[fexit]
fn fexit_hash_connect_v6(ctx: FExitContext) -> u32 {
    port_chosen(Socket::at(ctx.arg(1)), ctx.arg(2));
    0
}

/// connect() got its port, or (-EADDRNOTAVAIL) none.
#[inline(always)]
fn port_chosen(sk: Socket, result: i32) {
    if result == 0 {
        port::connected(sk);
    } else if result == -EADDRNOTAVAIL {
        port_use::refused(sk);
    }
}

/// fentry `void inet_put_port(struct sock *sk)`: at entry the port and the old state are still there
#[fentry]
fn fentry_put_port(ctx: FEntryContext) -> u32 {
    let sk = Socket::at(ctx.arg(0));
    port::released(sk, sk.ports(), || sk.state());
    0
}

/// fentry `__u32 cookie_v4_init_sequence(const struct sk_buff *skb, __u16 *mssp)`, through af_ops
#[fentry]
fn fentry_cookie_v4(_ctx: FEntryContext) -> u32 {
    handshake::cookie_made();
    0
}

/// fentry `cookie_v6_init_sequence`, likewise
#[fentry]
fn fentry_cookie_v6(_ctx: FEntryContext) -> u32 {
    handshake::cookie_made();
    0
}

/// What `tcp_v4_route_req` or `tcp_v6_route_req` returned, with `params` parameters on this kernel.
#[inline(always)]
fn route_of(ctx: &FExitContext, params: u32) -> u64 {
    if params == 3 { slot::<3>(ctx) } else { result_after::<4, 5>(ctx, params) }
}

/// fexit `struct dst_entry *tcp_v4_route_req(…)`
#[fexit]
fn fexit_route_req_v4(ctx: FExitContext) -> u32 {
    if route_of(&ctx, layout!(params_tcp_v4_route_req)) == 0 {
        handshake::no_way_back();
    }
    0
}

/// fexit `struct dst_entry *tcp_v6_route_req(…)`
#[fexit]
fn fexit_route_req_v6(ctx: FExitContext) -> u32 {
    if route_of(&ctx, layout!(params_tcp_v6_route_req)) == 0 {
        handshake::no_way_back();
    }
    0
}

/// fexit `bool tcp_peer_is_proven(struct request_sock *req, struct dst_entry *dst)`
#[fexit]
fn fexit_peer_is_proven(ctx: FExitContext) -> u32 {
    if slot::<2>(&ctx) as u8 == 0 {
        handshake::peer_not_proven();
    }
    0
}

/// fentry `void reqsk_timer_handler(struct timer_list *t)`: static, but its address is taken, so it is never inlined
#[fentry]
fn fentry_reqsk_timer(ctx: FEntryContext) -> u32 {
    half_open::timer_runs_out(ctx.arg(0));
    0
}

/// fexit of the same
#[fexit]
fn fexit_reqsk_timer(_ctx: FExitContext) -> u32 {
    half_open::timer_ran_out();
    0
}

/// fentry `inet_csk_reqsk_queue_drop(struct sock *sk, struct request_sock *req)`; returns nothing up to 5.11, bool since
#[fentry]
fn fentry_queue_drop(ctx: FEntryContext) -> u32 {
    half_open::dropped(Request::at(ctx.arg(1)));
    0
}

/// fentry `void inet_csk_reqsk_queue_drop_and_put(struct sock *sk, struct request_sock *req)`
#[fentry]
fn fentry_queue_drop_and_put(ctx: FEntryContext) -> u32 {
    half_open::dropped_and_put(Request::at(ctx.arg(1)));
    0
}

/// fentry `int tcp_v4_err(struct sk_buff *skb, u32 info)`, through the protocol's `err_handler`
#[fentry]
fn fentry_icmp_v4(ctx: FEntryContext) -> u32 {
    half_open::icmp_error(Packet::at(ctx.arg(0)).icmp_type());
    0
}

/// fexit of the same
#[fexit]
fn fexit_icmp_v4(_ctx: FExitContext) -> u32 {
    half_open::icmp_error_handled();
    0
}

/// fentry `int tcp_v6_err(struct sk_buff *skb, struct inet6_skb_parm *opt, u8 type, u8 code, int offset, __be32 info)`
#[fentry]
fn fentry_icmp_v6(ctx: FEntryContext) -> u32 {
    let (kind, code): (u8, u8) = (ctx.arg(2), ctx.arg(3));
    half_open::icmp_error(u16::from_be_bytes([kind, code]));
    0
}

/// fexit of the same
#[fexit]
fn fexit_icmp_v6(_ctx: FExitContext) -> u32 {
    half_open::icmp_error_handled();
    0
}

/// fexit `struct sock *cookie_v4_check(struct sock *sk, struct sk_buff *skb)`
#[fexit]
fn fexit_cookie_check_v4(ctx: FExitContext) -> u32 {
    handshake::cookie_checked(Socket::at(ctx.arg(0)), Packet::at(ctx.arg(1)), ctx.arg(2));
    0
}

/// fexit `struct sock *cookie_v6_check(struct sock *sk, struct sk_buff *skb)`
#[fexit]
fn fexit_cookie_check_v6(ctx: FExitContext) -> u32 {
    handshake::cookie_checked(Socket::at(ctx.arg(0)), Packet::at(ctx.arg(1)), ctx.arg(2));
    0
}

/// fexit `int tcp_v4_connect(struct sock *sk, struct sockaddr *uaddr, int addr_len)`
#[fexit]
fn fexit_connect_v4(ctx: FExitContext) -> u32 {
    failed_at_once(&ctx, true);
    0
}

/// fexit `int tcp_v6_connect(struct sock *sk, struct sockaddr *uaddr, int addr_len)`. For a mapped address it calls the IPv4
/// one, which has reported.
#[fexit]
fn fexit_connect_v6(ctx: FExitContext) -> u32 {
    failed_at_once(&ctx, false);
    0
}

#[inline(always)]
fn failed_at_once(ctx: &FExitContext, mapped_too: bool) {
    let result: i32 = ctx.arg(3);
    if result < 0 {
        if let Some((peer, port)) = socket_address(slot::<1>(ctx)) {
            if mapped_too || !is_mapped(&peer) {
                connect::failed_at_once(Socket::at(ctx.arg(0)), peer, port, result.unsigned_abs());
            }
        }
    }
}

/// fentry `void security_inet_conn_established(struct sock *sk, struct sk_buff *skb)`: tcp_finish_connect() calls it
#[fentry]
fn fentry_conn_established(ctx: FEntryContext) -> u32 {
    connect::answered(Socket::at(ctx.arg(0)));
    0
}

/// fentry `void tcp_v4_send_reset(const struct sock *sk, struct sk_buff *skb[, enum sk_rst_reason reason])`
#[fentry]
fn fentry_send_reset_v4(ctx: FEntryContext) -> u32 {
    drop::reset_sent(ctx.arg(0), Skb::<Probed>::at(ctx.arg(1)));
    0
}

/// fentry `tcp_v6_send_reset`, likewise
#[fentry]
fn fentry_send_reset_v6(ctx: FEntryContext) -> u32 {
    drop::reset_sent(ctx.arg(0), Skb::<Probed>::at(ctx.arg(1)));
    0
}
