//! Names of kernel functions, from `/proc/kallsyms`.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};

/// Names by address. The kernel takes 50 ms to write the list, and an emulated one seconds, during which the tracer looks at nothing
/// else: it is gone through once for all that is asked for within a minute.
#[derive(Debug)]
pub struct Kallsyms {
    path: PathBuf,
    modules: PathBuf,
    /// By the address at which the function begins, the one at which the next begins, and its name.
    known: BTreeMap<u64, (u64, Option<String>)>,
    list: Option<List>,
    /// For how many seconds nobody has asked for a function that was not known.
    idle: u32,
}

/// So many functions are remembered.
const REMEMBERED: usize = 1024;
/// For so many seconds the list is kept in memory (2 MB). What drops packets drops more of them, and has neighbours that do.
const KEPT: u32 = 60;

impl Default for Kallsyms {
    fn default() -> Self {
        Self::at("/proc/kallsyms", "/proc/modules")
    }
}

impl Kallsyms {
    /// The list at `path`, of a kernel whose modules are at `modules`.
    pub fn at(path: impl Into<PathBuf>, modules: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), modules: modules.into(), known: BTreeMap::new(), list: None, idle: 0 }
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
        self.idle = 0;
        // With the first rule of a kind its module comes, among those that are in the list.
        let modules = modules(&self.modules);
        let read = || {
            List::read(&self.path, modules.clone()).unwrap_or_else(|error| {
                log::debug!("{}: {error}", self.path.display());
                List::default()
            })
        };
        let list = self.list.take().filter(|list| list.modules == modules).unwrap_or_else(read);
        let (start, end, name) = list.at(address).map_or_else(
            || (address, address.saturating_add(1), None),
            |(start, end, name)| (start, end, Some(name.to_owned())),
        );
        self.list = Some(list);
        self.known.insert(start, (end, name.clone()));
        name
    }

    /// A second has passed.
    pub fn second(&mut self) {
        self.idle = self.idle.saturating_add(1);
        if self.idle > KEPT {
            self.list = None;
        }
    }
}

/// The names of the modules, whose functions are in the list; empty where there are none.
fn modules(path: &Path) -> Vec<String> {
    let text = fs::read_to_string(path).unwrap_or_default();
    let mut names: Vec<String> =
        text.lines().filter_map(|line| line.split_ascii_whitespace().next()).map(str::to_owned).collect();
    names.sort_unstable();
    names
}

/// All functions, in the order of their addresses.
#[derive(Debug, Default)]
struct List {
    modules: Vec<String>,
    starts: Vec<u64>,
    /// Where in `names` each one's name begins.
    places: Vec<u32>,
    /// The names, each with a line's end.
    names: String,
}

impl List {
    /// Modules come after the kernel, in no order; of several names for one address the first stands.
    fn read(path: &Path, modules: Vec<String>) -> io::Result<Self> {
        let mut list = BufReader::new(File::open(path)?);
        let mut functions: Vec<(u64, u32)> = Vec::new();
        let mut names = String::new();
        let mut line = String::new();
        while list.read_line(&mut line)? > 0 {
            if let Some((begins, name)) = function(&line) {
                let Ok(place) = u32::try_from(names.len()) else { break };
                functions.push((begins, place));
                names.push_str(name);
                names.push('\n');
            }
            line.clear();
        }
        functions.sort_by_key(|(begins, _)| *begins);
        functions.dedup_by_key(|(begins, _)| *begins);
        names.shrink_to_fit();
        let (starts, places) = functions.into_iter().unzip();
        Ok(Self { modules, starts, places, names })
    }

    /// From where to where the function reaches that `address` lies in, and its name.
    fn at(&self, address: u64) -> Option<(u64, u64, &str)> {
        let next = self.starts.partition_point(|start| *start <= address);
        let at = next.checked_sub(1)?;
        let place = usize::try_from(*self.places.get(at)?).ok()?;
        let name = self.names.get(place..)?.lines().next()?;
        Some((*self.starts.get(at)?, self.starts.get(next).copied().unwrap_or(u64::MAX), name))
    }
}

