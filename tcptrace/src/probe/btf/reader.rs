//! From raw bytes to types that can be asked for by number or by name.
//!
//! One pass notes where each type starts and indexes the names worth looking up; everything else is decoded when asked
//! for. After the pass every type lies within the file; what a type refers to is checked when the reference is followed.

use super::error::BtfError;
use super::format::{ByteOrder, Kind, TYPE_LEN};
use super::header::Header;
use super::names::{self, NameIndex};

/// Most typedefs and qualifiers between a name and its type that are followed, as in the kernel (`MAX_RESOLVE_DEPTH`).
const LONGEST_CHAIN: usize = 32;

/// The types of one kernel.
pub struct Btf {
    bytes: Vec<u8>,
    header: Header,
    /// Where type `index + 1` starts in `bytes`.
    starts: Vec<u32>,
    names: NameIndex,
    /// Enums without a name: constants such as `INET_FLAGS_FREEBIND` are declared in these.
    nameless_enums: Vec<u32>,
}

impl std::fmt::Debug for Btf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Btf")
            .field("bytes", &self.bytes.len())
            .field("types", &self.starts.len())
            .finish_non_exhaustive()
    }
}

/// One type, and what its kind appends to it.
#[derive(Clone, Copy)]
pub(super) struct Type<'a> {
    btf: &'a Btf,
    pub(super) kind: Kind,
    /// For structs and unions: whether members carry bit-field sizes. For enums: whether values are signed.
    pub(super) flag: bool,
    name: u32,
    /// Size in bytes or number of another type, by kind.
    pub(super) size_or_type: u32,
    payload: &'a [u8],
}

/// A member of a struct or union, as stored.
#[derive(Clone, Copy)]
pub(super) struct RawMember<'a> {
    btf: &'a Btf,
    name: u32,
    pub(super) type_id: u32,
    /// Bit offset, with the width of a bit-field in the upper 8 bits if the struct's flag says so.
    pub(super) offset: u32,
}

/// An enumerator: a name and the number it stands for. Kernels before 6.1 do not say whether an enum is signed: there a
/// negative number reads as the large positive one with the same bits.
#[derive(Clone, Copy)]
pub(super) struct Constant<'a> {
    btf: &'a Btf,
    name: u32,
    pub(super) value: i128,
}

impl Btf {
    /// Reads raw BTF, in either byte order: what `/sys/kernel/btf/vmlinux` or the `.BTF` section of a kernel holds.
    ///
    /// # Errors
    ///
    /// If the bytes are not BTF, are cut, or contain a kind of type that can be neither read nor skipped.
    pub fn parse(bytes: Vec<u8>) -> Result<Self, BtfError> {
        let header = Header::parse(&bytes)?;
        let strings = bytes.get(header.strings.clone()).unwrap_or_default();
        if strings.last().is_some_and(|byte| *byte != 0) {
            return Err(BtfError::UnendedStrings);
        }
        let layout = bytes.get(header.layout.clone()).unwrap_or_default();

        let mut starts = Vec::with_capacity(header.types.len() / 16);
        let mut pairs = Vec::new();
        let mut nameless_enums = Vec::new();
        let mut rest = bytes.get(header.types.clone()).unwrap_or_default();
        let mut start = header.types.start;
        let mut id = 0u32;
        while !rest.is_empty() {
            id += 1;
            let raw = RawType::parse(rest, header.order).ok_or(BtfError::CutType { id })?;
            let (kind, length) = raw.kind_and_length(layout, id)?;
            let name = usize::try_from(raw.name)
                .ok()
                .and_then(|at| strings.get(at..))
                .filter(|text| raw.name == 0 || !text.is_empty())
                .ok_or(BtfError::Name { id })?;
            if kind.is_looked_up() {
                match names::hash_at(name) {
                    Some(hash) => pairs.push((hash, id)),
                    None if kind.is_enum() => nameless_enums.push(id),
                    None => {}
                }
            }
            starts.push(u32::try_from(start).map_err(|_| BtfError::Section("type"))?);
            rest = rest.get(length..).ok_or(BtfError::CutType { id })?;
            start += length;
        }
        Ok(Self { header, starts, names: NameIndex::new(pairs), nameless_enums, bytes })
    }

    /// Whether the kernel described is little-endian: only then does bit 0 of a bit-field stand in the lowest bit.
    pub(super) fn is_little_endian(&self) -> bool {
        self.header.order == ByteOrder::Little
    }

