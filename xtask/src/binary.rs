//! `cargo xtask static`: one `tcptrace` that runs anywhere on its architecture, in a guest without any library too.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::arch::Arch;
use crate::{paths, term, tool};

/// Optimised, as emulation is slow enough, but quick to build; see the workspace's Cargo.toml.
const PROFILE: &str = "guest";
/// Compiles C and links for arm64. (`cc`, which builds zstd, looks for it by this name too.)
const ARM64_COMPILER: &str = "aarch64-linux-gnu-gcc";

/// Builds it and gives its file.
pub(crate) fn build(arch: Arch) -> Result<PathBuf> {
    build_as(PROFILE, arch)
}

/// Builds it in this profile and gives its file.
pub(crate) fn build_as(profile: &str, arch: Arch) -> Result<PathBuf> {
    build_package("tcptrace", profile, arch, paths::cargo())
}

/// This very program, for a guest of that architecture: its agent.
pub(crate) fn build_agent(arch: Arch) -> Result<PathBuf> {
    build_package("xtask", PROFILE, arch, paths::cargo())
}

/// Builds `tcptrace` and the agent while something else is measured: only with what that leaves of the processors.
pub(crate) fn build_beside(arch: Arch) -> Result<PathBuf> {
    let patient = || {
        let mut command = Command::new("nice");
        command.args(["-n", "19"]).arg(paths::cargo().get_program());
        command
    };
    build_package("xtask", PROFILE, arch, patient())?;
    build_package("tcptrace", PROFILE, arch, patient())
}

fn build_package(package: &str, profile: &str, arch: Arch, mut cargo: Command) -> Result<PathBuf> {
    let target_dir = paths::target()?.join("xtask/static");
    cargo
        .current_dir(paths::workspace()?)
        .env("CARGO_ENCODED_RUSTFLAGS", "-Ctarget-feature=+crt-static")
        .args(["build", "--quiet", "--package", package, "--profile", profile, "--target", arch.target()])
        .arg("--target-dir")
        .arg(&target_dir);
    if arch == Arch::Arm64 {
        if !has_compiler() || !has_library() {
            bail!(
                "building for arm64 takes {ARM64_COMPILER}, its C library, and Rust's library for {} (by rustup); run: \
                 cargo xtask setup",
                arch.target()
            );
        }
        cargo.env("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER", ARM64_COMPILER);
    }
    tool::run(&mut cargo)?;
    Ok(target_dir.join(arch.target()).join(profile).join(package))
}

/// Whether C can be compiled and programs be linked for arm64.
pub(crate) fn has_compiler() -> bool {
    paths::find_program(ARM64_COMPILER).is_some() && Path::new("/usr/aarch64-linux-gnu/lib/libc.a").is_file()
}

/// Whether the Rust that builds this workspace has its library for arm64.
fn has_library() -> bool {
    rustc_says(&["--print", "target-libdir", "--target", Arch::Arm64.target()])
        .is_ok_and(|directory| Path::new(&directory).is_dir())
}

/// Has rustup fetch the library for arm64, unless it is there.
pub(crate) fn install_library() -> Result<()> {
    let target = Arch::Arm64.target();
    if has_library() {
        return Ok(());
    }
    let Some(rustup) = paths::find_program("rustup") else {
        bail!("this machine's Rust has no library for {target}, and there is no rustup to get it with");
    };
    term::note(format_args!("adding Rust's library for {target}"));
    // Of the toolchain that runs us, which need not be rustup's default.
    let toolchain = rustc_says(&["--print", "sysroot"])?;
    let toolchain = Path::new(&toolchain).file_name().context("a toolchain's directory has a name")?;
    tool::capture(Command::new(rustup).args(["target", "add", target, "--toolchain"]).arg(toolchain))?;
    Ok(())
}

/// One line of the rustc beside the cargo that runs us.
fn rustc_says(arguments: &[&str]) -> Result<String> {
    let rustc = std::env::var_os("RUSTC").map_or_else(|| "rustc".into(), PathBuf::from);
    let said = tool::capture_text(Command::new(rustc).args(arguments))?;
    Ok(said.trim().to_owned())
}
