//! The header: byte order, and where the sections lie.

use std::ops::Range;

use super::error::BtfError;
use super::format::{ByteOrder, HEADER_LEN, MAGIC, VERSION};

/// Where the sections of a BTF lie in its bytes; every range is within them.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) order: ByteOrder,
    pub(super) types: Range<usize>,
    pub(super) strings: Range<usize>,
    /// Sizes of each kind's payload, which newer encoders write on request (`struct btf_layout`): often empty.
    pub(super) layout: Range<usize>,
}

impl Header {
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, BtfError> {
        let fixed = bytes.first_chunk::<HEADER_LEN>().ok_or(BtfError::ShortHeader(bytes.len()))?;
        let [magic0, magic1, version, _flags, ..] = *fixed;
        let order = match u16::from_le_bytes([magic0, magic1]) {
            MAGIC => ByteOrder::Little,
            other if other.swap_bytes() == MAGIC => ByteOrder::Big,
            other => return Err(BtfError::Magic(other)),
        };
        if version != VERSION {
            return Err(BtfError::Version(version));
        }
        let words = fixed.as_chunks::<4>().0;
        let &[_, length, type_offset, type_length, string_offset, string_length] = words else {
            return Err(BtfError::ShortHeader(bytes.len()));
        };
        let length = order.u32(length);
        let (header, body) = usize::try_from(length)
            .ok()
            .filter(|length| *length >= HEADER_LEN)
            .and_then(|length| bytes.split_at_checked(length))
            .ok_or(BtfError::HeaderLength(length))?;

        let section = |name, offset: [u8; 4], length: [u8; 4]| {
            // In u64, where the sum of two u32 and of a length in memory cannot overflow.
            let start = u64::from(order.u32(offset));
            let end = start + u64::from(order.u32(length));
            let within = |at: u64| usize::try_from(at).ok().filter(|at| *at <= body.len());
            match (within(start), within(end)) {
                (Some(start), Some(end)) => Ok(start + header.len()..end + header.len()),
                _ => Err(BtfError::Section(name)),
            }
        };
        let types = section("type", type_offset, type_length)?;
        let strings = section("string", string_offset, string_length)?;
        let layout = match header.get(HEADER_LEN..).unwrap_or_default().as_chunks::<4>().0 {
            [offset, length, ..] => section("layout", *offset, *length)?,
            _ => 0..0,
        };
        Ok(Self { order, types, strings, layout })
    }
}