    /// The type with that number; `None` for `void` (0) and for numbers that do not exist.
    pub(super) fn get(&self, id: u32) -> Option<Type<'_>> {
        let index = usize::try_from(id).ok()?.checked_sub(1)?;
        let start = usize::try_from(*self.starts.get(index)?).ok()?;
        let bytes = self.bytes.get(start..self.header.types.end)?;
        let raw = RawType::parse(bytes, self.header.order)?;
        let layout = self.bytes.get(self.header.layout.clone())?;
        let (kind, length) = raw.kind_and_length(layout, id).ok()?;
        let payload = bytes.get(TYPE_LEN..length)?;
        Some(Type {
            btf: self,
            kind,
            flag: raw.flag,
            name: raw.name,
            size_or_type: raw.size_or_type,
            payload,
        })
    }

    /// Where in the file the bytes of a type lie that can take any value without making the next type unreadable.
    #[cfg(test)]
    pub(super) fn damageable(&self, id: u32) -> Option<std::ops::Range<usize>> {
        let start = usize::try_from(*self.starts.get(usize::try_from(id).ok()?.checked_sub(1)?)?).ok()?;
        Some(start + 8..start + TYPE_LEN + self.get(id)?.payload.len())
    }

    /// The type behind any typedefs and qualifiers of type `id`.
    pub(super) fn get_plain(&self, id: u32) -> Option<Type<'_>> {
        let mut found = self.get(id)?;
        for _ in 0..LONGEST_CHAIN {
            if !found.kind.is_transparent() {
                return Some(found);
            }
            found = self.get(found.size_or_type)?;
        }
        None
    }

    /// Structs, unions, enums, functions and typedefs called `name`, lowest number first.
    pub(super) fn named<'a>(&'a self, name: &'a str) -> impl Iterator<Item = Type<'a>> {
        self.ids(name).map(|(_, found)| found)
    }

    /// The same with their numbers.
    pub(super) fn ids<'a>(&'a self, name: &'a str) -> impl Iterator<Item = (u32, Type<'a>)> {
        self.names
            .candidates(name.as_bytes())
            .filter_map(|id| Some((id, self.get(id)?)))
            .filter(move |(_, found)| found.is_called(name))
    }

    /// Enums without a name.
    pub(super) fn nameless_enums(&self) -> impl Iterator<Item = Type<'_>> {
        self.nameless_enums.iter().filter_map(|id| self.get(*id))
    }

    /// The strings from `offset` on; empty if there is nothing.
    fn strings_from(&self, offset: u32) -> &[u8] {
        let strings = self.bytes.get(self.header.strings.clone()).unwrap_or_default();
        usize::try_from(offset).ok().and_then(|at| strings.get(at..)).unwrap_or_default()
    }

    fn string_is(&self, offset: u32, wanted: &str) -> bool {
        self.strings_from(offset).strip_prefix(wanted.as_bytes()).is_some_and(|rest| rest.first() == Some(&0))
    }

    fn string(&self, offset: u32) -> &[u8] {
        names::until_nul(self.strings_from(offset))
    }
}

/// The fixed part of a type.
struct RawType {
    name: u32,
    kind: u8,
    flag: bool,
    elements: u32,
    size_or_type: u32,
}

impl RawType {
    /// The type at the start of `bytes`; `None` if they are too few.
    fn parse(bytes: &[u8], order: ByteOrder) -> Option<Self> {
        let [name, info, size_or_type] = *bytes.first_chunk::<TYPE_LEN>()?.as_chunks::<4>().0 else {
            return None;
        };
        let info = order.u32(info);
        Some(Self {
            name: order.u32(name),
            // Linux 7.2 widened both fields into bits that were zero before: kind to 7 bits, elements to 24.
            kind: u8::try_from((info >> 24) & 0x7f).ok()?,
            flag: info >> 31 == 1,
            elements: info & 0x00ff_ffff,
            size_or_type: order.u32(size_or_type),
        })
    }

    /// The kind, and the bytes of the whole type. `layout` is the layout section: 4 bytes a kind, of which the first is
    /// the size of what follows the type once, the second that of each element.
    fn kind_and_length(&self, layout: &[u8], id: u32) -> Result<(Kind, usize), BtfError> {
        let unknown = BtfError::UnknownKind { id, kind: self.kind };
        let (kind, (once, each)) = match Kind::from_number(self.kind) {
            Some(kind) => (kind, kind.payload()),
            None => match layout.as_chunks::<4>().0.get(usize::from(self.kind)) {
                Some([once, each, ..]) if self.kind != 0 => {
                    (Kind::Unknown, (u32::from(*once), u32::from(*each)))
                }
                _ => return Err(unknown),
            },
        };
        // At most 12 + 255 + 255 * 2^24, which a u64 holds.
        let length = u64::from(self.elements) * u64::from(each) + u64::from(once);
        let length = usize::try_from(length).ok().and_then(|length| length.checked_add(TYPE_LEN));
        length.map(|length| (kind, length)).ok_or(BtfError::CutType { id })
    }
}

