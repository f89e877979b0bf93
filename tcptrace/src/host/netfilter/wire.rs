//! The bytes of `NETLINK_NETFILTER`: requests, and the messages and attributes of answers. Parsing takes any bytes.

const HEADER_LEN: usize = 16;
const ERROR: u16 = 2;
const DONE: u16 = 3;
/// `NLA_F_NESTED`.
const NESTED: u16 = 0x8000;
/// Without `NLA_F_NESTED` and `NLA_F_NET_BYTEORDER`.
const KIND_MASK: u16 = 0x3fff;
/// `struct nfgenmsg`: family, version, resource.
const NFGENMSG_LEN: usize = 4;

/// A request under construction.
#[derive(Debug, Clone)]
pub(super) struct Request {
    kind: u16,
    flags: u16,
    body: Vec<u8>,
}

impl Request {
    /// A request of `subsystem` for `family` (`AF_*`, 0 for all).
    pub(super) fn new(subsystem: u8, message: u8, flags: i32, family: u8) -> Self {
        let flags = u16::try_from(flags | libc::NLM_F_REQUEST).unwrap_or_default();
        let kind = u16::from_be_bytes([subsystem, message]);
        Self { kind, flags, body: vec![family, 0, 0, 0] }
    }

    pub(super) fn nested(mut self, kind: u16, value: &[u8]) -> Self {
        push_attribute(&mut self.body, kind | NESTED, value);
        self
    }

    pub(super) fn with(mut self, kind: u16, value: &[u8]) -> Self {
        push_attribute(&mut self.body, kind, value);
        self
    }

    pub(super) fn to_bytes(&self, sequence: u32) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER_LEN + self.body.len());
        bytes.extend(u32::try_from(HEADER_LEN + self.body.len()).unwrap_or_default().to_ne_bytes());
        bytes.extend(self.kind.to_ne_bytes());
        bytes.extend(self.flags.to_ne_bytes());
        bytes.extend(sequence.to_ne_bytes());
        bytes.extend(0u32.to_ne_bytes());
        bytes.extend(&self.body);
        bytes
    }
}

/// Appends an attribute, padded.
pub(super) fn push_attribute(to: &mut Vec<u8>, kind: u16, value: &[u8]) {
    to.extend(u16::try_from(value.len() + 4).unwrap_or(u16::MAX).to_ne_bytes());
    to.extend(kind.to_ne_bytes());
    to.extend(value);
    to.resize(to.len().next_multiple_of(4), 0);
}

/// Appends an attribute that holds others.
pub(super) fn push_nested(to: &mut Vec<u8>, kind: u16, value: &[u8]) {
    push_attribute(to, kind | NESTED, value);
}

/// One message of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Message<'b> {
    /// An object: its message number within the subsystem, its family, its attributes.
    Object { message: u8, family: u8, attributes: &'b [u8] },
    /// The dump is over; errno, 0 for success.
    Done(i32),
    /// An error, or an acknowledgement (0).
    Error(i32),
}

/// The messages of what one `recv` returned, each with its sequence number; `None` for one that makes no sense.
pub(super) fn messages(datagram: &[u8]) -> impl Iterator<Item = Option<(u32, Message<'_>)>> {
    let mut rest = datagram;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let taken = take_message(rest);
        rest = taken.map_or(&[], |(_, after)| after);
        Some(taken.map(|(message, _)| message))
    })
}

fn take_message(bytes: &[u8]) -> Option<((u32, Message<'_>), &[u8])> {
    let length = usize::try_from(u32_at(bytes, 0)?).ok()?;
    let kind = u16::from_ne_bytes(array(bytes, 4)?);
    let sequence = u32_at(bytes, 8)?;
    let body = bytes.get(HEADER_LEN..length)?;
    let errno = || Some(i32::from_ne_bytes(array(body, 0)?).saturating_neg());
    let message = match kind {
        DONE => Message::Done(errno().unwrap_or(0)),
        ERROR => Message::Error(errno()?),
        kind => {
            let [_, message] = kind.to_be_bytes();
            Message::Object { message, family: *body.first()?, attributes: body.get(NFGENMSG_LEN..)? }
        }
    };
    Some(((sequence, message), bytes.get(length.next_multiple_of(4)..).unwrap_or_default()))
}

/// The attributes in `bytes`; those that are cut end it.
pub(super) fn attributes<'a>(bytes: &'a [u8]) -> impl Iterator<Item = (u16, &'a [u8])> + use<'a> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes(array(rest, 0)?));
        let kind = u16::from_ne_bytes(array(rest, 2)?) & KIND_MASK;
        let value = rest.get(4..length)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// The value of the first attribute of this kind.
