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

#[cfg(test)]
mod tests {
    use super::super::builder::Builder;
    use super::*;

    #[test]
    fn sections_lie_where_the_header_says() {
        let mut builder = Builder::new();
        builder.int("int", 4);
        let header = Header::parse(&builder.build()).unwrap();
        assert_eq!(header, Header { order: ByteOrder::Little, types: 24..40, strings: 40..45, layout: 0..0 });
        let header = Header::parse(&builder.build_with_layout(&[(0, 0), (4, 0)])).unwrap();
        assert_eq!(
            header,
            Header { order: ByteOrder::Little, types: 32..48, strings: 48..53, layout: 53..61 }
        );
    }

    #[test]
    fn both_byte_orders_are_read() {
        let mut builder = Builder::big_endian();
        builder.int("int", 4);
        let header = Header::parse(&builder.build()).unwrap();
        assert_eq!(header, Header { order: ByteOrder::Big, types: 24..40, strings: 40..45, layout: 0..0 });
    }

    #[test]
    fn what_is_wrong_is_said() {
        let good = Builder::new().build();
        let with = |at: usize, bytes: &[u8]| {
            let mut changed = good.clone();
            changed[at..at + bytes.len()].copy_from_slice(bytes);
            Header::parse(&changed)
        };
        assert_eq!(Header::parse(b""), Err(BtfError::ShortHeader(0)));
        assert_eq!(Header::parse(&good[..23]), Err(BtfError::ShortHeader(23)));
        assert_eq!(with(0, b"\x7fE"), Err(BtfError::Magic(0x457f)));
        assert_eq!(with(2, &[2]), Err(BtfError::Version(2)));
        assert_eq!(with(4, &[23]), Err(BtfError::HeaderLength(23)));
        assert_eq!(with(4, &[0xff; 4]), Err(BtfError::HeaderLength(u32::MAX)));
        assert_eq!(with(8, &[0xff; 8]), Err(BtfError::Section("type")));
        assert_eq!(with(16, &[2]), Err(BtfError::Section("string")));
        assert_eq!(with(20, &[2]), Err(BtfError::Section("string")));
    }
}
