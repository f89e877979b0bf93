//! A type in words: `const struct sk_buff *`.

use super::format::Kind;
use super::reader::Btf;

/// Most pointers, qualifiers and arrays around a type that are written out.
const DEEPEST: u32 = 16;

/// The type as C writes it. Best effort: parameters of function pointers are left out, and what cannot be followed
/// (damaged references, too much nesting) is `?`.
pub(super) fn type_text(btf: &Btf, id: u32) -> String {
    text(btf, id, DEEPEST)
}

fn text(btf: &Btf, id: u32, depth: u32) -> String {
    if id == 0 {
        return String::from("void");
    }
    let (Some(found), Some(depth)) = (btf.get(id), depth.checked_sub(1)) else { return String::from("?") };
    let name = String::from_utf8_lossy(found.name());
    let target = |id| text(btf, id, depth);
    match found.kind {
        Kind::Struct => format!("struct {}", or_nameless(&name)),
        Kind::Union => format!("union {}", or_nameless(&name)),
        Kind::Enum | Kind::Enum64 => format!("enum {}", or_nameless(&name)),
        // The flag of a declaration tells a union from a struct.
        Kind::Fwd if found.flag => format!("union {name}"),
        Kind::Fwd => format!("struct {name}"),
        Kind::Ptr => pointer_to(&target(found.size_or_type)),
        Kind::Const => qualified("const", &target(found.size_or_type)),
        Kind::Volatile => qualified("volatile", &target(found.size_or_type)),
        Kind::Restrict => qualified("restrict", &target(found.size_or_type)),
        Kind::TypeTag => target(found.size_or_type),
        Kind::FuncProto => format!("{} ()", target(found.size_or_type)),
        Kind::Array => match found.array() {
            Some((element, count)) => format!("{}[{count}]", target(element)),
            None => String::from("?"),
        },
        Kind::Int | Kind::Float | Kind::Typedef => name.into_owned(),
        Kind::Func | Kind::Var | Kind::DataSec | Kind::DeclTag | Kind::Unknown => String::from("?"),
    }
}

fn or_nameless(name: &str) -> &str {
    if name.is_empty() { "{…}" } else { name }
}

/// `struct sock` → `struct sock *`, `void *` → `void **`, `int ()` → `int (*)()`.
fn pointer_to(target: &str) -> String {
    match target.strip_suffix(" ()") {
        Some(returned) => format!("{returned} (*)()"),
        None if target.ends_with('*') => format!("{target}*"),
        None => format!("{target} *"),
    }
}

/// `struct sock` → `const struct sock`, `struct sock *` → `struct sock *const`.
fn qualified(qualifier: &str, target: &str) -> String {
    if target.ends_with('*') { format!("{target}{qualifier}") } else { format!("{qualifier} {target}") }
}
