//! What the user asked for, as the eBPF programs see it: a read-only global, so an unused filter costs nothing.

/// How many ports an in-kernel port filter holds.
pub const PORT_FILTERS: usize = 8;

/// Stream every connect, enqueue, accept, port bound and port released, not only the anomalies.
pub const STREAM_ALL: u32 = 1 << 0;
/// Stream every SYN that passes the queue checks.
pub const STREAM_SYNS: u32 = 1 << 1;

/// Bit of the `SERVES` map: `tp_set_state_task` reports listeners that begin and end.
pub const SERVE_LISTEN: u32 = 1 << 0;
/// `tp_set_state_child` counts established children as enqueued.
pub const SERVE_ENQUEUE: u32 = 1 << 1;
/// `tp_set_state_task` and `tp_set_state_port` follow the ports of connecting sockets.
pub const SERVE_CONNECT: u32 = 1 << 2;
/// All programs are attached, and count from now on.
pub const SERVE_ALL: u32 = 1 << 31;

/// The in-kernel part of the trace configuration.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable))]
pub struct TraceConfig {
    /// Bit set of [`STREAM_ALL`] and [`STREAM_SYNS`].
    pub flags: u32,
    /// Only this network namespace (inode number); 0 for all.
    pub netns: u32,
    /// Number of entries of `ports` in use; 0 for all ports.
    pub port_count: u32,
    /// Padding, zero.
    pub pad: u32,
    /// A socket passes when its local port (or, for a client, its remote port) is one of these.
    pub ports: [u16; PORT_FILTERS],
}
const _: () = assert!(size_of::<TraceConfig>() == 32);
