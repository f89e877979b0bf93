//! The lock file beside the object: what it was built from, and with what.

use std::fmt;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};

use super::toolchain::Toolchain;

#[path = "../../../tcptrace/build/digest.rs"]
pub(crate) mod digest;

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Lock {
    pub(crate) sources: String,
    pub(crate) object: String,
    rustc: String,
    llvm: String,
    linker: String,
}

impl Lock {
    /// The lock of an object that was just built.
    pub(crate) fn new(workspace: &Path, toolchain: &Toolchain, object: &[u8]) -> Result<Self> {
        Ok(Self {
            sources: digest::of_sources(workspace).context("reading the eBPF sources")?,
            object: digest::of_bytes(object),
            rustc: toolchain.rustc_version.clone(),
            llvm: toolchain.llvm_version.clone(),
            linker: toolchain.linker_version.clone(),
        })
    }

    pub(crate) fn read(workspace: &Path) -> Result<Self> {
        let text = fs::read_to_string(workspace.join(digest::LOCK))
            .with_context(|| format!("reading {}; run: cargo xtask ebpf", digest::LOCK))?;
        Self::parse(&text)
    }

    fn parse(text: &str) -> Result<Self> {
        let value = |key| {
            digest::lookup(text, key)
                .map(str::to_owned)
                .with_context(|| format!("{} has no `{key}`; run: cargo xtask ebpf", digest::LOCK))
        };
        Ok(Self {
            sources: value(digest::SOURCES_KEY)?,
            object: value(digest::OBJECT_KEY)?,
            rustc: value("rustc")?,
            llvm: value("llvm")?,
            linker: value("linker")?,
        })
    }

    /// Whether the same programs made both: only then their bytes can be compared.
    pub(crate) fn same_toolchain(&self, other: &Self) -> bool {
        self.toolchain() == other.toolchain()
    }

    pub(crate) fn toolchain(&self) -> String {
        format!("rustc {}, LLVM {}, {}", self.rustc, self.llvm, self.linker)
    }
}

impl fmt::Display for Lock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "# What the object beside this file was built from. Written by `cargo xtask ebpf`; not to be edited."
        )?;
        writeln!(f, "{} = {}", digest::SOURCES_KEY, self.sources)?;
        writeln!(f, "{} = {}", digest::OBJECT_KEY, self.object)?;
        writeln!(f, "rustc = {}", self.rustc)?;
        writeln!(f, "llvm = {}", self.llvm)?;
        writeln!(f, "linker = {}", self.linker)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_read_as_it_was_written() {
        let lock = Lock {
            sources: "ab".into(),
            object: "cd".into(),
            rustc: "1.96.0 (ac68faa20 2026-05-25)".into(),
            llvm: "22.1.8".into(),
            linker: "bpf-linker 0.10.4".into(),
        };
        assert_eq!(Lock::parse(&lock.to_string()).unwrap(), lock);
        assert!(Lock::parse("sources = ab\n").is_err());
    }

    #[test]
    fn the_digest_sees_every_change() {
        use std::fs::{create_dir_all, write};
        let workspace = tempfile::tempdir().unwrap();
        let at = |path: &str| workspace.path().join(path);
        assert!(digest::sources(workspace.path()).unwrap().is_empty(), "no kernel side");
        for directory in ["tcptrace-ebpf/src/attach", "tcptrace-common/src"] {
            create_dir_all(at(directory)).unwrap();
        }
        let library = |version: &str| format!("[[package]]\nname = \"aya-ebpf\"\nversion = \"{version}\"\n");
        for (path, text) in [
            ("tcptrace-ebpf/Cargo.toml", ""),
            ("tcptrace-ebpf/src/main.rs", "fn main() {}"),
            ("tcptrace-common/Cargo.toml", ""),
            ("tcptrace-common/src/lib.rs", ""),
            ("Cargo.lock", library("0.2.1").as_str()),
        ] {
            write(at(path), text).unwrap();
        }
        let mut seen = vec![digest::of_sources(workspace.path()).unwrap()];
        for (path, text) in [
            ("tcptrace-ebpf/src/main.rs", "fn main() { }"),
            ("tcptrace-ebpf/src/attach/new.rs", ""),
            ("tcptrace-common/Cargo.toml", "[package]"),
            ("Cargo.lock", library("0.2.2").as_str()),
        ] {
            write(at(path), text).unwrap();
            let digest = digest::of_sources(workspace.path()).unwrap();
            assert!(!seen.contains(&digest), "{path}");
            seen.push(digest);
        }
        write(at("tcptrace-ebpf/src/.main.rs.swp"), "x").unwrap();
        write(
            at("Cargo.lock"),
            format!("{}[[package]]\nname = \"syn\"\nversion = \"9.0.0\"\n", library("0.2.2")),
        )
        .unwrap();
        assert_eq!(seen.last(), Some(&digest::of_sources(workspace.path()).unwrap()), "no source");
    }
}
