//! Names of kernel functions, from `/proc/kallsyms`.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};

/// Names by address. The list is long, and read at once for all that is asked within some seconds.
#[derive(Debug)]
pub struct Kallsyms {
    path: PathBuf,
    known: HashMap<u64, Option<String>>,
    functions: Option<Functions>,
    /// For how many seconds nobody has asked for an address that was not known.
    idle: u32,
}

/// So many addresses are remembered.
const REMEMBERED: usize = 1024;
/// For so many seconds the list is kept in memory (a few MB): what drops packets drops more of them, by neighbours of the
/// same function.
const KEPT: u32 = 10;

impl Default for Kallsyms {
    fn default() -> Self {
        Self::at("/proc/kallsyms")
    }
}

impl Kallsyms {
    /// The list at `path`.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), known: HashMap::new(), functions: None, idle: 0 }
    }

    /// The function that `address` lies in, without what compilers append to copies of it (`.cold`, `.isra.0`); `None` if the
    /// list does not tell (`kernel.kptr_restrict`) or there is none.
    pub fn function_at(&mut self, address: u64) -> Option<String> {
        if address == 0 {
            return None;
        }
        if let Some(known) = self.known.get(&address) {
            return known.clone();
        }
        if self.known.len() >= REMEMBERED {
            self.known.clear();
        }
        self.idle = 0;
        let functions = self.functions.get_or_insert_with(|| {
            Functions::read(&self.path).unwrap_or_else(|error| {
                log::debug!("{}: {error}", self.path.display());
                Functions::default()
            })
        });
        let name = functions.at(address).map(str::to_owned);
        self.known.insert(address, name.clone());
        name
    }

    /// A second has passed.
    pub fn second(&mut self) {
        self.idle = self.idle.saturating_add(1);
        if self.idle > KEPT {
            self.functions = None;
        }
    }
}

/// Where each function starts, and its name.
#[derive(Debug, Default)]
struct Functions {
    /// In the order of addresses; the name is the line of `names` at that place.
    starts: Vec<(u64, usize)>,
    names: String,
}

impl Functions {
    fn read(path: &Path) -> io::Result<Self> {
        let mut list = BufReader::new(File::open(path)?);
        let mut functions = Self::default();
        let mut line = String::new();
        while list.read_line(&mut line)? > 0 {
            functions.add(&line);
            line.clear();
        }
        // Modules come after the kernel, in no order. Of several names for one address the first stands.
        functions.starts.sort_by_key(|(start, _)| *start);
        functions.starts.dedup_by_key(|(start, _)| *start);
        Ok(functions)
    }

    fn add(&mut self, line: &str) {
        let mut fields = line.split_ascii_whitespace();
        let (Some(start), Some(kind), Some(name)) = (fields.next(), fields.next(), fields.next()) else {
            return;
        };
        // t, T, w, W: text.
        if !matches!(kind, "t" | "T" | "w" | "W") {
            return;
        }
        // Whoever may not know them reads zeroes.
        let Some(start) = u64::from_str_radix(start, 16).ok().filter(|start| *start != 0) else { return };
        self.starts.push((start, self.names.len()));
        self.names.push_str(name.split('.').next().unwrap_or_default());
        self.names.push('\n');
    }

    fn at(&self, address: u64) -> Option<&str> {
        let after = self.starts.partition_point(|(start, _)| *start <= address);
        let (_, at) = self.starts.get(after.checked_sub(1)?)?;
        self.names.get(*at..)?.lines().next()
    }
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
        assert_eq!(names.function_at(0xffff41).as_deref(), Some("ip_rcv_core"), "the list is kept");
        (0..=KEPT).for_each(|_| names.second());
        assert_eq!(names.function_at(0xffff3f).as_deref(), Some("nf_hook_slow"), "asked before");
        assert_eq!(names.function_at(0xffff42), None, "the list was forgotten, and is gone");
    }
}
