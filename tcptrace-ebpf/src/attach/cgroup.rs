//! Programs that the tracer never attaches: `tcptrace rehearse bind-refused --variant cgroup-program` has them deny what a unit's
//! `SocketBindDeny=` would.

use aya_ebpf::{macros::cgroup_sock_addr, programs::SockAddrContext};

/// Denies bind(): EPERM
#[cgroup_sock_addr(bind4)]
fn deny_bind_v4(_ctx: SockAddrContext) -> i32 {
    0
}

/// Likewise
#[cgroup_sock_addr(bind6)]
fn deny_bind_v6(_ctx: SockAddrContext) -> i32 {
    0
}
