//! Functions and tracepoints: what exists here, and with which parameters.
//!
//! That a function is described does not mean that its callers go through it: compilers inline calls within a file.
//! And one that is not described may still exist: some kernels describe no static functions at all.

use super::enumeration::agreed;
use super::format::Kind;
use super::member::Answer;
use super::reader::{Btf, Type};
use super::text::type_text;

/// What the kernel puts before a tracepoint's name to declare the type of its probes.
const TRACEPOINT_PREFIX: &str = "btf_trace_";

impl Btf {
    /// Whether a function of that name is described.
    #[must_use]
    pub fn has_function(&self, name: &str) -> bool {
        self.named(name).any(|found| found.kind == Kind::Func)
    }

    /// The number of the function of that name; the lowest, if there are several.
    #[must_use]
    pub fn function_id(&self, name: &str) -> Option<u32> {
        self.ids(name).filter(|(_, found)| found.kind == Kind::Func).map(|(id, _)| id).min()
    }

    /// Whether a tracepoint of that name (`kfree_skb`, without its group) can be attached to with its types.
    #[must_use]
    pub fn has_tracepoint(&self, name: &str) -> bool {
        let name = format!("{TRACEPOINT_PREFIX}{name}");
        prototypes(self, &name).next().is_some()
    }

    /// Number of parameters of the function `name`, or of the tracepoint `T` if `name` is `btf_trace_T`: there it counts
    /// the leading context, which programs do not see.
    ///
    /// `None` if it is not described, or if static functions of that name differ.
    #[must_use]
    pub fn params_of(&self, name: &str) -> Option<u32> {
        params(self, name).value
    }

    /// Whether the function returns anything. `None` if it is not described, or if static functions of that name differ.
    #[must_use]
    pub fn function_returns(&self, name: &str) -> Option<bool> {
        agreed(prototypes(self, name).map(|prototype| prototype.size_or_type != 0)).value
    }

    /// The return type as C writes it, at its best effort: `struct sock *`, `bool`, `void`.
    #[must_use]
    pub fn return_type_name(&self, name: &str) -> Option<String> {
        agreed(prototypes(self, name).map(|prototype| type_text(self, prototype.size_or_type))).value
    }

    /// The type of parameter `index` (from 0) as C writes it, at its best effort: `const struct sk_buff *`.
    /// `name` is as in [`Btf::params_of`].
    ///
    /// `None` if there is no such function or parameter, or if static functions of that name differ.
    #[must_use]
    pub fn param_type_name(&self, name: &str, index: usize) -> Option<String> {
        let types = prototypes(self, name).map(|prototype| prototype.params().nth(index));
        agreed(types.map(|id| id.map(|id| type_text(self, id)))).value.flatten()
    }
}

/// Number of parameters, as [`Btf::params_of`].
pub(super) fn params(btf: &Btf, name: &str) -> Answer<u32> {
    agreed(prototypes(btf, name).map(|prototype| prototype.params().len()))
        .and_then(|count| u32::try_from(count).ok())
}

/// Prototypes of the functions called `name`, and of the pointers to functions that are called so by a typedef.
fn prototypes<'a>(btf: &'a Btf, name: &'a str) -> impl Iterator<Item = Type<'a>> {
    btf.named(name)
        .filter_map(|found| match found.kind {
            Kind::Func => btf.get(found.size_or_type),
            Kind::Typedef => {
                let pointer = btf.get_plain(found.size_or_type).filter(|target| target.kind == Kind::Ptr)?;
                btf.get_plain(pointer.size_or_type)
            }
            _ => None,
        })
        .filter(|found| found.kind == Kind::FuncProto)
}

#[cfg(test)]
mod tests {
    use super::super::builder::{Builder, kind};
    use super::*;

    fn functions() -> Btf {
        let mut builder = Builder::new();
        let int = builder.int("int", 4);
        let sock = builder.composite(kind::STRUCT, "sock", 8, &[]);
        let constant = builder.refer(kind::CONST, "", sock);
        let constant_pointer = builder.ptr(constant);
        let pointer = builder.ptr(sock);
        builder.function("accept", pointer, &[constant_pointer, int]);
        builder.function("print", 0, &[int, 0]);
        builder.function("same", int, &[int]);
        builder.function("same", int, &[int]);
        builder.function("differs", 0, &[int]);
        builder.function("differs", int, &[int, int]);
        let void = builder.ptr(0);
        let prototype = builder.prototype(0, &[void, pointer]);
        let probe = builder.ptr(prototype);
        builder.refer(kind::TYPEDEF, "btf_trace_drop", probe);
        builder.refer(kind::TYPEDEF, "btf_trace_fake", int);
        builder.refer(kind::FUNC, "damaged", int);
        Btf::parse(builder.build()).unwrap()
    }

    #[test]
    fn parameters_and_results() {
        let btf = functions();
        assert!(
            btf.has_function("accept") && !btf.has_function("sock") && !btf.has_function("btf_trace_drop")
        );
        assert_eq!(btf.params_of("accept"), Some(2));
        assert_eq!(btf.params_of("absent"), None);
        assert_eq!(btf.params_of("damaged"), None);
        assert_eq!(btf.function_returns("accept"), Some(true));
        assert_eq!(btf.function_returns("print"), Some(false));
        assert_eq!(btf.return_type_name("accept").as_deref(), Some("struct sock *"));
        assert_eq!(btf.return_type_name("print").as_deref(), Some("void"));
        assert_eq!(btf.param_type_name("accept", 0).as_deref(), Some("const struct sock *"));
        assert_eq!(btf.param_type_name("accept", 1).as_deref(), Some("int"));
        assert_eq!(btf.param_type_name("accept", 2), None);
    }

    #[test]
    fn functions_of_one_name_must_agree() {
        let btf = functions();
        assert_eq!(params(&btf, "same"), Answer { value: Some(1), ambiguous: false });
        assert_eq!(params(&btf, "differs"), Answer { value: None, ambiguous: true });
        assert_eq!(btf.function_returns("differs"), None);
        assert_eq!(btf.param_type_name("differs", 0).as_deref(), Some("int"));
        assert_eq!(btf.param_type_name("differs", 1), None);
    }

    #[test]
    fn tracepoints_are_typedefs_of_pointers_to_functions() {
        let btf = functions();
        assert!(btf.has_tracepoint("drop") && !btf.has_tracepoint("fake") && !btf.has_tracepoint("absent"));
        assert_eq!(btf.params_of("btf_trace_drop"), Some(2));
        assert_eq!(btf.param_type_name("btf_trace_drop", 0).as_deref(), Some("void *"));
        assert_eq!(btf.param_type_name("btf_trace_drop", 1).as_deref(), Some("struct sock *"));
    }
}
