//! Names of kernel functions, from `/proc/kallsyms`.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};

/// Names by address. The list is some megabytes long: it is gone through once for each function that is asked for, which takes about
/// as long as the kernel takes to write it (50 ms), and nothing of it is kept but the answer. What drops packets drops more of them,
/// from other places in the same function: those have the same answer.
#[derive(Debug)]
pub struct Kallsyms {
    path: PathBuf,
    /// By the address at which the function begins, the one at which the next begins, and its name.
    known: BTreeMap<u64, (u64, Option<String>)>,
}

/// So many functions are remembered.
const REMEMBERED: usize = 1024;

impl Default for Kallsyms {
    fn default() -> Self {
        Self::at("/proc/kallsyms")
    }
}

impl Kallsyms {
    /// The list at `path`.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), known: BTreeMap::new() }
    }

    /// The function that `address` lies in, without what compilers append to copies of it (`.cold`, `.isra.0`); `None` if the
    /// list does not tell (`kernel.kptr_restrict`) or there is none.
    pub fn function_at(&mut self, address: u64) -> Option<String> {
        if address == 0 {
            return None;
        }
        if let Some((_, (end, name))) = self.known.range(..=address).next_back()
            && address < *end
        {
            return name.clone();
        }
        if self.known.len() >= REMEMBERED {
            self.known.clear();
        }
        let (start, end, name) = find(&self.path, address).unwrap_or_else(|error| {
            log::debug!("{}: {error}", self.path.display());
            (address, address.saturating_add(1), None)
        });
        self.known.insert(start, (end, name.clone()));
        name
    }
}

/// From where to where the function reaches that `address` lies in, and its name. Modules come after the kernel, in no order; of
/// several names for one address the first stands.
fn find(path: &Path, address: u64) -> io::Result<(u64, u64, Option<String>)> {
    let mut list = BufReader::new(File::open(path)?);
    let (mut start, mut end, mut name) = (0, u64::MAX, None);
    let mut line = String::new();
    while list.read_line(&mut line)? > 0 {
        if let Some((begins, called)) = function(&line) {
            if begins > address {
                end = begins.min(end);
            } else if begins > start {
                (start, name) = (begins, Some(called.to_owned()));
            }
        }
        line.clear();
    }
    Ok((start, end, name))
}

/// Where a function begins, and its name, if a line is about one.
fn function(line: &str) -> Option<(u64, &str)> {
    let mut fields = line.split_ascii_whitespace();
    let (start, kind, name) = (fields.next()?, fields.next()?, fields.next()?);
    // t, T, w, W: text.
    if !matches!(kind, "t" | "T" | "w" | "W") {
        return None;
    }
    // Whoever may not know them reads zeroes.
    let start = u64::from_str_radix(start, 16).ok().filter(|start| *start != 0)?;
    Some((start, name.split('.').next().unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_lies_in_the_function_before_it() {
        let path = std::env::temp_dir().join(format!("tcptrace-kallsyms-{}", std::process::id()));
        let list = "ffff01 t nf_hook_slow\nffff80 T ip_rcv\nffff80 T alias\nffff90 d data\nffff40 t ip_rcv_core.isra.0\nx y\n0 T zero\n";
        std::fs::write(&path, list).unwrap();
        let mut names = Kallsyms::at(&path);
        assert_eq!(names.function_at(0xffff3f).as_deref(), Some("nf_hook_slow"));
        assert_eq!(names.function_at(0xffff40).as_deref(), Some("ip_rcv_core"));
        assert_eq!(names.function_at(0xffff95).as_deref(), Some("ip_rcv"));
        assert_eq!(names.function_at(0xf), None);
        assert_eq!(names.function_at(0), None);
        std::fs::remove_file(&path).unwrap();
        assert_eq!(names.function_at(0xffff3f).as_deref(), Some("nf_hook_slow"), "asked before");
        assert_eq!(
            names.function_at(0xffff41).as_deref(),
            Some("ip_rcv_core"),
            "in a function that is known"
        );
        assert_eq!(names.function_at(0xffff7f).as_deref(), Some("ip_rcv_core"), "to its last byte");
        assert_eq!(names.function_at(0xffff80).as_deref(), Some("ip_rcv"), "and no further");
        assert_eq!(names.function_at(0xfffe), None, "before all of them");
        let mut names = Kallsyms::at(&path);
        assert_eq!(names.function_at(0xffff42), None, "there is no list");
    }

    #[test]
    fn a_list_of_zeroes_is_gone_through_once() {
        let path = std::env::temp_dir().join(format!("tcptrace-kallsyms-zeroes-{}", std::process::id()));
        std::fs::write(&path, "0 T ip_rcv\n0 t nf_hook_slow\n").unwrap();
        let mut names = Kallsyms::at(&path);
        assert_eq!(names.function_at(0xffff42), None);
        std::fs::write(&path, "ffff01 t nf_hook_slow\n").unwrap();
        assert_eq!(names.function_at(0xffff80), None, "nothing was to be known");
        std::fs::remove_file(&path).unwrap();
    }
}
