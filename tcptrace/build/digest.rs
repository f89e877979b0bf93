//! What the committed eBPF object stands for. Shared by `tcptrace`'s build script, which checks it, and by
//! `cargo xtask ebpf`, which writes it: there is one definition of "the sources".

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

/// The object, from the workspace's root.
pub(crate) const OBJECT: &str = "tcptrace/ebpf/tcptrace.bpf.o";
/// The lock file beside it: lines of `key = value`.
pub(crate) const LOCK: &str = "tcptrace/ebpf/tcptrace.bpf.lock";
/// The lock file's keys that both sides read.
pub(crate) const SOURCES_KEY: &str = "sources";
pub(crate) const OBJECT_KEY: &str = "object";

/// The kernel side and what it shares with the user side. (A crate that is published alone has neither beside it.)
const SOURCE_ROOTS: [&str; 4] =
    ["tcptrace-common/Cargo.toml", "tcptrace-common/src", "tcptrace-ebpf/Cargo.toml", "tcptrace-ebpf/src"];
/// Libraries that put code of their own into the object; their versions count as sources.
const LIBRARY_PREFIXES: [&str; 3] = ["aya-ebpf", "aya-log-common", "aya-log-ebpf"];

/// The source files below the workspace's root, sorted; none if the kernel side is not there at all.
pub(crate) fn sources(workspace: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    if !workspace.join("tcptrace-ebpf/src").is_dir() {
        return Ok(files);
    }
    for root in SOURCE_ROOTS {
        collect(workspace, Path::new(root), &mut files)?;
    }
    files.sort();
    Ok(files)
}

fn collect(workspace: &Path, inside: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    let path = workspace.join(inside);
    if !path.is_dir() {
        files.push(inside.to_path_buf());
        return Ok(());
    }
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        let name = entry.file_name();
        // An editor's backup or swap file is nobody's source.
        let name_text = name.to_string_lossy();
        if entry.file_type()?.is_dir() || (name_text.ends_with(".rs") && !name_text.starts_with('.')) {
            collect(workspace, &inside.join(name), files)?;
        }
    }
    Ok(())
}

/// One digest over the names and contents of all sources, and over the versions of the libraries.
pub(crate) fn of_sources(workspace: &Path) -> io::Result<String> {
    let mut hasher = Sha256::new();
    for file in sources(workspace)? {
        let content = fs::read(workspace.join(&file))?;
        hasher.update(file.to_string_lossy().as_bytes());
        // The length keeps one file's end from passing for the next one's beginning.
        hasher.update(format!("\0{}\0", content.len()));
        hasher.update(content);
    }
    for library in libraries(&fs::read_to_string(workspace.join("Cargo.lock"))?) {
        hasher.update(library);
        hasher.update("\n");
    }
    Ok(hex(&hasher.finalize()))
}

/// The digest of a file's content.
pub(crate) fn of_bytes(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// The value of a key in the lock file's text.
pub(crate) fn lookup<'a>(lock: &'a str, key: &str) -> Option<&'a str> {
    lock.lines().find_map(|line| {
        let (name, value) = line.split_once('=')?;
        (name.trim() == key).then(|| value.trim())
    })
}

/// `name version` of each library in Cargo.lock, sorted.
fn libraries(cargo_lock: &str) -> Vec<String> {
    let mut found = Vec::new();
    for package in cargo_lock.split("[[package]]") {
        let field = |key| lookup(package, key).map(|value| value.trim_matches('"'));
        if let (Some(name), Some(version)) = (field("name"), field("version"))
            && LIBRARY_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
        {
            found.push(format!("{name} {version}"));
        }
    }
    found.sort();
    found
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
