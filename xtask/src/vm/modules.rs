//! Which kernel modules a guest gets, and the index files by which `modprobe` finds them.
//!
//! Debian makes the index when a package is installed; these packages are only unpacked, so it is made here.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use object::{Object as _, ObjectSection as _};

use super::cpio::Archive;
use crate::tool;

/// Whole folders: what a network test may load by name or by the kernel's own request.
const FOLDERS: [&str; 14] = [
    "kernel/net/802",
    "kernel/net/8021q",
    "kernel/net/bridge",
    "kernel/net/core",
    "kernel/net/ipv4",
    "kernel/net/ipv6",
    "kernel/net/key",
    "kernel/net/mptcp",
    "kernel/net/netfilter",
    "kernel/net/netlink",
    "kernel/net/packet",
    "kernel/net/sched",
    "kernel/net/tls",
    "kernel/net/unix",
];
/// Single modules: virtual devices, servers of the kernel's own, and what the harness itself needs.
const NAMES: [&str; 17] = [
    "bonding",
    // Asked for by nf_tables through libcrc32c, which says so only as a `softdep`.
    "crc32c_generic",
    "dummy",
    "ifb",
    "ipvlan",
    "macvlan",
    "nfsd",
    "nlmon",
    "overlay",
    "rds_tcp",
    "smc",
    "tun",
    "veth",
    "virtio_console",
    "virtio_pci",
    "vrf",
    "vxlan",
];

/// A module and what it says of itself.
struct Module {
    /// In the modules' directory, without the ending of a compression.
    path: PathBuf,
    content: Vec<u8>,
    needs: Vec<String>,
    aliases: Vec<String>,
}

/// Puts the wanted modules and all that they need into the archive.
pub(crate) fn add(archive: &mut Archive, release: &str, directory: &Path) -> Result<()> {
    let modules = closure(directory)?;
    let home = Path::new("lib/modules").join(release);
    for module in modules.values() {
        archive.file(&home.join(&module.path), 0o644, &module.content)?;
    }
    archive.file(&home.join("modules.dep"), 0o644, dependency_index(&modules).as_bytes())?;
    archive.file(&home.join("modules.alias"), 0o644, alias_index(&modules)?.as_bytes())?;
    // A name that is built in must not be an error of `modprobe`.
    for index in ["modules.builtin", "modules.order"] {
        if let Ok(content) = fs::read(directory.join(index)) {
            archive.file(&home.join(index), 0o644, &content)?;
        }
    }
    Ok(())
}

fn closure(directory: &Path) -> Result<BTreeMap<String, Module>> {
    let mut files = BTreeMap::new();
    find(directory, &directory.join("kernel"), &mut files)?;
    let mut waiting: Vec<String> = files
        .iter()
        .filter(|(name, path)| {
            NAMES.contains(&name.as_str()) || FOLDERS.iter().any(|folder| path.starts_with(folder))
        })
        .map(|(name, _)| name.clone())
        .collect();
    let mut modules = BTreeMap::new();
    while let Some(name) = waiting.pop() {
        if modules.contains_key(&name) {
            continue;
        }
        let path = files.get(&name).with_context(|| format!("a module needs {name}, which is not there"))?;
        let module = read(directory, path)?;
        waiting.extend(module.needs.iter().cloned());
        modules.insert(name, module);
    }
    Ok(modules)
}

/// All module files below, by the name that the kernel gives them.
fn find(root: &Path, directory: &Path, files: &mut BTreeMap<String, PathBuf>) -> Result<()> {
    for entry in fs::read_dir(directory).with_context(|| format!("reading {}", directory.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            find(root, &path, files)?;
            continue;
        }
        let name = path.file_name().map(OsStr::to_string_lossy).unwrap_or_default();
        if let Some((stem, "ko" | "ko.xz" | "ko.zst" | "ko.gz")) = name.split_once('.') {
            let inside = path.strip_prefix(root).context("a path below its own root")?;
            files.insert(kernel_name(stem), inside.to_path_buf());
        }
    }
    Ok(())
}

