//! What a program of this machine needs to run in a guest: its loader and libraries, at the same paths.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use object::read::elf::FileHeader as _;

use crate::tool;

/// The files that must be copied along; none for a static program, a script or data.
pub(crate) fn needed_by(program: &Path, content: &[u8]) -> Result<BTreeSet<PathBuf>> {
    if !wants_a_loader(content) {
        return Ok(BTreeSet::new());
    }
    of_program(program)
        .with_context(|| format!("{} would not start in a guest; link it statically", program.display()))
}

/// The libraries that the dynamic loader would give a program, the loader included.
pub(crate) fn of_program(program: &Path) -> Result<BTreeSet<PathBuf>> {
    parse(&tool::capture_text(Command::new("ldd").arg(program))?)
}

/// Whether this is a program with an interpreter (the loader) written in it.
fn wants_a_loader(content: &[u8]) -> bool {
    let Ok(header) = object::elf::FileHeader64::<object::Endianness>::parse(content) else { return false };
    let Ok(endian) = header.endian() else { return false };
    let Ok(segments) = header.program_headers(endian, content) else { return false };
    segments.iter().any(|segment| segment.p_type.get(endian) == object::elf::PT_INTERP)
}

/// Reads what ldd prints: `libc.so.6 => /lib/…/libc.so.6 (0x…)`, `/lib64/ld-linux-x86-64.so.2 (0x…)`, and the vDSO.
fn parse(listing: &str) -> Result<BTreeSet<PathBuf>> {
    let mut files = BTreeSet::new();
    for line in listing.lines().map(str::trim) {
        if line.contains("not found") {
            bail!("a library is missing: {line}");
        }
        let place = line.split_once("=> ").map_or(line, |(_, place)| place);
        let path = place.split(" (").next().unwrap_or_default();
        if path.starts_with('/') {
            files.insert(PathBuf::from(path));
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_ldd_prints() {
        let listing = "\tlinux-vdso.so.1 (0x00007ffc)\n\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f)\n\
                       \t/lib64/ld-linux-x86-64.so.2 (0x00007f)\n";
        let files: Vec<_> = parse(listing).unwrap().into_iter().collect();
        assert_eq!(
            files,
            [PathBuf::from("/lib/x86_64-linux-gnu/libc.so.6"), PathBuf::from("/lib64/ld-linux-x86-64.so.2")]
        );
        assert!(parse("\tlibodd.so.1 => not found\n").is_err());
    }

    #[test]
    fn a_script_needs_nothing() {
        assert!(needed_by(Path::new("/x"), b"#!/bin/sh\n").unwrap().is_empty());
    }
}
