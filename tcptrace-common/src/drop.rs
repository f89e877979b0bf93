//! Packets of handshakes that this host drops on their way, before any socket (or the lack of one) decides about them.

/// A SYN.
pub const PACKET_SYN: u8 = 1;
/// A SYN-ACK.
pub const PACKET_SYN_ACK: u8 = 2;
/// An ACK without data; whether it is a handshake's last, [`HANDSHAKE`] says where that can be seen.
pub const PACKET_ACK: u8 = 3;

/// It came in by a device: it is for this host, or to be forwarded.
pub const DIRECTION_IN: u8 = 1;
/// It was made here.
pub const DIRECTION_OUT: u8 = 2;

/// It is certain that it belongs to a handshake.
pub const HANDSHAKE: u32 = 1 << 0;

/// So many drops of one key are streamed in a second; the next one streamed has the count of all.
pub const DROPS_STREAMED: u32 = 64;

/// Key of what is counted.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable))]
pub struct DropKey {
    /// Where in the kernel it was dropped.
    pub location: u64,
    /// Network namespace.
    pub netns: u32,
    /// Why (`enum skb_drop_reason` of the running kernel); 0 where the kernel does not say.
    pub reason: u32,
    /// The server's port.
    pub port: u16,
    /// One of `PACKET_*`.
    pub packet: u8,
    /// One of `DIRECTION_*`.
    pub direction: u8,
    /// Padding, zero.
    pub pad: u32,
}
const _: () = assert!(size_of::<DropKey>() == 24);

/// What was counted.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable))]
pub struct DropTotals {
    /// How many.
    pub count: u64,
    /// Began a second of streaming (`CLOCK_MONOTONIC`, ns).
    pub window_ns: u64,
    /// Records streamed in it.
    pub streamed: u32,
    /// Padding, zero.
    pub pad: u32,
}
const _: () = assert!(size_of::<DropTotals>() == 24);