impl<'a> Type<'a> {
    pub(super) fn is_called(&self, name: &str) -> bool {
        self.btf.string_is(self.name, name)
    }

    /// Empty for a type without a name.
    pub(super) fn name(&self) -> &'a [u8] {
        self.btf.string(self.name)
    }

    /// What follows the type if its kind `is_so`, as rows of numbers; otherwise no row.
    fn rows<const N: usize>(&self, is_so: bool) -> impl ExactSizeIterator<Item = [u32; N]> + use<'a, N> {
        let order = self.btf.header.order;
        let words = if is_so { self.payload.as_chunks::<4>().0 } else { &[] };
        words.as_chunks::<N>().0.iter().map(move |row| row.map(|word| order.u32(word)))
    }

    /// Members, of a struct or union.
    pub(super) fn members(&self) -> impl Iterator<Item = RawMember<'a>> + use<'a> {
        let btf = self.btf;
        self.rows(self.kind.is_composite()).map(move |[name, type_id, offset]| RawMember {
            btf,
            name,
            type_id,
            offset,
        })
    }

    /// Types of the parameters, of a function prototype. The last one is 0 if the function is variadic.
    pub(super) fn params(&self) -> impl ExactSizeIterator<Item = u32> + use<'a> {
        self.rows(self.kind == Kind::FuncProto).map(|[_name, type_id]| type_id)
    }

    /// Names and values, of an enum.
    pub(super) fn constants(&self) -> impl Iterator<Item = Constant<'a>> + use<'a> {
        let (btf, signed) = (self.btf, self.flag);
        let narrow = self.rows(self.kind == Kind::Enum).map(move |[name, value]| {
            (name, if signed { i128::from(value.cast_signed()) } else { i128::from(value) })
        });
        let wide = self.rows(self.kind == Kind::Enum64).map(move |[name, low, high]| {
            let value = u64::from(high) << 32 | u64::from(low);
            (name, if signed { i128::from(value.cast_signed()) } else { i128::from(value) })
        });
        narrow.chain(wide).map(move |(name, value)| Constant { btf, name, value })
    }

    /// Element type and number of elements, of an array.
    pub(super) fn array(&self) -> Option<(u32, u32)> {
        self.rows(self.kind == Kind::Array).next().map(|[element, _index, count]| (element, count))
    }

    /// Of an integer: its bit offset within its storage and its width in bits. Before bit-field sizes stood in the
    /// members (kernels built with an old pahole), a bit-field was a member of such a narrowed integer type.
    pub(super) fn int_bits(&self) -> Option<(u32, u32)> {
        self.rows(self.kind == Kind::Int).next().map(|[encoding]| ((encoding >> 16) & 0xff, encoding & 0xff))
    }
}

impl<'a> Constant<'a> {
    pub(super) fn is_called(&self, name: &str) -> bool {
        self.btf.string_is(self.name, name)
    }

    pub(super) fn name(&self) -> &'a [u8] {
        self.btf.string(self.name)
    }
}

impl RawMember<'_> {
    pub(super) fn is_called(&self, name: &str) -> bool {
        self.btf.string_is(self.name, name)
    }

    pub(super) fn is_nameless(&self) -> bool {
        self.btf.strings_from(self.name).first().is_none_or(|byte| *byte == 0)
    }
}

#[cfg(test)]
mod tests {
    use super::super::builder::{Builder, kind};
    use super::*;

    /// One type of each kind, with something in it.
    fn every_kind(mut builder: Builder) -> Builder {
        let int = builder.int("int", 4);
        let ptr = builder.ptr(int);
        builder.array(int, 3);
        builder.composite(kind::STRUCT, "s", 12, &[("a", int, 0), ("b", ptr, 4)]);
        builder.composite(kind::UNION, "u", 8, &[("a", int, 0), ("b", ptr, 0)]);
        builder.enumeration("e", true, &[("MINUS", -1), ("ONE", 1)]);
        builder.refer(kind::FWD, "declared", 0);
        builder.refer(kind::TYPEDEF, "t", int);
        builder.refer(kind::VOLATILE, "", int);
        builder.refer(kind::CONST, "", int);
        builder.refer(kind::RESTRICT, "", ptr);
        builder.function("f", int, &[ptr, int]);
        builder.raw("v", kind::VAR, false, 0, int, &[1]);
        builder.raw(".data", kind::DATASEC, false, 1, 4, &[14, 0, 4]);
        builder.refer(kind::FLOAT, "double", 8);
        builder.raw("tag", kind::DECL_TAG, false, 0, 4, &[u32::MAX]);
        builder.refer(kind::TYPE_TAG, "user", int);
        builder.enumeration64("e64", false, &[("BIG", u64::MAX), ("TWO", 2)]);
        // Last, so that a wrong length of any kind before it is noticed.
        builder.composite(kind::STRUCT, "last", 4, &[("only", int, 0)]);
        builder
    }

