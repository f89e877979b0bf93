//! The compiler and linker for the kernel side, and what tells one set of them from another.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::{paths, tool, vm};

/// The last bpf-linker that uses the LLVM of the rustc at hand instead of one that it is built with.
pub(crate) const LINKER_VERSION: &str = "0.10.4";

pub(crate) struct Toolchain {
    pub(crate) cargo: PathBuf,
    pub(crate) rustc: PathBuf,
    pub(crate) linker: PathBuf,
    /// The very libLLVM that this rustc uses. The linker must use no other: their bitcode differs.
    pub(crate) llvm: PathBuf,
    pub(crate) rustc_version: String,
    pub(crate) llvm_version: String,
    pub(crate) linker_version: String,
}

impl Toolchain {
    pub(crate) fn find() -> Result<Self> {
        let rustc = find_rustc()?;
        let cargo = rustc.with_file_name("cargo");
        if !cargo.is_file() {
            bail!("{} has no cargo beside it; run: cargo xtask setup", rustc.display());
        }
        let linker = find_linker().context("bpf-linker is not installed; run: cargo xtask setup")?;
        let verbose = tool::capture_text(Command::new(&rustc).arg("-vV"))?;
        let field = |prefix: &str| {
            verbose
                .lines()
                .find_map(|line| line.strip_prefix(prefix))
                .map(|value| value.trim().to_owned())
                .with_context(|| format!("{} does not tell its {prefix}", rustc.display()))
        };
        Ok(Self {
            llvm: llvm_of(&rustc)?,
            rustc_version: field("rustc ")?,
            llvm_version: field("LLVM version:")?,
            linker_version: tool::capture_text(Command::new(&linker).arg("--version"))?.trim().to_owned(),
            cargo,
            rustc,
            linker,
        })
    }
}

/// `core` has to be compiled for the BPF target, so a rustc counts only with the sources of its library beside it.
/// The distribution's own comes first: it is what the committed object is built with.
pub(crate) fn find_rustc() -> Result<PathBuf> {
    let candidates = [Some(PathBuf::from("/usr/bin/rustc")), active_rustc()];
    for rustc in candidates.into_iter().flatten().filter(|path| path.is_file()) {
        let sysroot = sysroot_of(&rustc)?;
        if sysroot.join("lib/rustlib/src/rust/library/core/Cargo.toml").is_file() && is_recent(&rustc)? {
            return Ok(rustc);
        }
    }
    bail!("no recent rustc with the sources of its library is installed; run: cargo xtask setup")
}

/// Whether it is at least the version that the workspace asks for.
fn is_recent(rustc: &Path) -> Result<bool> {
    let version = tool::capture_text(Command::new(rustc).arg("--version"))?;
    let number = version.split_whitespace().nth(1).unwrap_or_default();
    Ok(major_minor(number) >= major_minor(env!("CARGO_PKG_RUST_VERSION")))
}

/// `(1, 96)` out of `1.96.0-nightly`; nothing sorts below everything.
fn major_minor(version: &str) -> Option<(u32, u32)> {
    let mut parts = version.split('.');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// The rustc that builds this workspace: behind rustup's stand-in, the one that it would start.
fn active_rustc() -> Option<PathBuf> {
    let on_path = paths::find_program("rustc")?;
    Some(sysroot_of(&on_path).ok()?.join("bin/rustc"))
}

fn sysroot_of(rustc: &Path) -> Result<PathBuf> {
    let sysroot = tool::capture_text(Command::new(rustc).args(["--print", "sysroot"]))?;
    Ok(PathBuf::from(sysroot.trim()))
}

/// Where `cargo xtask setup` puts the linker.
pub(crate) fn linker_root() -> Result<PathBuf> {
    Ok(paths::cache()?.join(format!("bpf-linker-{LINKER_VERSION}")))
}

pub(crate) fn find_linker() -> Option<PathBuf> {
    let own = linker_root().ok()?.join("bin/bpf-linker");
    if own.is_file() { Some(own) } else { paths::find_program("bpf-linker") }
}

/// Asks the dynamic loader; there may be several libLLVM on a machine.
fn llvm_of(rustc: &Path) -> Result<PathBuf> {
    vm::libraries_of(rustc)?
        .into_iter()
        .find(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("libLLVM")))
        .with_context(|| format!("{} uses no libLLVM of its own that bpf-linker could use", rustc.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_as_numbers() {
        assert!(major_minor("1.100.0") > major_minor("1.96.0-nightly"));
        assert!(major_minor("what") < major_minor("1.0"));
    }
}
