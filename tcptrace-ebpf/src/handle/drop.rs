//! Packets of handshakes that are dropped on their way, and SYNs that find no listener. Runs for every packet that the host
//! drops, so what is no handshake leaves at once.

use aya_ebpf::helpers::bpf_ktime_get_ns;
use tcptrace_common::{
    ABSENT,
    drop::{
        DIRECTION_IN, DIRECTION_OUT, DROPS_STREAMED, DropKey, DropTotals, HANDSHAKE, PACKET_ACK, PACKET_SYN,
        PACKET_SYN_ACK,
    },
    record::{HandshakeDrop, NoListener},
    wire::{AF_INET, AF_INET6, Endpoints},
};

use crate::{
    emit::{self, add, add32},
    filter::wants,
    handle::connect,
    kernel::{Probed, Skb, Sock, layout, state},
    maps::DROPS,
};

/// State of a half-open request, as sockets have it (`TCP_NEW_SYN_RECV`).
const NEW_SYN_RECV: u8 = 12;

const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;

/// `kfree_skb`: a packet was dropped at `location` for `reason` (0 where the kernel does not say).
#[inline(always)]
pub fn dropped(skb: Skb<Probed>, location: u64, reason: u32) {
    let tcp = skb.tcp();
    let packet = match tcp.flags & (SYN | ACK | RST | FIN) {
        SYN => PACKET_SYN,
        flags if flags == SYN | ACK => PACKET_SYN_ACK,
        ACK if tcp.payload == 0 => PACKET_ACK,
        _ => return,
    };
    // Kernels that name the reason of what matters here have no word for ACKs that sockets free after reading them. A SYN
    // or SYN-ACK without a reason was dropped all the same: by a netfilter queue that no program reads, for one.
    if layout!(drop_netfilter) != ABSENT && reason == layout!(drop_not_specified) && packet == PACKET_ACK {
        return;
    }
    let no_socket = layout!(drop_no_socket);
    if no_socket != ABSENT && reason == no_socket {
        // A SYN-ACK or ACK without a socket belongs to a connection that was called off.
        if packet == PACKET_SYN && skb.arrived_by() != 0 {
            no_listener(skb);
        }
        return;
    }
    report(skb, packet, location, reason);
}

/// Counts one more of `key`; the count, and 0 if it is not to be streamed.
#[inline(always)]
fn count(key: &DropKey, now: u64) -> u64 {
    if DROPS.get_ptr_mut(key).is_none() {
        let fresh = DropTotals { count: 0, window_ns: now, streamed: 0, pad: 0 };
        // BPF_NOEXIST: another CPU may have been quicker.
        let _ = DROPS.insert(key, &fresh, 1);
    }
    let Some(totals) = DROPS.get_ptr_mut(key) else {
        emit::lost(0);
        return 0;
    };
    // SAFETY: members of a map value, which stays readable for the length of a program run.
    unsafe {
        add(&raw mut (*totals).count, 1);
        if now.wrapping_sub((*totals).window_ns) > 1_000_000_000 {
            (*totals).window_ns = now;
            (*totals).streamed = 0;
        }
        if (*totals).streamed >= DROPS_STREAMED {
            return 0;
        }
        add32(&raw mut (*totals).streamed, 1);
        (*totals).count
    }
}

/// The ends of a packet, the local one being that on the side of `direction`.
#[inline(always)]
fn fill(to: &mut Endpoints, skb: Skb<Probed>, direction: u8, netns: u32) {
    let segment = skb.segment_by_network_header();
    let (local, remote) = if direction == DIRECTION_OUT {
        ((segment.source, segment.source_port), (segment.destination, segment.destination_port))
    } else {
        ((segment.destination, segment.destination_port), (segment.source, segment.source_port))
    };
    to.local = local.0;
    to.local_port = local.1;
    to.remote = remote.0;
    to.remote_port = remote.1;
    to.family = if skb.is_ipv4() { AF_INET } else { AF_INET6 };
    to.netns = netns;
    to.device = skb.arrived_by();
}

#[inline(always)]
fn report(skb: Skb<Probed>, packet: u8, location: u64, reason: u32) {
    let netns = skb.netns();
    let direction = if skb.arrived_by() == 0 { DIRECTION_OUT } else { DIRECTION_IN };
    let segment = skb.segment_by_network_header();
    let (source, destination) = (segment.source_port, segment.destination_port);
    if !wants(netns, source, destination) {
        return;
    }
    // SAFETY: a helper without arguments.
    let now = unsafe { bpf_ktime_get_ns() };
    let port = if packet == PACKET_SYN_ACK { source } else { destination };
    let key = DropKey { location, netns, reason, port, packet, direction, pad: 0 };
    let total = count(&key, now);
    if total == 0 {
        return;
    }
    let Some(mut record) = emit::reserve::<HandshakeDrop>() else { return };
    fill(&mut record.endpoints, skb, direction, netns);
    let sk = Sock::<Probed>::at(skb.socket());
    let mut flags = 0;
    if packet != PACKET_ACK {
        flags |= HANDSHAKE;
    }
    if sk.id() != 0 {
        let state = sk.state();
        record.sk = sk.id();
        if packet == PACKET_ACK && (state == NEW_SYN_RECV || is_fresh(sk, state)) {
            flags |= HANDSHAKE;
        }
        if packet == PACKET_SYN && state == state::SYN_SENT {
            connect::fill_task(sk, &mut record.task);
        }
    }
    record.location = location;
    record.input = skb.destined_input();
    record.reason = reason;
    record.packet = u32::from(packet);
    record.direction = u32::from(direction);
    record.flags = flags;
    record.total = total;
    record.submit();
}

/// Whether a connection has carried no data in either direction: its ACKs are those of the handshake.
#[inline(always)]
fn is_fresh(sk: Sock<Probed>, state: u8) -> bool {
    state == state::ESTABLISHED && sk.is_unused()
}

/// A SYN came for a port that nobody listens on; an RST answers it.
#[inline(always)]
pub fn no_listener(skb: Skb<Probed>) {
    if !skb.is_for_this_host() {
        return;
    }
    let netns = skb.netns();
    let segment = skb.segment_by_network_header();
    let port = segment.destination_port;
    if !wants(netns, port, segment.source_port) {
        return;
    }
    // SAFETY: a helper without arguments.
    let now = unsafe { bpf_ktime_get_ns() };
    let key = DropKey {
        location: 0,
        netns,
        reason: u32::MAX,
        port,
        packet: PACKET_SYN,
        direction: DIRECTION_IN,
        pad: 0,
    };
    let total = count(&key, now);
    if total == 0 {
        return;
    }
    let Some(mut record) = emit::reserve::<NoListener>() else { return };
    fill(&mut record.endpoints, skb, DIRECTION_IN, netns);
    record.total = total;
    record.submit();
}

/// `tcp_v4_send_reset(sk, skb)`, `tcp_v6_send_reset`: where `kfree_skb` has no reason that tells.
#[inline(always)]
pub fn reset_sent(sk: u64, skb: Skb<Probed>) {
    if sk != 0 {
        return;
    }
    let tcp = skb.tcp();
    if tcp.flags & (SYN | ACK | RST | FIN) == SYN {
        no_listener(skb);
    }
}
