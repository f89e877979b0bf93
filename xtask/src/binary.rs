//! `cargo xtask static`: one `tcptrace` that runs anywhere on this architecture, in a guest without any library too.

use std::path::PathBuf;

use anyhow::Result;

use crate::{paths, tool};

const TARGET: &str = "x86_64-unknown-linux-gnu";
/// Optimised, as emulation is slow enough, but quick to build; see the workspace's Cargo.toml.
const PROFILE: &str = "guest";

/// Builds it and gives its file.
pub(crate) fn build() -> Result<PathBuf> {
    build_as(PROFILE)
}

/// Builds it in this profile and gives its file.
pub(crate) fn build_as(profile: &str) -> Result<PathBuf> {
    let target_dir = paths::target()?.join("xtask/static");
    tool::run(
        paths::cargo()
            .current_dir(paths::workspace()?)
            .env("CARGO_ENCODED_RUSTFLAGS", "-Ctarget-feature=+crt-static")
            .args(["build", "--quiet", "--package", "tcptrace", "--profile", profile, "--target", TARGET])
            .arg("--target-dir")
            .arg(&target_dir),
    )?;
    Ok(target_dir.join(TARGET).join(profile).join("tcptrace"))
}