pub(super) fn attribute(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(bytes).find(|(found, _)| *found == kind).map(|(_, value)| value)
}

/// Attributes one after another, whose numbers are in network byte order.
#[derive(Clone, Copy, Debug)]
pub(super) struct Attributes<'a>(pub(super) &'a [u8]);

impl<'a> Attributes<'a> {
    pub(super) fn bytes(&self, kind: u16) -> Option<&'a [u8]> {
        attribute(self.0, kind)
    }

    pub(super) fn nested(&self, kind: u16) -> Self {
        Self(self.bytes(kind).unwrap_or_default())
    }

    /// What a list holds.
    pub(super) fn list(&self, kind: u16) -> impl Iterator<Item = Self> {
        attributes(self.nested(kind).0).map(|(_, value)| Self(value))
    }

    pub(super) fn number(&self, kind: u16) -> Option<u32> {
        self.bytes(kind).and_then(be32)
    }

    pub(super) fn short(&self, kind: u16) -> Option<u16> {
        self.bytes(kind).and_then(be16)
    }

    pub(super) fn text(&self, kind: u16) -> Option<String> {
        self.bytes(kind).map(text)
    }
}

/// A number in network byte order.
pub(super) fn be32(bytes: &[u8]) -> Option<u32> {
    bytes.try_into().ok().map(u32::from_be_bytes)
}

/// A port.
pub(super) fn be16(bytes: &[u8]) -> Option<u16> {
    bytes.try_into().ok().map(u16::from_be_bytes)
}

/// Text that ends with a zero byte.
pub(super) fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(bytes.get(..end).unwrap_or_default()).into_owned()
}

/// `N` bytes at an offset.
pub(super) fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}

/// A number in the machine's byte order at an offset.
pub(super) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    array(bytes, at).map(u32::from_ne_bytes)
}

/// A number in the machine's byte order at an offset.
pub(super) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    array(bytes, at).map(u16::from_ne_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_request_reads_back_as_a_message() {
        let request = Request::new(1, 1, libc::NLM_F_DUMP, 2).nested(5, b"ab").nested(6, &[1, 2, 3, 4]);
        let bytes = request.to_bytes(7);
        let all: Vec<_> = messages(&bytes).collect();
        let [Some((7, Message::Object { message: 1, family: 2, attributes: inner }))] = all.as_slice() else {
            panic!("{all:?}")
        };
        let found: Vec<_> = attributes(inner).collect();
        assert_eq!(found, [(5, &b"ab"[..]), (6, &[1, 2, 3, 4][..])]);
        assert_eq!(attribute(inner, 6), Some(&[1, 2, 3, 4][..]));
    }

    #[test]
    fn errors_and_ends_carry_their_errno() {
        let message = |kind: u16, code: i32| {
            let mut bytes = 20u32.to_ne_bytes().to_vec();
            bytes.extend(kind.to_ne_bytes());
            bytes.extend([0, 0, 9, 0, 0, 0, 0, 0, 0, 0]);
            bytes.extend(code.to_ne_bytes());
            bytes
        };
        let both = [message(ERROR, -1), message(DONE, 0)].concat();
        let all: Vec<_> = messages(&both).map(|found| found.map(|(_, message)| message)).collect();
        assert_eq!(all, [Some(Message::Error(1)), Some(Message::Done(0))]);
    }

    proptest! {
        #[test]
        fn any_bytes_end(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            for found in messages(&bytes).flatten() {
                if let (_, Message::Object { attributes: inner, .. }) = found {
                    let _ = attributes(inner).count();
                }
            }
            let _ = attributes(&bytes).count();
        }
    }
}