/// Where a function begins, and its name, if a line is about one.
fn function(line: &str) -> Option<(u64, &str)> {
    let mut fields = line.split_ascii_whitespace();
    let (start, kind, name) = (fields.next()?, fields.next()?, fields.next()?);
    // t, T, w, W: text.
    if !matches!(kind, "t" | "T" | "w" | "W") {
        return None;
    }
    // Nothing runs in the room before a function that can be called indirectly (`__pfx_`, from 6.4 on; half of all names).
    if name.starts_with("__pfx_") {
        return None;
    }
    // Whoever may not know them reads zeroes.
    let start = u64::from_str_radix(start, 16).ok().filter(|start| *start != 0)?;
    Some((start, name.split('.').next().unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A list and the modules in a directory of their own, which goes when the test does.
    struct Kernel(PathBuf);

    impl Kernel {
        fn new(name: &str, list: &str) -> Self {
            let place = std::env::temp_dir().join(format!("tcptrace-kallsyms-{name}-{}", std::process::id()));
            fs::create_dir_all(&place).unwrap();
            let kernel = Self(place);
            kernel.lists(list);
            kernel
        }

        fn lists(&self, list: &str) {
            fs::write(self.0.join("kallsyms"), list).unwrap();
        }

        fn has_modules(&self, modules: &str) {
            fs::write(self.0.join("modules"), modules).unwrap();
        }

        fn names(&self) -> Kallsyms {
            Kallsyms::at(self.0.join("kallsyms"), self.0.join("modules"))
        }
    }

    impl Drop for Kernel {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn an_address_lies_in_the_function_before_it() {
        let kernel = Kernel::new(
            "lies",
            "ffff01 t nf_hook_slow\nffff70 T __pfx_ip_rcv\nffff80 T ip_rcv\nffff80 T alias\nffff90 d data\n\
             ffff40 t ip_rcv_core.isra.0\nx y\n0 T zero\n",
        );
        let mut names = kernel.names();
        assert_eq!(names.function_at(0xffff3f).as_deref(), Some("nf_hook_slow"));
        // The list is not read again for another function.
        kernel.lists("");
        assert_eq!(names.function_at(0xffff40).as_deref(), Some("ip_rcv_core"));
        assert_eq!(names.function_at(0xffff7f).as_deref(), Some("ip_rcv_core"), "to its last byte");
        assert_eq!(names.function_at(0xffff95).as_deref(), Some("ip_rcv"), "and no further");
        assert_eq!(names.function_at(0xf), None, "before all of them");
        assert_eq!(names.function_at(0), None);
        assert_eq!(kernel.names().function_at(0xffff42), None, "there is no list");
    }

    #[test]
    fn the_list_is_forgotten_and_what_was_found_is_not() {
        let kernel = Kernel::new("forgets", "ffff01 t nf_hook_slow\nffff80 T ip_rcv\n");
        let mut names = kernel.names();
        assert_eq!(names.function_at(0xffff3f).as_deref(), Some("nf_hook_slow"));
        (0..=KEPT).for_each(|_| names.second());
        kernel.lists("ffff01 t other\nffff80 T ip_receive\n");
        assert_eq!(names.function_at(0xffff42).as_deref(), Some("nf_hook_slow"), "asked before");
        assert_eq!(names.function_at(0xffff85).as_deref(), Some("ip_receive"));
    }

    #[test]
    fn a_module_that_came_since_is_in_the_list() {
        let kernel = Kernel::new("module", "ffff01 t nf_hook_slow\nffff80 T ip_rcv\n");
        kernel.has_modules("veth 1 0 - Live 0x0\n");
        let mut names = kernel.names();
        assert_eq!(names.function_at(0xffff3f).as_deref(), Some("nf_hook_slow"));
        kernel.lists("ffff01 t nf_hook_slow\nffff80 T ip_rcv\nffff95 t nft_do_chain [nf_tables]\n");
        kernel.has_modules("nf_tables 1 2 - Live 0x0\nveth 1 2 - Live 0x0\n");
        assert_eq!(names.function_at(0xffff98).as_deref(), Some("nft_do_chain"));
    }

    #[test]
    fn a_list_of_zeroes_is_gone_through_once() {
        let kernel = Kernel::new("zeroes", "0 T ip_rcv\n0 t nf_hook_slow\n");
        let mut names = kernel.names();
        assert_eq!(names.function_at(0xffff42), None);
        kernel.lists("ffff01 t nf_hook_slow\n");
        assert_eq!(names.function_at(0xffff80), None, "nothing was to be known");
    }
}
