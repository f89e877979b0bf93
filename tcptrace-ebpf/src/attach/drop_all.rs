//! Programs that drop packets, for rehearsals: what a unit's IP filter does to its sockets, and what an XDP program does before
//! the rest of the kernel sees a packet.

use aya_ebpf::{
    bindings::xdp_action,
    macros::{cgroup_skb, xdp},
    programs::{SkBuffContext, XdpContext},
};

/// Every packet of the control group's sockets in that direction.
#[cgroup_skb]
fn drop_packets(_ctx: SkBuffContext) -> i32 {
    0
}

/// Every TCP segment that comes in by the device.
#[xdp]
fn drop_segments(ctx: XdpContext) -> u32 {
    const ETHERNET: usize = 14;
    const IPV4: u16 = 0x0800_u16.to_be();
    const IPV6: u16 = 0x86dd_u16.to_be();
    const TCP: u8 = 6;
    let (start, end) = (ctx.data(), ctx.data_end());
    if start + ETHERNET + 20 > end {
        return xdp_action::XDP_PASS;
    }
    // SAFETY: compared with the packet's end above.
    let (kind, v4, v6) = unsafe {
        (
            core::ptr::read_unaligned((start + 12) as *const u16),
            *((start + ETHERNET + 9) as *const u8),
            *((start + ETHERNET + 6) as *const u8),
        )
    };
    let is_tcp = (kind == IPV4 && v4 == TCP) || (kind == IPV6 && v6 == TCP);
    if is_tcp { xdp_action::XDP_DROP } else { xdp_action::XDP_PASS }
}