    #[test]
    fn every_kind_is_read_in_both_byte_orders() {
        for builder in [Builder::new(), Builder::big_endian()] {
            let btf = Btf::parse(every_kind(builder).build()).unwrap();
            let last = btf.named("last").next().unwrap();
            assert_eq!((last.kind, last.size_or_type), (Kind::Struct, 4));
            let members: Vec<_> = btf
                .named("s")
                .next()
                .unwrap()
                .members()
                .map(|member| (member.type_id, member.offset))
                .collect();
            assert_eq!(members, [(1, 0), (2, 32)]);
            let constants = |name| -> Vec<_> {
                let found: Vec<_> = btf.named(name).next().unwrap().constants().collect();
                found.iter().map(|constant| (constant.name().to_vec(), constant.value)).collect()
            };
            assert_eq!(constants("e"), [(b"MINUS".to_vec(), -1), (b"ONE".to_vec(), 1)]);
            assert_eq!(constants("e64"), [(b"BIG".to_vec(), i128::from(u64::MAX)), (b"TWO".to_vec(), 2)]);
            assert_eq!(btf.get(3).unwrap().array(), Some((1, 3)));
            assert_eq!(btf.get(1).unwrap().int_bits(), Some((0, 32)));
            assert_eq!(btf.get_plain(8).unwrap().kind, Kind::Int);
        }
    }

    #[test]
    fn a_type_answers_only_for_its_own_kind() {
        let btf = Btf::parse(every_kind(Builder::new()).build()).unwrap();
        let (int, composite) = (btf.get(1).unwrap(), btf.get(4).unwrap());
        assert_eq!(int.members().count() + int.params().count() + int.constants().count(), 0);
        assert_eq!(composite.array(), None);
        assert_eq!(composite.int_bits(), None);
    }

    #[test]
    fn void_and_numbers_beyond_the_last_are_no_types() {
        let btf = Btf::parse(every_kind(Builder::new()).build()).unwrap();
        assert!(btf.get(0).is_none());
        assert!(btf.get(20).is_some());
        assert!(btf.get(21).is_none());
        assert!(btf.get(u32::MAX).is_none());
    }

    #[test]
    fn an_unknown_kind_is_an_error_unless_the_layout_section_tells_its_size() {
        let mut builder = Builder::new();
        builder.raw("new", 20, false, 2, 0, &[7, 7, 7]);
        builder.composite(kind::STRUCT, "last", 4, &[]);
        assert_eq!(Btf::parse(builder.build()).unwrap_err(), BtfError::UnknownKind { id: 1, kind: 20 });
        let mut layout = [(0, 0); 21];
        layout[20] = (4, 4);
        let btf = Btf::parse(builder.build_with_layout(&layout)).unwrap();
        assert_eq!(btf.named("last").count(), 1);
        assert_eq!(btf.get(1).unwrap().kind, Kind::Unknown);
    }

    #[test]
    fn what_is_wrong_is_said() {
        let mut builder = Builder::new();
        builder.raw("none", 0, false, 0, 0, &[]);
        assert_eq!(Btf::parse(builder.build()).unwrap_err(), BtfError::UnknownKind { id: 1, kind: 0 });

        let mut builder = Builder::new();
        builder.int("int", 4);
        builder.raw("s", kind::STRUCT, false, 2, 8, &[0, 1, 0]);
        assert_eq!(Btf::parse(builder.build()).unwrap_err(), BtfError::CutType { id: 2 });

        let mut builder = Builder::new();
        builder.int("int", 4);
        let mut bytes = builder.build();
        *bytes.last_mut().unwrap() = b'x';
        assert_eq!(Btf::parse(bytes).unwrap_err(), BtfError::UnendedStrings);

        let mut bytes = builder.build();
        bytes[24] = 5; // the length of "\0int\0": one beyond the last byte
        assert_eq!(Btf::parse(bytes).unwrap_err(), BtfError::Name { id: 1 });
    }

    #[test]
    fn a_circle_of_typedefs_has_no_plain_type() {
        let mut builder = Builder::new();
        builder.refer(kind::TYPEDEF, "a", 2);
        builder.refer(kind::TYPEDEF, "b", 1);
        let btf = Btf::parse(builder.build()).unwrap();
        assert!(btf.get_plain(1).is_none());
    }
}
