//! Compiles `tcptrace-ebpf` so that the bytes depend on the sources and the toolchain alone.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use super::toolchain::Toolchain;
use crate::{paths, term, tool};

const TARGET: &str = "bpfel-unknown-none";
const PACKAGE: &str = "tcptrace-ebpf";
/// aya-ebpf wants one, for the calls that read a probed function's registers; [`super::registers`] sees to it that none is used.
const GUEST_ARCH: &str = "x86_64";
/// Variables that would change the build from outside; the rest (registries, proxies, CARGO_HOME) has to stay.
const MEDDLING: [&str; 12] = [
    "CARGO_ENCODED_RUSTFLAGS",
    "CARGO_INCREMENTAL",
    "CARGO_TARGET_DIR",
    "RUSTC",
    "RUSTC_WORKSPACE_WRAPPER",
    "RUSTC_WRAPPER",
    "RUSTDOC",
    "RUSTFLAGS",
    "RUSTUP_TOOLCHAIN",
    "RUST_TARGET_PATH",
    "CARGO_MANIFEST_DIR",
    "CARGO",
];

/// Builds the object, DWARF and all, and gives its file.
pub(crate) fn compile(workspace: &Path, toolchain: &Toolchain) -> Result<PathBuf> {
    // cargo notices another rustc by itself, but not another linker: each has a directory of its own.
    let target_dir = paths::target()?.join("xtask/ebpf").join(toolchain.linker_version.replace(' ', "-"));
    let llvm = only_this_llvm(&target_dir, toolchain)?;
    term::note(format_args!("building the eBPF object with rustc {}", toolchain.rustc_version));
    let mut command = Command::new(&toolchain.cargo);
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        if MEDDLING.contains(&&*text)
            || ["CARGO_BUILD_", "CARGO_PROFILE_", "CARGO_TARGET_", "CARGO_PKG_"]
                .iter()
                .any(|prefix| text.starts_with(prefix))
        {
            command.env_remove(&name);
        }
    }
    command
        .current_dir(workspace)
        .env("RUSTC", &toolchain.rustc)
        // `core` for this target can only be built with a flag that stable compilers hide.
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_ENCODED_RUSTFLAGS", flags(workspace)?)
        // Not among the flags: they are part of what symbols are named after, and this path differs between machines.
        .env("CARGO_TARGET_BPFEL_UNKNOWN_NONE_LINKER", &toolchain.linker)
        .env("LD_LIBRARY_PATH", llvm)
        .args(["build", "--quiet", "--locked", "--release", "--package", PACKAGE, "--target", TARGET])
        .args(["-Z", "build-std=core"])
        .arg("--target-dir")
        .arg(&target_dir);
    tool::run(&mut command)?;
    Ok(target_dir.join(TARGET).join("release").join(PACKAGE))
}

/// The compiler's flags, in cargo's notation for several.
fn flags(workspace: &Path) -> Result<OsString> {
    let mut flags = vec![
        format!("--cfg=bpf_target_arch=\"{GUEST_ARCH}\""),
        // The linker makes BTF out of it.
        "-Cdebuginfo=2".to_owned(),
        "-Clink-arg=--btf".to_owned(),
        "-Clink-arg=--disable-expand-memcpy-in-order".to_owned(),
    ];
    // Where files lie ends up in panic messages and line information.
    flags.push(format!("--remap-path-prefix={}=/tcptrace", workspace.display()));
    for registry in registries()? {
        flags.push(format!("--remap-path-prefix={}=/crates", registry.display()));
    }
    Ok(flags.join("\x1f").into())
}

/// Where cargo unpacks the sources of libraries.
fn registries() -> Result<Vec<PathBuf>> {
    let home = match env::var_os("CARGO_HOME") {
        Some(home) => PathBuf::from(home),
        None => env::home_dir().context("neither CARGO_HOME nor HOME is set")?.join(".cargo"),
    };
    let Ok(entries) = fs::read_dir(home.join("registry/src")) else { return Ok(Vec::new()) };
    Ok(entries.flatten().map(|entry| entry.path()).collect())
}

/// A directory with one libLLVM in it: the linker takes the first one that it meets on its way.
fn only_this_llvm(target_dir: &Path, toolchain: &Toolchain) -> Result<PathBuf> {
    let directory = target_dir.join("llvm");
    if directory.exists() {
        fs::remove_dir_all(&directory).with_context(|| format!("clearing {}", directory.display()))?;
    }
    fs::create_dir_all(&directory).with_context(|| format!("creating {}", directory.display()))?;
    let name = toolchain.llvm.file_name().context("a library has a name")?;
    symlink(&toolchain.llvm, directory.join(name))
        .with_context(|| format!("linking {}", toolchain.llvm.display()))?;
    Ok(directory)
}
