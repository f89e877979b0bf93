//! Where a member lies in a struct: `sock.sk_err`, `net.ipv4.sysctl_tcp_syncookies`.

use super::format::Kind;
use super::reader::{Btf, RawMember, Type};

/// Deepest nesting of nameless structs, and of arrays, that is followed.
const DEEPEST: u32 = 16;

/// Most members looked at for one path. The largest kernel struct has a few hundred; the bound is for damaged files,
/// where nested nameless structs can contain themselves a thousandfold.
const MOST_MEMBERS: u32 = 100_000;

/// Size of a pointer in every kernel that tcptrace runs on.
const POINTER_LEN: u32 = 8;

/// A member, found by its path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Member {
    /// First bit, counted from the start of the struct that the path begins with.
    pub(super) bit_offset: u64,
    /// Width in bits, if it is a bit-field.
    bit_width: Option<u32>,
    type_id: u32,
}

/// What a path means in this kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Answer<T> {
    pub(super) value: Option<T>,
    /// Whether several types of that name exist and give different answers.
    pub(super) ambiguous: bool,
}

impl<T> Answer<T> {
    pub(super) const ABSENT: Self = Self { value: None, ambiguous: false };

    pub(super) fn and_then<U>(self, then: impl FnOnce(T) -> Option<U>) -> Answer<U> {
        Answer { value: self.value.and_then(then), ambiguous: self.ambiguous }
    }
}

impl Member {
    /// The byte that holds the first bit.
    pub(super) fn byte(&self) -> Option<u32> {
        u32::try_from(self.bit_offset / 8).ok()
    }

    /// The first bit within its byte: 0 for anything but a bit-field.
    pub(super) fn shift(&self) -> Option<u32> {
        u32::try_from(self.bit_offset % 8).ok()
    }

    /// Size in bytes; of a bit-field, the bytes that it touches.
    pub(super) fn size(&self, btf: &Btf) -> Option<u32> {
        match self.bit_width {
            Some(width) => self.shift()?.checked_add(width).map(|bits| bits.div_ceil(8)),
            None => size_of(btf, self.type_id, DEEPEST),
        }
    }
}

/// Looks up `struct.member[.member…]`. Every component but the last must be a struct or union *embedded* in the one
/// before it: what lies behind a pointer has no offset.
///
/// Several structs may share a name (a driver has its own `struct sock`, or two compilation units saw different types
/// behind one pointer). Of those that have the member, the largest answers: a private stand-in declares only the members
/// it uses, the real one has them all.
pub(super) fn member(btf: &Btf, path: &str) -> Answer<Member> {
    let Some((root, rest)) = path.split_once('.') else { return Answer::ABSENT };
    let mut budget = MOST_MEMBERS;
    let found = composites(btf, root).filter_map(|root| {
        let member = descend(btf, root, rest, &mut budget)?;
        Some((root.size_or_type, member))
    });
    largest(found)
}

/// Size in bytes of the struct or union called `name`: the largest of that name.
pub(super) fn size_of_struct(btf: &Btf, name: &str) -> Answer<u32> {
    largest(composites(btf, name).map(|found| (found.size_or_type, found.size_or_type)))
}

fn composites<'a>(btf: &'a Btf, name: &'a str) -> impl Iterator<Item = Type<'a>> {
    btf.named(name).filter(|found| found.kind.is_composite())
}

fn largest<T: PartialEq>(sized: impl Iterator<Item = (u32, T)>) -> Answer<T> {
    sized
        .fold(None, |best: Option<(u32, T, bool)>, (size, value)| match best {
            None => Some((size, value, false)),
            Some((best_size, best, ambiguous)) => {
                let ambiguous = ambiguous || best != value;
                // The first of equally large ones, so that the answer does not depend on how they are enumerated.
                Some(if size > best_size { (size, value, ambiguous) } else { (best_size, best, ambiguous) })
            }
        })
        .map_or(Answer::ABSENT, |(_, value, ambiguous)| Answer { value: Some(value), ambiguous })
}

