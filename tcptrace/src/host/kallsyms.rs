//! Names of kernel functions, from `/proc/kallsyms`.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;

/// Names by address. Reads the list once for each address that it was not asked before: they are few, the list is long.
#[derive(Debug)]
pub struct Kallsyms {
    path: PathBuf,
    known: HashMap<u64, Option<String>>,
}

/// So many addresses are remembered.
const REMEMBERED: usize = 1024;

impl Default for Kallsyms {
    fn default() -> Self {
        Self::at("/proc/kallsyms")
    }
}

impl Kallsyms {
    /// The list at `path`.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), known: HashMap::new() }
    }

    /// The function that `address` lies in, without what compilers append to copies of it (`.cold`, `.isra.0`); `None` if the
    /// list does not tell (`kernel.kptr_restrict`) or there is none.
    pub fn function_at(&mut self, address: u64) -> Option<String> {
        if address == 0 {
            return None;
        }
        if self.known.len() >= REMEMBERED {
            self.known.clear();
        }
        let path = &self.path;
        self.known.entry(address).or_insert_with(|| find(path, address)).clone()
    }
}

fn find(path: &PathBuf, address: u64) -> Option<String> {
    let list = BufReader::new(File::open(path).inspect_err(|error| log::debug!("kallsyms: {error}")).ok()?);
    let mut best: Option<(u64, String)> = None;
    for line in list.lines() {
        let line = line.ok()?;
        let mut fields = line.split_ascii_whitespace();
        let (Some(at), Some(kind), Some(name)) = (fields.next(), fields.next(), fields.next()) else {
            continue;
        };
        // t, T, w, W: text.
        if !matches!(kind, "t" | "T" | "w" | "W") {
            continue;
        }
        let Ok(at) = u64::from_str_radix(at, 16) else { continue };
        if at != 0 && at <= address && best.as_ref().is_none_or(|(known, _)| at > *known) {
            best = Some((at, name.to_owned()));
        }
    }
    best.map(|(_, name)| name.split('.').next().unwrap_or_default().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_lies_in_the_function_before_it() {
        let path = std::env::temp_dir().join(format!("tcptrace-kallsyms-{}", std::process::id()));
        let list = "ffff01 t nf_hook_slow\nffff80 T ip_rcv\nffff90 d data\nffff40 t ip_rcv_core.isra.0\nx y\n0 T zero\n";
        std::fs::write(&path, list).unwrap();
        let mut names = Kallsyms::at(&path);
        assert_eq!(names.function_at(0xffff3f).as_deref(), Some("nf_hook_slow"));
        assert_eq!(names.function_at(0xffff40).as_deref(), Some("ip_rcv_core"));
        assert_eq!(names.function_at(0xffff95).as_deref(), Some("ip_rcv"));
        assert_eq!(names.function_at(0xf), None);
        assert_eq!(names.function_at(0), None);
        std::fs::remove_file(&path).unwrap();
        assert_eq!(names.function_at(0xffff3f).as_deref(), Some("nf_hook_slow"), "asked before");
        assert_eq!(names.function_at(0xffff41), None);
    }
}
