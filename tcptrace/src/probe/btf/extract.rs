//! A BTF that says one thing only: which number a function has. aya wants a whole one to look that up, and a kernel's is some
//! hundred thousand types, whose reading takes longer than all else that a short-lived program has to do.

use aya_obj::btf::{BtfType, Func, FuncLinkage, Ptr};

use super::reader::Btf;

impl Btf {
    /// BTF for aya in which the function `name` has the number that it has here, and all types before it are `void *`. `None`
    /// if there is no such function.
    #[must_use]
    pub fn extract_function(&self, name: &str) -> Option<aya::Btf> {
        let id = self.function_id(name)?;
        let mut extract = aya::Btf::new();
        for _ in 1..id {
            extract.add_type(BtfType::Ptr(Ptr::new(0, 0)));
        }
        let name = extract.add_string(name);
        extract.add_type(BtfType::Func(Func::new(name, 0, FuncLinkage::Static)));
        Some(extract)
    }
}

#[cfg(test)]
mod tests {
    use aya_obj::btf::BtfKind;

    use super::super::builder::Builder;
    use super::*;

    #[test]
    fn the_number_is_the_kernel_s() {
        const FUNC: &str = "bpf_iter_task_file";
        let mut builder = Builder::new();
        let byte = builder.int("unsigned char", 1);
        builder.function("tcp_v4_connect", byte, &[byte]);
        builder.function(FUNC, byte, &[byte, byte]);
        let btf = Btf::parse(builder.build()).unwrap();
        let extract = btf.extract_function(FUNC).unwrap();
        assert_eq!(extract.id_by_type_name_kind(FUNC, BtfKind::Func).ok(), btf.function_id(FUNC));
        assert!(extract.id_by_type_name_kind("tcp_v4_connect", BtfKind::Func).is_err());
        assert!(btf.extract_function("no_such_function").is_none());
    }
}
