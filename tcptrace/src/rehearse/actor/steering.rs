//! A BPF program that gives connections to another port to a listening socket, as load balancers use it (`sk_lookup`, since
//! Linux 5.9). So small that it is written as instructions, and loaded by the process that has the socket: a program that is
//! compiled would have to be handed that socket.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

// linux/bpf.h: part of the system-call interface.
const MAP_CREATE: libc::c_int = 0;
const MAP_UPDATE_ELEM: libc::c_int = 2;
const PROG_LOAD: libc::c_int = 5;
const LINK_CREATE: libc::c_int = 28;
const MAP_TYPE_SOCKMAP: u32 = 15;
const PROG_TYPE_SK_LOOKUP: u32 = 30;
const ATTACH_SK_LOOKUP: u32 = 36;
const MAP_LOOKUP_ELEM: i32 = 1;
const SK_RELEASE: i32 = 86;
const SK_ASSIGN: i32 = 124;
/// Of `local_port` in `struct bpf_sk_lookup`, in the host's byte order.
const LOCAL_PORT: i16 = 60;

/// Steers as long as this is kept.
#[derive(Debug)]
pub(super) struct Steering {
    #[expect(dead_code, reason = "held: without it the program is detached")]
    link: OwnedFd,
}

/// Has connections to `port` in the calling process's network namespace accepted by `listener`.
///
/// # Errors
/// When BPF programs may not be loaded.
pub(super) fn steer(listener: &impl AsFd, port: u16) -> io::Result<Steering> {
    let map =
        create(MAP_CREATE, &[Part::Half(MAP_TYPE_SOCKMAP), Part::Half(4), Part::Half(8), Part::Half(1)])?;
    let (key, value) = (0_u32, raw(listener)? as u64);
    let update = [
        Part::Half(raw(&map)?),
        Part::Half(0),
        Part::Word((&raw const key) as u64),
        Part::Word((&raw const value) as u64),
        Part::Word(0),
    ];
    bpf(MAP_UPDATE_ELEM, &update)?;
    let program = program(port, raw(&map)?);
    let license = c"GPL";
    let load = [
        Part::Half(PROG_TYPE_SK_LOOKUP),
        Part::Half(u32::try_from(program.len()).map_err(io::Error::other)?),
        Part::Word(program.as_ptr() as u64),
        Part::Word(license.as_ptr() as u64),
        // No log; no version, flags, name or device.
        Part::Word(0),
        Part::Word(0),
        Part::Word(0),
        Part::Word(0),
        Part::Word(0),
        Part::Half(0),
        Part::Half(ATTACH_SK_LOOKUP),
    ];
    let program = create(PROG_LOAD, &load)?;
    let namespace = File::open("/proc/self/ns/net")?;
    let attach = [
        Part::Half(raw(&program)?),
        Part::Half(raw(&namespace)?),
        Part::Half(ATTACH_SK_LOOKUP),
        Part::Half(0),
    ];
    Ok(Steering { link: create(LINK_CREATE, &attach)? })
}

/// `if port is called { assign the socket in the map }; pass`.
fn program(port: u16, map: u32) -> Vec<u64> {
    let instruction = |code: u8, registers: u8, offset: i16, number: i32| {
        let [o0, o1] = offset.to_ne_bytes();
        let [n0, n1, n2, n3] = number.to_ne_bytes();
        u64::from_ne_bytes([code, registers, o0, o1, n0, n1, n2, n3])
    };
    /// From the source register to the one that is written.
    const fn from(source: u8, to: u8) -> u8 {
        source << 4 | to
    }
    /// `BPF_PSEUDO_MAP_FD`, in the place of a source register.
    const MAP: u8 = 1;
    vec![
        instruction(0xbf, from(1, 6), 0, 0),          // r6 = the lookup
        instruction(0x61, from(1, 2), LOCAL_PORT, 0), // r2 = the port
        instruction(0x55, 2, 14, i32::from(port)),    // another one: pass
        instruction(0x62, 10, -4, 0),                 // the key
        instruction(0xbf, from(10, 2), 0, 0),
        instruction(0x07, 2, 0, -4),
        instruction(0x18, from(MAP, 1), 0, map.cast_signed()),
        instruction(0, 0, 0, 0),
        instruction(0x85, 0, 0, MAP_LOOKUP_ELEM),
        instruction(0x15, 0, 7, 0), // no socket: pass
        instruction(0xbf, from(0, 7), 0, 0),
        instruction(0xbf, from(6, 1), 0, 0),
        instruction(0xbf, from(0, 2), 0, 0),
        instruction(0xb7, 3, 0, 0),
        instruction(0x85, 0, 0, SK_ASSIGN),
        instruction(0xbf, from(7, 1), 0, 0),
        instruction(0x85, 0, 0, SK_RELEASE),
        instruction(0xb7, 0, 0, 1), // SK_PASS
        instruction(0x95, 0, 0, 0),
    ]
}

/// A member of the union that bpf() reads.
enum Part {
    Half(u32),
    Word(u64),
}

fn raw(descriptor: &impl AsFd) -> io::Result<u32> {
    u32::try_from(descriptor.as_fd().as_raw_fd()).map_err(io::Error::other)
}

/// A command that answers with a descriptor.
fn create(command: libc::c_int, parts: &[Part]) -> io::Result<OwnedFd> {
    let descriptor = i32::try_from(bpf(command, parts)?).map_err(io::Error::other)?;
    // SAFETY: the kernel has just handed this descriptor to us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

fn bpf(command: libc::c_int, parts: &[Part]) -> io::Result<libc::c_long> {
    let mut attributes = Vec::new();
    for part in parts {
        match part {
            Part::Half(half) => attributes.extend(half.to_ne_bytes()),
            Part::Word(word) => attributes.extend(word.to_ne_bytes()),
        }
    }
    // SAFETY: the kernel reads `attributes`, and what addresses in them point to: all of it outlives the call.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, attributes.as_ptr(), attributes.len()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