/// The kernel takes `-` and `_` in a module's name for the same.
fn kernel_name(name: &str) -> String {
    name.replace('-', "_")
}

fn read(directory: &Path, path: &Path) -> Result<Module> {
    let file = directory.join(path);
    let unpack = match path.extension().and_then(OsStr::to_str) {
        Some("xz") => Some("xz"),
        Some("zst") => Some("zstd"),
        Some("gz") => Some("gzip"),
        _ => None,
    };
    let (content, path) = match unpack {
        None => (fs::read(&file).with_context(|| format!("reading {}", file.display()))?, path.to_path_buf()),
        // busybox may lack the format, and a guest under emulation would be slow at it.
        Some(program) => {
            (tool::capture(Command::new(program).arg("-dc").arg(&file))?.stdout, path.with_extension(""))
        }
    };
    let (needs, aliases) = describe(&content).with_context(|| format!("reading {}", file.display()))?;
    Ok(Module { path, content, needs, aliases })
}

/// Dependencies and aliases out of a module's `.modinfo`.
fn describe(content: &[u8]) -> Result<(Vec<String>, Vec<String>)> {
    let elf = object::File::parse(content)?;
    let section = elf.section_by_name(".modinfo").context("no .modinfo")?;
    let mut needs = Vec::new();
    let mut aliases = Vec::new();
    for line in section.data()?.split(|byte| *byte == 0) {
        match String::from_utf8_lossy(line).split_once('=') {
            Some(("depends", list)) => {
                needs.extend(list.split(',').filter(|name| !name.is_empty()).map(kernel_name));
            }
            Some(("alias", alias)) => aliases.push(alias.to_owned()),
            _ => {}
        }
    }
    Ok((needs, aliases))
}

/// `modules.dep`: each module's file and all that must be loaded before it, the deepest last.
fn dependency_index(modules: &BTreeMap<String, Module>) -> String {
    let mut index = String::new();
    for (name, module) in modules {
        let mut order = Vec::new();
        before(name, modules, &mut order);
        let needed = order.iter().rev().filter_map(|needed| modules.get(needed));
        let _infallible = write!(index, "{}:", module.path.display());
        for needed in needed {
            let _infallible = write!(index, " {}", needed.path.display());
        }
        index.push('\n');
    }
    index
}

/// What has to be loaded before a module, in the order of loading.
fn before(name: &str, modules: &BTreeMap<String, Module>, order: &mut Vec<String>) {
    let Some(module) = modules.get(name) else { return };
    for need in &module.needs {
        before(need, modules, order);
        if !order.contains(need) {
            order.push(need.clone());
        }
    }
}

fn alias_index(modules: &BTreeMap<String, Module>) -> Result<String> {
    let mut lines = BTreeSet::new();
    for (name, module) in modules {
        for alias in &module.aliases {
            if alias.contains(char::is_whitespace) {
                bail!("the alias {alias:?} of {name} cannot be written to an index");
            }
            lines.insert(format!("alias {alias} {name}\n"));
        }
    }
    Ok(lines.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn module(path: &str, needs: &[&str]) -> Module {
        Module {
            path: path.into(),
            content: Vec::new(),
            needs: needs.iter().map(|need| (*need).to_owned()).collect(),
            aliases: vec![format!("net-{path}")],
        }
    }

    #[test]
    fn what_is_needed_first_stands_last() {
        let modules = BTreeMap::from([
            ("tcp_diag".to_owned(), module("tcp_diag.ko", &["inet_diag", "base"])),
            ("inet_diag".to_owned(), module("inet_diag.ko", &["base"])),
            ("base".to_owned(), module("base.ko", &[])),
        ]);
        let index = dependency_index(&modules);
        assert_eq!(index, "base.ko:\ninet_diag.ko: base.ko\ntcp_diag.ko: inet_diag.ko base.ko\n");
        assert!(alias_index(&modules).unwrap().contains("alias net-base.ko base\n"));
    }
}
