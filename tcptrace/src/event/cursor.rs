//! Reads the integers of a `repr(C)` struct from bytes, in order. Padding is written out in these structs, so the fields
//! follow each other without gaps, and both sides are the same machine: native byte order.

/// The bytes ended too early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ended;

/// What is left to read.
pub(super) struct Cursor<'a> {
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// How many bytes are left.
    pub(super) fn left(&self) -> usize {
        self.rest.len()
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], Ended> {
        let (first, rest) = self.rest.split_first_chunk::<N>().ok_or(Ended)?;
        self.rest = rest;
        Ok(*first)
    }

    pub(super) fn skip<const N: usize>(&mut self) -> Result<(), Ended> {
        self.array::<N>().map(|_| ())
    }

    pub(super) fn u8(&mut self) -> Result<u8, Ended> {
        self.array().map(u8::from_ne_bytes)
    }

    pub(super) fn u16(&mut self) -> Result<u16, Ended> {
        self.array().map(u16::from_ne_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, Ended> {
        self.array().map(u32::from_ne_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, Ended> {
        self.array().map(u64::from_ne_bytes)
    }
}
