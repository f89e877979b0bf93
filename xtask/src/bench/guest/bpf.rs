//! The loaded BPF programs and what they cost so far, and the sum of a map: through bpf(), as the kernel's books are asked
//! rather than any tracer.

use std::collections::BTreeMap;
use std::ffi::CStr;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};

use anyhow::{Context as _, Result, bail};

use crate::bench::measurement::Program;

/// `enum bpf_cmd`, as far as it is used.
mod command {
    pub(super) const MAP_LOOKUP_ELEM: libc::c_int = 1;
    pub(super) const PROG_GET_NEXT_ID: libc::c_int = 11;
    pub(super) const MAP_GET_NEXT_ID: libc::c_int = 12;
    pub(super) const PROG_GET_FD_BY_ID: libc::c_int = 13;
    pub(super) const MAP_GET_FD_BY_ID: libc::c_int = 14;
    pub(super) const OBJ_GET_INFO_BY_FD: libc::c_int = 15;
}

/// `struct bpf_prog_info`, whose layout is the kernel's promise. Older kernels leave zeroes at the end.
#[repr(C)]
#[derive(Default)]
struct ProgInfo {
    until_name: [u64; 8],
    name: [u8; 16],
    until_symbols: [u32; 6],
    symbol_count: u32,
    function_count: u32,
    symbols: u64,
    until_run_time: [u64; 9],
    run_time_ns: u64,
    run_count: u64,
}

/// `struct bpf_map_info`, its beginning.
#[repr(C)]
#[derive(Default)]
struct MapInfo {
    kind: u32,
    id: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    flags: u32,
    name: [u8; 16],
}

/// `union bpf_attr`: three words are enough for the commands above, and the kernel takes what is left out for zeroes.
type Attributes = [u64; 3];

fn bpf(command: libc::c_int, attributes: &mut Attributes) -> io::Result<libc::c_long> {
    // SAFETY: the attributes outlive the call, their size is given, and what they point to is the caller's live memory.
    let answer =
        unsafe { libc::syscall(libc::SYS_bpf, command, attributes.as_mut_ptr(), size_of::<Attributes>()) };
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(answer) }
}

/// All ids there are, of programs or of maps.
fn ids(next: libc::c_int) -> Result<Vec<u32>> {
    let mut ids = Vec::new();
    let mut last = 0;
    loop {
        let mut attributes = [u64::from(last), 0, 0];
        match bpf(next, &mut attributes) {
            Ok(_) => {}
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => return Ok(ids),
            Err(error) => return Err(error).context("listing BPF objects"),
        }
        // The second half of the first word is `next_id`.
        let [word, ..] = attributes;
        last = u32::try_from(word >> 32)?;
        ids.push(last);
    }
}

/// `None` if it is gone by now.
fn open(by_id: libc::c_int, id: u32) -> Result<Option<OwnedFd>> {
    match bpf(by_id, &mut [u64::from(id), 0, 0]) {
        Ok(descriptor) => {
            let descriptor = libc::c_int::try_from(descriptor)?;
            // SAFETY: the kernel has just given us this descriptor, and nobody else has it.
            Ok(Some(unsafe { OwnedFd::from_raw_fd(descriptor) }))
        }
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
        Err(error) => Err(error).context("opening a BPF object"),
    }
}

fn read_info<T>(object: &OwnedFd, info: &mut T) -> Result<()> {
    let descriptor = u64::try_from(object.as_raw_fd())?;
    let length = u64::try_from(size_of::<T>())?;
    let address = std::ptr::from_mut(info).addr();
    bpf(command::OBJ_GET_INFO_BY_FD, &mut [descriptor | length << 32, u64::try_from(address)?, 0])
        .context("reading about a BPF object")?;
    Ok(())
}

/// How many programs are loaded.
pub(crate) fn program_count() -> Result<usize> {
    Ok(ids(command::PROG_GET_NEXT_ID)?.len())
}

/// The books of all loaded programs at one moment.
pub(crate) struct Snapshot(BTreeMap<u32, Program>);

