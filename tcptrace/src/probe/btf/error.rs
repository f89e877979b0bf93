//! Why bytes are not BTF that can be read.

use super::format::{MAGIC, VERSION};

/// Why bytes are not BTF that can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BtfError {
    /// The file ends inside the header.
    #[error("too short for a BTF header: {0} bytes")]
    ShortHeader(usize),
    /// The first two bytes are not BTF's.
    #[error("not BTF: it starts with {0:#06x} instead of {MAGIC:#06x}")]
    Magic(u16),
    /// A version that does not exist yet.
    #[error("BTF version {0} is not supported, only {VERSION}")]
    Version(u8),
    /// The header is shorter than any kernel's, or longer than the file.
    #[error("the BTF header claims an impossible length of {0} bytes")]
    HeaderLength(u32),
    /// A section that the header names reaches beyond the end of the file.
    #[error("the BTF {0} section reaches beyond the end of the file")]
    Section(&'static str),
    /// The last string has no end.
    #[error("the BTF string section does not end with a NUL")]
    UnendedStrings,
    /// What belongs to a type reaches beyond the type section.
    #[error("BTF type {id} reaches beyond the end of the type section")]
    CutType {
        /// Number of the type, from 1.
        id: u32,
    },
    /// A kind newer than this reader, in a BTF without a layout section to say how long it is.
    #[error("BTF type {id} is of kind {kind}, which this version of tcptrace does not know")]
    UnknownKind {
        /// Number of the type, from 1.
        id: u32,
        /// Number of the kind.
        kind: u8,
    },
    /// A type's name lies outside the string section: a damaged file, or the BTF of a module without its base.
    #[error("the name of BTF type {id} lies outside the string section (is this the BTF of a module?)")]
    Name {
        /// Number of the type, from 1.
        id: u32,
    },
}
