//! libbpf-tools, as Debian packages them, with libraries of their own: the same programs whatever machine this is.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use crate::vm::{HostCopy, Series, Unpacked};

const PACKAGE: &str = "libbpf-tools";
/// As Debian calls them, lest they be taken for the Python tools of the same names.
const TOOLS: [&str; 2] = ["tcpconnlat-libbpf", "tcpstates-libbpf"];
const LOADER: &str = "ld-linux-x86-64.so.2";
/// What the tools are linked to, and what that is linked to.
const LIBRARIES: [&str; 5] = [LOADER, "libc.so.6", "libelf.so.1", "libz.so.1", "libzstd.so.1"];
/// Where the guest has all of them.
const GUEST: &str = "/peers";

/// What the guest must have.
pub(crate) fn copies() -> Result<Vec<HostCopy>> {
    // The one with the most hosts; its tools work on all kernels of the matrix.
    let suite = Series::V6_12.suite();
    let unpacked = Unpacked::new("peers", suite)?;
    let tree = unpacked.tree(
        suite,
        |apt| {
            let mut packages = vec![PACKAGE.to_owned()];
            packages.extend(apt.dependencies(PACKAGE, &["lib", "zlib"])?);
            packages.push("libzstd1".to_owned());
            Ok(packages)
        },
        |tree| files(tree).map(drop),
    )?;
    Ok(files(tree)?
        .into_iter()
        .map(|(host, name)| HostCopy { host, guest: Path::new(GUEST).join(name) })
        .collect())
}

/// The command that runs one of them in the guest.
pub(crate) fn command(tool: &str) -> Vec<String> {
    [format!("{GUEST}/{LOADER}"), "--library-path".into(), GUEST.into(), format!("{GUEST}/{tool}-libbpf")]
        .into()
}

fn files(tree: &Path) -> Result<Vec<(PathBuf, &'static str)>> {
    let mut files = Vec::new();
    for name in TOOLS.into_iter().chain(LIBRARIES) {
        let places = ["usr/sbin", "usr/bin", "usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu"];
        match places.iter().map(|place| tree.join(place).join(name)).find(|path| path.is_file()) {
            Some(path) => files.push((path, name)),
            None => bail!("{PACKAGE} and its libraries have no {name}"),
        }
    }
    Ok(files)
}