impl Snapshot {
    pub(crate) fn take(names: &Names) -> Result<Self> {
        let mut programs = BTreeMap::new();
        for id in ids(command::PROG_GET_NEXT_ID)? {
            let Some(object) = open(command::PROG_GET_FD_BY_ID, id)? else { continue };
            let mut symbol = 0_u64;
            let mut info = ProgInfo {
                symbol_count: 1,
                symbols: u64::try_from(std::ptr::from_mut(&mut symbol).addr())?,
                ..ProgInfo::default()
            };
            read_info(&object, &mut info)?;
            let name = names.0.get(&symbol).cloned().unwrap_or_else(|| text(&info.name));
            programs.insert(id, Program { name, runs: info.run_count, ns: info.run_time_ns });
        }
        Ok(Self(programs))
    }

    /// What the programs did between an earlier moment and this one.
    pub(crate) fn since(self, earlier: &Self) -> Vec<Program> {
        let mut programs: Vec<Program> = self
            .0
            .into_iter()
            .map(|(id, mut program)| {
                if let Some(before) = earlier.0.get(&id) {
                    program.runs -= before.runs.min(program.runs);
                    program.ns -= before.ns.min(program.ns);
                }
                program
            })
            .filter(|program| program.runs > 0)
            .collect();
        programs.sort_by_key(|program| std::cmp::Reverse(program.ns));
        programs
    }
}

/// Programs' whole names by the address of their code: the kernel's own records cut a name to 15 bytes, in which
/// `fentry_route_req_v4` and `…_v6` are one.
pub(crate) struct Names(BTreeMap<u64, String>);

impl Names {
    pub(crate) fn read() -> Result<Self> {
        let symbols = fs::read_to_string("/proc/kallsyms").context("reading /proc/kallsyms")?;
        Ok(Self(symbols.lines().filter_map(program_symbol).collect()))
    }
}

/// `ffffffffc0201a70 t bpf_prog_6deef7357e7b4530_tcp_v4_connect [bpf]`
fn program_symbol(line: &str) -> Option<(u64, String)> {
    let mut words = line.split_whitespace();
    let address = u64::from_str_radix(words.next()?, 16).ok()?;
    let (_tag, name) = words.nth(1)?.strip_prefix("bpf_prog_")?.split_once('_')?;
    Some((address, name.to_owned()))
}

/// The sum of all numbers in an array of counters, per CPU or not; `None` if no map has this name.
pub(crate) fn sum_of_map(name: &str) -> Result<Option<u64>> {
    for id in ids(command::MAP_GET_NEXT_ID)? {
        let Some(map) = open(command::MAP_GET_FD_BY_ID, id)? else { continue };
        let mut info = MapInfo::default();
        read_info(&map, &mut info)?;
        if text(&info.name) != name {
            continue;
        }
        if info.key_size != 4 || info.value_size % 8 != 0 {
            bail!("the map {name} is no array of counters");
        }
        // Of a per-CPU array the kernel gives a value for each processor that could be there: far fewer in any guest.
        let mut values = vec![0_u64; 512 * usize::try_from(info.value_size / 8)?];
        let descriptor = u64::try_from(map.as_raw_fd())?;
        let mut sum = 0;
        for key in 0..info.max_entries {
            values.fill(0);
            let key_address = u64::try_from(std::ptr::from_ref(&key).addr())?;
            let value_address = u64::try_from(values.as_mut_ptr().addr())?;
            bpf(command::MAP_LOOKUP_ELEM, &mut [descriptor, key_address, value_address])
                .with_context(|| format!("reading the map {name}"))?;
            sum += values.iter().sum::<u64>();
        }
        return Ok(Some(sum));
    }
    Ok(None)
}

fn text(name: &[u8]) -> String {
    CStr::from_bytes_until_nul(name).map(CStr::to_string_lossy).unwrap_or_default().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_layouts_are_the_kernels() {
        assert_eq!(std::mem::offset_of!(ProgInfo, name), 64);
        assert_eq!(std::mem::offset_of!(ProgInfo, symbol_count), 104);
        assert_eq!(std::mem::offset_of!(ProgInfo, symbols), 112);
        assert_eq!(std::mem::offset_of!(ProgInfo, run_time_ns), 192);
        assert_eq!(size_of::<ProgInfo>(), 208);
        assert_eq!(std::mem::offset_of!(MapInfo, name), 24);
    }

    #[test]
    fn a_programs_name_is_what_follows_its_tag() {
        let line = "ffffffffc0201a70 t bpf_prog_6deef7357e7b4530_fentry_route_req_v4\t[bpf]";
        assert_eq!(program_symbol(line).unwrap().1, "fentry_route_req_v4");
        assert!(program_symbol("ffffffff81000000 T _stext").is_none());
    }
}
