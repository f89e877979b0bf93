//! Addresses, of which IPv4 ones are mapped into IPv6; and socket addresses.

use tcptrace_common::wire::{AF_INET, AF_INET6};

use super::{Access as _, Probed};

/// An IPv4 address (be32 as loaded) as an IPv4-mapped IPv6 address.
#[inline(always)]
pub fn mapped(v4: u32) -> [u8; 16] {
    bytes(mapped_words(v4))
}

/// The same, as two words in memory order.
#[inline(always)]
pub(super) fn mapped_words(v4: u32) -> [u64; 2] {
    [0, u64::from(0xffff_u32.to_be()) | u64::from(v4) << 32]
}

#[inline(always)]
pub(super) fn bytes(words: [u64; 2]) -> [u8; 16] {
    // SAFETY: two words are sixteen bytes, and any bytes are valid.
    unsafe { core::mem::transmute(words) }
}

/// Whether an address is an IPv4 address mapped into IPv6.
#[inline(always)]
pub fn is_mapped(address: &[u8; 16]) -> bool {
    address[..10] == [0; 10] && address[10] == 0xff && address[11] == 0xff
}

/// Where a `struct sockaddr` in kernel memory points to: address and port, for the families of TCP.
#[inline(always)]
pub fn socket_address(at: u64) -> Option<([u8; 16], u16)> {
    // struct sockaddr_in and sockaddr_in6: part of the system-call interface.
    let [family, port]: [u16; 2] = Probed::read(at, 0);
    let address = match family {
        AF_INET => mapped(Probed::read(at, 4)),
        AF_INET6 => Probed::read(at, 8),
        _ => return None,
    };
    Some((address, u16::from_be(port)))
}
