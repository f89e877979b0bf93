//! The encoding of BTF: kinds, sizes and byte order, as in the kernel's `include/uapi/linux/btf.h`.

/// First two bytes of any BTF, read in its own byte order.
pub(super) const MAGIC: u16 = 0xeb9f;
/// The only version there has ever been.
pub(super) const VERSION: u8 = 1;
/// Bytes of the header that every kernel writes.
pub(super) const HEADER_LEN: usize = 24;
/// Bytes of `struct btf_type`, before what its kind appends.
pub(super) const TYPE_LEN: usize = 12;

/// In which order the bytes of a number stand: that of the kernel described, found from the magic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ByteOrder {
    Little,
    Big,
}

impl ByteOrder {
    pub(super) const fn u32(self, bytes: [u8; 4]) -> u32 {
        match self {
            Self::Little => u32::from_le_bytes(bytes),
            Self::Big => u32::from_be_bytes(bytes),
        }
    }
}

/// What a type is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Int,
    Ptr,
    Array,
    Struct,
    Union,
    Enum,
    Fwd,
    Typedef,
    Volatile,
    Const,
    Restrict,
    Func,
    FuncProto,
    Var,
    DataSec,
    Float,
    DeclTag,
    TypeTag,
    Enum64,
    /// A kind newer than this reader, skipped by the sizes that the BTF's own layout section gives.
    Unknown,
}

impl Kind {
    /// The kind with that number; `None` for numbers that this reader does not know.
    pub(super) const fn from_number(number: u8) -> Option<Self> {
        Some(match number {
            1 => Self::Int,
            2 => Self::Ptr,
            3 => Self::Array,
            4 => Self::Struct,
            5 => Self::Union,
            6 => Self::Enum,
            7 => Self::Fwd,
            8 => Self::Typedef,
            9 => Self::Volatile,
            10 => Self::Const,
            11 => Self::Restrict,
            12 => Self::Func,
            13 => Self::FuncProto,
            14 => Self::Var,
            15 => Self::DataSec,
            16 => Self::Float,
            17 => Self::DeclTag,
            18 => Self::TypeTag,
            19 => Self::Enum64,
            _ => return None,
        })
    }

    /// Bytes that follow a `struct btf_type` of this kind: once, and for each of its `vlen` elements.
    pub(super) const fn payload(self) -> (u32, u32) {
        match self {
            Self::Int | Self::Var | Self::DeclTag => (4, 0),
            Self::Array => (12, 0),
            Self::Struct | Self::Union | Self::DataSec | Self::Enum64 => (0, 12),
            Self::Enum | Self::FuncProto => (0, 8),
            Self::Ptr
            | Self::Fwd
            | Self::Typedef
            | Self::Volatile
            | Self::Const
            | Self::Restrict
            | Self::Func
            | Self::Float
            | Self::TypeTag
            | Self::Unknown => (0, 0),
        }
    }

    /// Whether types of this kind are looked up by name.
    pub(super) const fn is_looked_up(self) -> bool {
        matches!(self, Self::Struct | Self::Union | Self::Enum | Self::Enum64 | Self::Func | Self::Typedef)
    }

    /// Whether the type has enumerators.
    pub(super) const fn is_enum(self) -> bool {
        matches!(self, Self::Enum | Self::Enum64)
    }

    /// Whether the type has members.
    pub(super) const fn is_composite(self) -> bool {
        matches!(self, Self::Struct | Self::Union)
    }

    /// Whether the type only renames or qualifies another, without changing its layout.
    pub(super) const fn is_transparent(self) -> bool {
        matches!(self, Self::Typedef | Self::Volatile | Self::Const | Self::Restrict | Self::TypeTag)
    }
}
