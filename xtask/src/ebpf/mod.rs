//! `cargo xtask ebpf`: builds the committed eBPF object, or checks that it is what its sources give.

mod compile;
mod lock;
mod registers;
mod strip;
pub(crate) mod toolchain;

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use clap::Args as ClapArgs;

use self::lock::{Lock, digest};
use self::toolchain::Toolchain;
use crate::{paths, term};

#[derive(ClapArgs)]
pub(crate) struct Args {
    /// Write nothing: fail if the committed object does not match its sources, or a rebuild gives other bytes.
    #[arg(long)]
    check: bool,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let workspace = paths::workspace()?;
    if args.check { check(&workspace) } else { write(&workspace) }
}

fn write(workspace: &Path) -> Result<()> {
    let toolchain = Toolchain::find()?;
    let object = build(workspace, &toolchain)?;
    let lock = Lock::new(workspace, &toolchain, &object)?;
    let (object_path, lock_path) = (workspace.join(digest::OBJECT), workspace.join(digest::LOCK));
    if let Some(directory) = object_path.parent() {
        fs::create_dir_all(directory).with_context(|| format!("creating {}", directory.display()))?;
    }
    // An unchanged file keeps its time stamp: nobody has to rebuild.
    write_if_changed(&object_path, &object)?;
    write_if_changed(&lock_path, lock.to_string().as_bytes())?;
    term::note(format_args!("{}: {} bytes, sha256 {}", digest::OBJECT, object.len(), lock.object));
    Ok(())
}

fn check(workspace: &Path) -> Result<()> {
    let committed = fs::read(workspace.join(digest::OBJECT))
        .with_context(|| format!("reading {}; run: cargo xtask ebpf", digest::OBJECT))?;
    let lock = Lock::read(workspace)?;
    if lock.object != digest::of_bytes(&committed) {
        bail!("{} is not the object that its lock file names; run: cargo xtask ebpf", digest::OBJECT);
    }
    if lock.sources != digest::of_sources(workspace).context("reading the eBPF sources")? {
        bail!("{} was built from other sources than these; run: cargo xtask ebpf", digest::OBJECT);
    }
    let toolchain = Toolchain::find()?;
    let fresh = build(workspace, &toolchain)?;
    let here = Lock::new(workspace, &toolchain, &fresh)?;
    if !here.same_toolchain(&lock) {
        term::note(format_args!(
            "the object matches its sources and they build; bytes are not compared, as this toolchain \
             ({}) is not the recorded one ({})",
            here.toolchain(),
            lock.toolchain()
        ));
        return Ok(());
    }
    if fresh != committed {
        bail!(
            "the recorded toolchain builds another object ({} bytes, sha256 {}) than the committed one ({} bytes, \
             sha256 {}); run: cargo xtask ebpf",
            fresh.len(),
            here.object,
            committed.len(),
            lock.object
        );
    }
    term::note("the committed eBPF object matches its sources, and a rebuild gives the same bytes");
    Ok(())
}

fn build(workspace: &Path, toolchain: &Toolchain) -> Result<Vec<u8>> {
    registers::check(workspace)?;
    let built = compile::compile(workspace, toolchain)?;
    let content = fs::read(&built).with_context(|| format!("reading {}", built.display()))?;
    strip::debug_information(&content).with_context(|| format!("stripping {}", built.display()))
}

fn write_if_changed(path: &Path, content: &[u8]) -> Result<()> {
    if fs::read(path).is_ok_and(|old| old == content) {
        return Ok(());
    }
    fs::write(path, content).with_context(|| format!("writing {}", path.display()))
}
