//! Finding types by name: one sorted list of hashes, cheaper to build than a map of 70,000 strings.

/// Longest name that is looked up, in bytes: the kernel's own bound on BTF names (`KSYM_NAME_LEN`). It also bounds the
/// work that a hostile file can cause by letting many types share one enormous name.
const LONGEST: usize = 512;

/// Type ids by the hash of their name. Equal hashes are told apart by the caller, who compares the names.
#[derive(Default)]
pub(super) struct NameIndex {
    sorted: Vec<(u32, u32)>,
}

impl NameIndex {
    /// The index over `(hash, id)` pairs in any order.
    pub(super) fn new(mut pairs: Vec<(u32, u32)>) -> Self {
        pairs.sort_unstable();
        Self { sorted: pairs }
    }

    /// Ids of the types whose name may be `name`, lowest first.
    pub(super) fn candidates(&self, name: &[u8]) -> impl Iterator<Item = u32> {
        let hash = hash(name.iter().copied());
        let from = self.sorted.partition_point(|(other, _)| *other < hash);
        self.sorted.iter().skip(from).take_while(move |(other, _)| *other == hash).map(|(_, id)| *id)
    }
}

/// Hash of the NUL-terminated string at the start of `text`; `None` for an empty or too long one.
pub(super) fn hash_at(text: &[u8]) -> Option<u32> {
    let name = until_nul(text);
    (!name.is_empty()).then(|| hash(name.iter().copied()))
}

/// The NUL-terminated string at the start of `text`; empty if it is too long for a name.
pub(super) fn until_nul(text: &[u8]) -> &[u8] {
    let text = text.get(..LONGEST).unwrap_or(text);
    text.iter().position(|byte| *byte == 0).and_then(|end| text.get(..end)).unwrap_or_default()
}

/// FNV-1a.
fn hash(bytes: impl Iterator<Item = u8>) -> u32 {
    bytes.fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_every_type_of_a_name_in_order() {
        let hash = |name: &[u8]| hash(name.iter().copied());
        let index = NameIndex::new(vec![(hash(b"sock"), 9), (hash(b"net"), 2), (hash(b"sock"), 3)]);
        assert_eq!(index.candidates(b"sock").collect::<Vec<_>>(), [3, 9]);
        assert_eq!(index.candidates(b"net").collect::<Vec<_>>(), [2]);
        assert_eq!(index.candidates(b"socket").count(), 0);
    }

    #[test]
    fn a_name_ends_at_its_nul_and_has_a_greatest_length() {
        assert_eq!(until_nul(b"sock\0net\0"), b"sock");
        assert_eq!(until_nul(b"no end"), b"");
        assert_eq!(until_nul(&[[b'x'; 511].as_slice(), b"\0"].concat()).len(), 511);
        assert_eq!(until_nul(&[[b'x'; 512].as_slice(), b"\0"].concat()), b"");
        assert_eq!(hash_at(b"sock\0net\0"), Some(hash(b"sock".iter().copied())));
        assert_eq!(hash_at(b"\0"), None);
        assert_eq!(hash_at(b""), None);
    }
}