/// The member at the end of `path`, seen from `root`.
fn descend(btf: &Btf, root: Type<'_>, path: &str, budget: &mut u32) -> Option<Member> {
    let mut at = root;
    let mut bit_offset = 0u64;
    let mut components = path.split('.').peekable();
    while let Some(name) = components.next().filter(|name| !name.is_empty()) {
        let found = find(btf, at, name, DEEPEST, budget)?;
        bit_offset += found.bit_offset;
        if components.peek().is_none() {
            let in_struct = bit_offset / 8 <= u64::from(root.size_or_type);
            return in_struct.then_some(Member { bit_offset, ..found });
        }
        at = btf.get_plain(found.type_id).filter(|next| next.kind.is_composite())?;
    }
    None
}

/// The member called `name` of `parent` itself or of the nameless structs and unions in it.
fn find(btf: &Btf, parent: Type<'_>, name: &str, depth: u32, budget: &mut u32) -> Option<Member> {
    for raw in parent.members() {
        *budget = budget.checked_sub(1)?;
        if raw.is_called(name) {
            return Some(placed(btf, parent, raw));
        }
        if depth == 0 || !raw.is_nameless() {
            continue;
        }
        // The inner type may have a tag: kernels built with -fms-extensions embed those without a member name, too.
        let inner = btf.get_plain(raw.type_id).filter(|inner| inner.kind.is_composite());
        if let Some(found) = inner.and_then(|inner| find(btf, inner, name, depth - 1, budget)) {
            let outer = placed(btf, parent, raw).bit_offset;
            return Some(Member { bit_offset: outer + found.bit_offset, ..found });
        }
    }
    None
}

/// Where a member stands in its own struct, in either encoding of bit-fields.
fn placed(btf: &Btf, parent: Type<'_>, raw: RawMember<'_>) -> Member {
    let (offset, width) =
        if parent.flag { (raw.offset & 0x00ff_ffff, raw.offset >> 24) } else { (raw.offset, 0) };
    let mut member = Member {
        bit_offset: u64::from(offset),
        bit_width: (width > 0).then_some(width),
        type_id: raw.type_id,
    };
    if !parent.flag
        && let Some(int) = btf.get_plain(raw.type_id)
        && let Some((int_offset, int_width)) = int.int_bits()
        && (int_offset > 0 || int_width < int.size_or_type.saturating_mul(8))
    {
        member.bit_offset += u64::from(int_offset);
        member.bit_width = Some(int_width);
    }
    member
}

