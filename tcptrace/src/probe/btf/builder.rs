//! A small BTF writer, for tests.

use super::format::MAGIC;

/// Numbers of kinds, as the format has them.
pub(super) mod kind {
    pub(in super::super) const INT: u8 = 1;
    pub(in super::super) const PTR: u8 = 2;
    pub(in super::super) const ARRAY: u8 = 3;
    pub(in super::super) const STRUCT: u8 = 4;
    pub(in super::super) const UNION: u8 = 5;
    pub(in super::super) const ENUM: u8 = 6;
    pub(in super::super) const FWD: u8 = 7;
    pub(in super::super) const TYPEDEF: u8 = 8;
    pub(in super::super) const VOLATILE: u8 = 9;
    pub(in super::super) const CONST: u8 = 10;
    pub(in super::super) const RESTRICT: u8 = 11;
    pub(in super::super) const FUNC: u8 = 12;
    pub(in super::super) const FUNC_PROTO: u8 = 13;
    pub(in super::super) const VAR: u8 = 14;
    pub(in super::super) const DATASEC: u8 = 15;
    pub(in super::super) const FLOAT: u8 = 16;
    pub(in super::super) const DECL_TAG: u8 = 17;
    pub(in super::super) const TYPE_TAG: u8 = 18;
    pub(in super::super) const ENUM64: u8 = 19;
}

/// Writes types one after another; each call returns the new type's number.
pub(super) struct Builder {
    big_endian: bool,
    types: Vec<u8>,
    strings: Vec<u8>,
    count: u32,
}

impl Builder {
    pub(super) fn new() -> Self {
        Self { big_endian: false, types: Vec::new(), strings: vec![0], count: 0 }
    }

    pub(super) fn big_endian() -> Self {
        Self { big_endian: true, ..Self::new() }
    }

    /// How many types there are: the number of the last one.
    pub(super) fn count(&self) -> u32 {
        self.count
    }

    fn word(&self, value: u32) -> [u8; 4] {
        if self.big_endian { value.to_be_bytes() } else { value.to_le_bytes() }
    }

    pub(super) fn string(&mut self, text: &str) -> u32 {
        if text.is_empty() {
            return 0;
        }
        let at = self.strings.len().try_into().unwrap();
        self.strings.extend_from_slice(text.as_bytes());
        self.strings.push(0);
        at
    }

    /// A type of any kind, `words` being what follows it.
    pub(super) fn raw(
        &mut self,
        name: &str,
        kind: u8,
        flag: bool,
        elements: usize,
        size_or_type: u32,
        words: &[u32],
    ) -> u32 {
        let name = self.string(name);
        let elements = u32::try_from(elements).unwrap();
        let info = u32::from(flag) << 31 | u32::from(kind) << 24 | elements;
        for word in [&[name, info, size_or_type], words].concat() {
            let word = self.word(word);
            self.types.extend_from_slice(&word);
        }
        self.count += 1;
        self.count
    }

    pub(super) fn int(&mut self, name: &str, size: u32) -> u32 {
        self.narrow_int(name, size, 0, size * 8)
    }

    pub(super) fn narrow_int(&mut self, name: &str, size: u32, offset: u32, bits: u32) -> u32 {
        self.raw(name, kind::INT, false, 0, size, &[offset << 16 | bits])
    }

    /// Pointer, qualifier, typedef, tag or function: all that refers to one other type.
    pub(super) fn refer(&mut self, kind: u8, name: &str, to: u32) -> u32 {
        self.raw(name, kind, false, 0, to, &[])
    }

    pub(super) fn ptr(&mut self, to: u32) -> u32 {
        self.refer(kind::PTR, "", to)
    }

    pub(super) fn array(&mut self, of: u32, count: u32) -> u32 {
        self.raw("", kind::ARRAY, false, 0, 0, &[of, 0, count])
    }

    /// Struct or union without bit-fields; members are name, type, offset in bytes.
    pub(super) fn composite(&mut self, kind: u8, name: &str, size: u32, members: &[(&str, u32, u32)]) -> u32 {
        let words = self.member_words(members.iter().map(|(name, id, at)| (*name, *id, at * 8)));
        self.raw(name, kind, false, members.len(), size, &words)
    }

    /// Struct with sized bit-fields; members are name, type, offset in bits, width in bits (0: none).
    pub(super) fn bit_struct(&mut self, name: &str, size: u32, members: &[(&str, u32, u32, u32)]) -> u32 {
        let words =
            self.member_words(members.iter().map(|(name, id, at, width)| (*name, *id, width << 24 | at)));
        self.raw(name, kind::STRUCT, true, members.len(), size, &words)
    }

    fn member_words<'a>(&mut self, members: impl Iterator<Item = (&'a str, u32, u32)>) -> Vec<u32> {
        members.flat_map(|(name, id, offset)| [self.string(name), id, offset]).collect()
    }

    pub(super) fn enumeration(&mut self, name: &str, signed: bool, constants: &[(&str, i32)]) -> u32 {
        let words: Vec<u32> =
            constants.iter().flat_map(|(name, value)| [self.string(name), value.cast_unsigned()]).collect();
        self.raw(name, kind::ENUM, signed, constants.len(), 4, &words)
    }

    pub(super) fn enumeration64(&mut self, name: &str, signed: bool, constants: &[(&str, u64)]) -> u32 {
        let words: Vec<u32> = constants
            .iter()
            .flat_map(|(name, value)| [self.string(name), (value & 0xffff_ffff) as u32, (value >> 32) as u32])
            .collect();
        self.raw(name, kind::ENUM64, signed, constants.len(), 8, &words)
    }

    pub(super) fn prototype(&mut self, returns: u32, params: &[u32]) -> u32 {
        let words: Vec<u32> = params.iter().flat_map(|id| [0, *id]).collect();
        self.raw("", kind::FUNC_PROTO, false, params.len(), returns, &words)
    }

    pub(super) fn function(&mut self, name: &str, returns: u32, params: &[u32]) -> u32 {
        let prototype = self.prototype(returns, params);
        self.refer(kind::FUNC, name, prototype)
    }

    pub(super) fn build(&self) -> Vec<u8> {
        self.build_with_layout(&[])
    }

    /// With a layout section of `(once, each)` sizes by kind number, if it is not empty.
    pub(super) fn build_with_layout(&self, layout: &[(u8, u8)]) -> Vec<u8> {
        let length = |bytes: &[u8]| u32::try_from(bytes.len()).unwrap();
        let (types, strings) = (length(&self.types), length(&self.strings));
        let layout: Vec<u8> = layout.iter().flat_map(|(once, each)| [*once, *each, 0, 0]).collect();
        let header_len = if layout.is_empty() { 24 } else { 32 };
        let mut words = vec![header_len, 0, types, types, strings];
        if !layout.is_empty() {
            words.extend([types + strings, length(&layout)]);
        }
        let magic = if self.big_endian { MAGIC.to_be_bytes() } else { MAGIC.to_le_bytes() };
        let mut bytes = vec![magic[0], magic[1], 1, 0];
        bytes.extend(words.into_iter().flat_map(|word| self.word(word)));
        bytes.extend([&self.types[..], &self.strings[..], &layout[..]].concat());
        bytes
    }
}
