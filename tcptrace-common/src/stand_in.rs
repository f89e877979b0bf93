//! Pairs of programs of which the second does what the kernel made the first one miss.

/// Index of the pair `tp_handshake_drop`.
pub const DROP: u32 = 0;
/// Index of the pair `tp_set_state_port`.
pub const STATE_PORT: u32 = 1;
/// Index of the pair `tp_set_state_child`.
pub const STATE_CHILD: u32 = 2;
/// Index of the pair `tp_receive_reset`.
pub const RESET: u32 = 3;
/// So many pairs.
pub const PAIRS: u32 = 4;

/// Marks of one CPU. Several, since events nest: one that is interrupted between its two programs keeps its mark unless the
/// other one falls on the same place.
pub const MARKS: usize = 8;

/// Per CPU and pair.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable))]
pub struct Attended {
    /// The events for which the first program was there and the second one was not yet, each in the place that its value
    /// gives.
    pub marks: [u64; MARKS],
    /// How often the second program did the first one's work. The last member: user space reads words.
    pub stood_in: u64,
}
const _: () = assert!(size_of::<Attended>() == 72 && core::mem::offset_of!(Attended, stood_in) == 64);
