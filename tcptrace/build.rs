//! Refuses to embed an eBPF object that was built from other sources than those that lie here.
//!
//! The object is committed, so that stable Rust alone builds `tcptrace`; this keeps it from growing stale unnoticed.

#[path = "build/digest.rs"]
mod digest;

use std::env;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

fn main() {
    let outcome = match env::var_os("CARGO_MANIFEST_DIR") {
        Some(manifest) => check(&PathBuf::from(manifest).join("..")),
        None => Err("cargo did not say where this crate lies".to_owned()),
    };
    if let Err(reason) = outcome {
        println!("cargo::error={reason}");
    }
}

fn check(workspace: &Path) -> Result<(), String> {
    let sources = digest::sources(workspace).map_err(|error| unreadable("the eBPF sources", &error))?;
    for file in ["tcptrace/build.rs", "tcptrace/build/digest.rs"].map(PathBuf::from).iter().chain(&sources) {
        println!("cargo::rerun-if-changed={}", workspace.join(file).display());
    }
    // A published crate has no eBPF sources beside it; what was checked when it was packed is in it.
    if sources.is_empty() {
        return Ok(());
    }
    // Directories too, for files that come or go; and Cargo.lock, which has the libraries' versions.
    for file in ["tcptrace-ebpf/src", "tcptrace-common/src", "Cargo.lock", digest::LOCK, digest::OBJECT] {
        println!("cargo::rerun-if-changed={}", workspace.join(file).display());
    }
    let lock = fs::read_to_string(workspace.join(digest::LOCK))
        .map_err(|error| stale(&format!("{} cannot be read ({error})", digest::LOCK)))?;
    let object = fs::read(workspace.join(digest::OBJECT))
        .map_err(|error| stale(&format!("{} cannot be read ({error})", digest::OBJECT)))?;
    if digest::lookup(&lock, digest::OBJECT_KEY) != Some(&digest::of_bytes(&object)) {
        return Err(stale(&format!("{} is not the object that its lock file names", digest::OBJECT)));
    }
    let now = digest::of_sources(workspace).map_err(|error| unreadable("the eBPF sources", &error))?;
    if digest::lookup(&lock, digest::SOURCES_KEY) != Some(&now) {
        return Err(stale(&format!("{} was built from other sources than these", digest::OBJECT)));
    }
    Ok(())
}

fn stale(reason: &str) -> String {
    format!("the eBPF object is out of date: {reason}; run: cargo xtask ebpf")
}

fn unreadable(what: &str, error: &io::Error) -> String {
    format!("{what} cannot be read: {error}")
}