/// Size in bytes of type `id`; `None` for what has no size (`void`, functions, types only declared).
fn size_of(btf: &Btf, id: u32, depth: u32) -> Option<u32> {
    let found = btf.get_plain(id)?;
    match found.kind {
        Kind::Int | Kind::Float | Kind::Struct | Kind::Union | Kind::Enum | Kind::Enum64 => {
            Some(found.size_or_type)
        }
        Kind::Ptr => Some(POINTER_LEN),
        Kind::Array => {
            let (element, count) = found.array()?;
            size_of(btf, element, depth.checked_sub(1)?)?.checked_mul(count)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::builder::{Builder, kind};
    use super::*;

    fn byte(btf: &Btf, path: &str) -> Option<u32> {
        member(btf, path).value.and_then(|member| member.byte())
    }

    fn byte_and_shift(btf: &Btf, path: &str) -> Option<(u32, u32)> {
        member(btf, path).value.and_then(|member| Some((member.byte()?, member.shift()?)))
    }

    fn size(btf: &Btf, path: &str) -> Option<u32> {
        member(btf, path).value.and_then(|member| member.size(btf))
    }

    fn parse(builder: &Builder) -> Btf {
        Btf::parse(builder.build()).unwrap()
    }

    #[test]
    fn members_of_nameless_structs_and_unions_are_reached_at_any_depth() {
        let mut builder = Builder::new();
        let int = builder.int("int", 4);
        let innermost = builder.composite(kind::STRUCT, "", 12, &[("x", int, 0), ("port", int, 8)]);
        let qualified = builder.refer(kind::CONST, "", innermost);
        let union = builder.composite(kind::UNION, "", 12, &[("whole", int, 0), ("", qualified, 0)]);
        builder.composite(
            kind::STRUCT,
            "sock_common",
            32,
            &[("first", int, 0), ("", union, 16), ("last", int, 28)],
        );
        let btf = parse(&builder);
        assert_eq!(byte(&btf, "sock_common.first"), Some(0));
        assert_eq!(byte(&btf, "sock_common.whole"), Some(16));
        assert_eq!(byte(&btf, "sock_common.port"), Some(24));
        assert_eq!(byte(&btf, "sock_common.last"), Some(28));
        assert_eq!(byte(&btf, "sock_common.absent"), None);
        assert_eq!(byte(&btf, "sock_common"), None);
        assert_eq!(byte(&btf, "sock_common."), None);
        assert_eq!(byte(&btf, "int.first"), None);
    }

    #[test]
    fn a_tagged_struct_embedded_without_a_name_is_entered_too() {
        let mut builder = Builder::new();
        let int = builder.int("int", 4);
        let tagged = builder.composite(kind::STRUCT, "tagged", 8, &[("a", int, 0), ("b", int, 4)]);
        builder.composite(kind::STRUCT, "outer", 16, &[("", tagged, 8)]);
        assert_eq!(byte(&parse(&builder), "outer.b"), Some(12));
    }

    #[test]
    fn a_path_enters_embedded_structs_through_typedefs_and_qualifiers() {
        let mut builder = Builder::new();
        let int = builder.int("int", 4);
        let nameless = builder.composite(kind::STRUCT, "", 8, &[("net", int, 4)]);
        let typedef = builder.refer(kind::TYPEDEF, "possible_net_t", nameless);
        let volatile = builder.refer(kind::VOLATILE, "", typedef);
        let tagged = builder.refer(kind::TYPE_TAG, "rcu", volatile);
        builder.composite(kind::STRUCT, "sock_common", 56, &[("skc_net", tagged, 48)]);
        assert_eq!(byte(&parse(&builder), "sock_common.skc_net.net"), Some(52));
    }

    /// In some releases before 6.1 `tcp_death_row` is a pointer: an offset from `net` to what it points to is no offset.
    #[test]
    fn a_path_does_not_cross_a_pointer() {
        let mut builder = Builder::new();
        let death_row = builder.composite(kind::STRUCT, "death_row", 8, &[("hashinfo", 0, 0)]);
        let pointer = builder.ptr(death_row);
        let array = builder.array(death_row, 2);
        builder.composite(
            kind::STRUCT,
            "netns_ipv4",
            32,
            &[("pointer", pointer, 0), ("array", array, 8), ("embedded", death_row, 24)],
        );
        let btf = parse(&builder);
        assert_eq!(byte(&btf, "netns_ipv4.pointer"), Some(0));
        assert_eq!(byte(&btf, "netns_ipv4.pointer.hashinfo"), None);
        assert_eq!(byte(&btf, "netns_ipv4.array.hashinfo"), None);
        assert_eq!(byte(&btf, "netns_ipv4.embedded.hashinfo"), Some(24));
    }

    #[test]
    fn bit_fields_with_sizes_in_their_members() {
        let mut builder = Builder::new();
        let byte_type = builder.int("unsigned char", 1);
        let bits = builder.bit_struct(
            "",
            4,
            &[("padding", byte_type, 0, 2), ("sk_userlocks", byte_type, 4, 4), ("wide", byte_type, 15, 10)],
        );
        builder.bit_struct("sock", 12, &[("plain", byte_type, 8, 0), ("", bits, 64, 0)]);
        let btf = parse(&builder);
        assert_eq!(byte_and_shift(&btf, "sock.plain"), Some((1, 0)));
        assert_eq!(byte_and_shift(&btf, "sock.sk_userlocks"), Some((8, 4)));
        assert_eq!(byte_and_shift(&btf, "sock.wide"), Some((9, 7)));
        assert_eq!(size(&btf, "sock.sk_userlocks"), Some(1));
        assert_eq!(size(&btf, "sock.wide"), Some(3));
    }

    #[test]
    fn bit_fields_as_narrowed_integers() {
        let mut builder = Builder::new();
        let plain = builder.int("unsigned char", 1);
        let narrow = builder.narrow_int("unsigned char", 1, 0, 4);
        let shifted = builder.narrow_int("unsigned char", 1, 5, 1);
        let typedef = builder.refer(kind::TYPEDEF, "u8", shifted);
        let [first, high, bit5] = ["plain", "high", "bit5"].map(|name| builder.string(name));
        let members = [first, plain, 8, high, narrow, 20, bit5, typedef, 24];
        builder.raw("old", kind::STRUCT, false, 3, 4, &members);
        let btf = parse(&builder);
        assert_eq!(byte_and_shift(&btf, "old.plain"), Some((1, 0)));
        assert_eq!(byte_and_shift(&btf, "old.high"), Some((2, 4)));
        assert_eq!(byte_and_shift(&btf, "old.bit5"), Some((3, 5)));
        assert_eq!(size(&btf, "old.high"), Some(1));
    }

    #[test]
    fn sizes_of_members() {
        let mut builder = Builder::new();
        let int = builder.int("int", 4);
        let pointer = builder.ptr(int);
        let row = builder.array(int, 3);
        let matrix = builder.array(row, 2);
        let colour = builder.enumeration("colour", false, &[]);
        let wide = builder.enumeration64("wide", false, &[]);
        let declared = builder.refer(kind::FWD, "declared", 0);
        let typedef = builder.refer(kind::TYPEDEF, "matrix_t", matrix);
        builder.composite(
            kind::STRUCT,
            "s",
            80,
            &[
                ("int", int, 0),
                ("pointer", pointer, 8),
                ("matrix", typedef, 16),
                ("colour", colour, 40),
                ("wide", wide, 48),
                ("declared", declared, 56),
                ("void", 0, 60),
            ],
        );
        let btf = parse(&builder);
        let sizes = ["int", "pointer", "matrix", "colour", "wide", "declared", "void"]
            .map(|name| size(&btf, &format!("s.{name}")));
        assert_eq!(sizes, [Some(4), Some(8), Some(24), Some(4), Some(8), None, None]);
        assert_eq!(size_of_struct(&btf, "s").value, Some(80));
        assert_eq!(size_of_struct(&btf, "int").value, None);
    }

    #[test]
    fn of_several_types_with_one_name_the_largest_that_has_the_member_answers() {
        let mut builder = Builder::new();
        let int = builder.int("int", 4);
        builder.composite(kind::STRUCT, "sock", 8, &[("sk_err", int, 4)]);
        builder.composite(kind::STRUCT, "sock", 700, &[("sk_err", int, 284), ("sk_uid", int, 600)]);
        builder.composite(kind::STRUCT, "sock", 900, &[("other", int, 0), ("sk_uid", int, 600)]);
        let btf = parse(&builder);
        let (err, uid) = (member(&btf, "sock.sk_err"), member(&btf, "sock.sk_uid"));
        assert_eq!((err.value.and_then(|found| found.byte()), err.ambiguous), (Some(284), true));
        assert_eq!((uid.value.and_then(|found| found.byte()), uid.ambiguous), (Some(600), false));
    }

    #[test]
    fn a_member_beyond_the_end_of_its_struct_is_not_believed() {
        let mut builder = Builder::new();
        let int = builder.int("int", 4);
        builder.composite(kind::STRUCT, "sock", 8, &[("end", int, 8), ("beyond", int, 9)]);
        let btf = parse(&builder);
        assert_eq!(byte(&btf, "sock.end"), Some(8)); // a flexible array stands there
        assert_eq!(byte(&btf, "sock.beyond"), None);
    }

    #[test]
    fn structs_that_contain_themselves_end_the_search() {
        let mut builder = Builder::new();
        let members: Vec<_> = (0..1000).map(|_| ("", 1, 0)).collect();
        builder.composite(kind::STRUCT, "sock", 8, &members);
        builder.raw("", kind::ARRAY, false, 0, 0, &[2, 0, 1]);
        builder.composite(kind::STRUCT, "s", 8, &[("array", 2, 0)]);
        let btf = parse(&builder);
        assert_eq!(byte(&btf, "sock.sk_err"), None);
        assert_eq!(size(&btf, "s.array"), None);
    }
}
