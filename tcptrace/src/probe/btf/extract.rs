//! A BTF that says one thing only: which number a function has. aya wants a whole one to look that up, and a kernel's is some
//! hundred thousand types, whose reading takes longer than all else that a short-lived program has to do.

use super::reader::Btf;

const MAGIC: u16 = 0xeb9f;
const HEADER_LEN: u32 = 24;
/// `struct btf_type` without what follows it.
const TYPE_LEN: u32 = 12;
const KIND_PTR: u32 = 2;
const KIND_FUNC: u32 = 12;

impl Btf {
    /// BTF in this machine's byte order, in which the function `name` has the number that it has here, and all types before it
    /// are `void *`. `None` if there is no such function.
    #[must_use]
    pub fn extract_function(&self, name: &str) -> Option<Vec<u8>> {
        let id = self.function_id(name)?;
        let types = id.checked_mul(TYPE_LEN)?;
        let strings = u32::try_from(name.len()).ok()?.checked_add(2)?;
        let mut bytes = Vec::new();
        bytes.extend(MAGIC.to_ne_bytes());
        bytes.extend([1, 0]);
        for word in [HEADER_LEN, 0, types, types, strings] {
            bytes.extend(word.to_ne_bytes());
        }
        let mut add = |name: u32, kind: u32| {
            for word in [name, kind << 24, 0] {
                bytes.extend(word.to_ne_bytes());
            }
        };
        for _ in 1..id {
            add(0, KIND_PTR);
        }
        add(1, KIND_FUNC);
        bytes.push(0);
        bytes.extend(name.as_bytes());
        bytes.push(0);
        Some(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FUNC: &str = "bpf_iter_task_file";

    #[test]
    fn the_number_is_the_kernel_s() {
        let Ok(btf) = Btf::load() else { return println!("skipped: no BTF here") };
        let Some(bytes) = btf.extract_function(FUNC) else { return println!("skipped: no such function") };
        let small = Btf::parse(bytes.clone()).unwrap();
        assert_eq!(small.function_id(FUNC), btf.function_id(FUNC));
        assert!(!small.has_function("tcp_v4_connect"));
        assert!(aya::Btf::parse(&bytes, aya::Endianness::default()).is_ok());
        assert_eq!(btf.extract_function("no_such_function"), None);
    }
}
