//! BTF layout, attach plan and coverage, loading, ring buffer to batches of bytes.

pub mod btf;
