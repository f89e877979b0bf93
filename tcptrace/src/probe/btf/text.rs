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

#[cfg(test)]
mod tests {
    use super::super::builder::{Builder, kind};
    use super::*;

    #[test]
    fn types_read_as_c_writes_them() {
        let mut builder = Builder::new();
        let int = builder.int("int", 4);
        let sock = builder.composite(kind::STRUCT, "sock", 8, &[]);
        let constant = builder.refer(kind::CONST, "", sock);
        let pointer = builder.ptr(constant);
        let twice = builder.ptr(pointer);
        let constant_pointer = builder.refer(kind::CONST, "", pointer);
        let nameless = builder.composite(kind::UNION, "", 8, &[]);
        let colour = builder.enumeration("colour", false, &[]);
        let declared = builder.refer(kind::FWD, "declared", 0);
        let array = builder.array(int, 4);
        let prototype = builder.prototype(int, &[int]);
        let function_pointer = builder.ptr(prototype);
        let tagged = builder.refer(kind::TYPE_TAG, "rcu", sock);
        let typedef = builder.refer(kind::TYPEDEF, "u32", int);
        let circle = builder.ptr(builder.count() + 1);
        let btf = Btf::parse(builder.build()).unwrap();
        for (id, expected) in [
            (0, "void"),
            (int, "int"),
            (sock, "struct sock"),
            (pointer, "const struct sock *"),
            (twice, "const struct sock **"),
            (constant_pointer, "const struct sock *const"),
            (nameless, "union {…}"),
            (colour, "enum colour"),
            (declared, "struct declared"),
            (array, "int[4]"),
            (function_pointer, "int (*)()"),
            (tagged, "struct sock"),
            (typedef, "u32"),
            (99, "?"),
        ] {
            assert_eq!(type_text(&btf, id), expected);
        }
        assert!(type_text(&btf, circle).starts_with('?'));
    }
}
