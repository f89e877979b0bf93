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
    while let Some(name) = components.next() {
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
    let (offset, width) = if parent.flag { (raw.offset & 0x00ff_ffff, raw.offset >> 24) } else { (raw.offset, 0) };
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
        Kind::Int | Kind::Float | Kind::Struct | Kind::Union | Kind::Enum | Kind::Enum64 => Some(found.size_or_type),
        Kind::Ptr => Some(POINTER_LEN),
        Kind::Array => {
            let (element, count) = found.array()?;
            size_of(btf, element, depth.checked_sub(1)?)?.checked_mul(count)
        }
        _ => None,
    }
}
