//! A listening socket that discards what its clients send: a key that they do not have, a TTL, a filter.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd};

use super::order::Guard;

// linux/tcp.h, linux/in.h, linux/in6.h, asm-generic/socket.h: part of the system-call interface.
const TCP_MD5SIG: i32 = 14;
const IP_MINTTL: i32 = 21;
const IPV6_MINHOPCOUNT: i32 = 73;

const KEY: &[u8] = b"stale";

pub(super) fn set(socket: &impl AsFd, guard: Guard) -> io::Result<()> {
    match guard {
        Guard::Md5 { peer } => option(socket, libc::IPPROTO_TCP, TCP_MD5SIG, &md5_key(peer)),
        Guard::MinTtl => {
            let highest = 255_i32.to_ne_bytes();
            option(socket, libc::IPPROTO_IP, IP_MINTTL, &highest)
                .or_else(|_| option(socket, libc::IPPROTO_IPV6, IPV6_MINHOPCOUNT, &highest))?;
            // A socket of both families has both.
            let _ = option(socket, libc::IPPROTO_IPV6, IPV6_MINHOPCOUNT, &highest);
            Ok(())
        }
        Guard::Filter => {
            // Returns 0 bytes of every packet.
            let nothing = libc::sock_filter { code: 0x06, jt: 0, jf: 0, k: 0 };
            let mut program = [nothing];
            let filter = libc::sock_fprog { len: 1, filter: program.as_mut_ptr() };
            let length = libc::socklen_t::try_from(size_of_val(&filter)).unwrap_or_default();
            // SAFETY: the kernel reads `filter` and the one instruction it points to; both outlive the call.
            let result = unsafe {
                libc::setsockopt(
                    socket.as_fd().as_raw_fd(),
                    libc::SOL_SOCKET,
                    libc::SO_ATTACH_FILTER,
                    (&raw const filter).cast(),
                    length,
                )
            };
            if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
        }
    }
}

/// `struct tcp_md5sig`: the peer's address, flags, prefix length, length of the key, device, key.
fn md5_key(peer: IpAddr) -> Vec<u8> {
    const ADDRESS: usize = 128;
    const KEY_ROOM: usize = 80;
    let mut bytes = Vec::new();
    match peer {
        IpAddr::V4(v4) => {
            bytes.extend(u16::try_from(libc::AF_INET).unwrap_or_default().to_ne_bytes());
            bytes.extend([0; 2]);
            bytes.extend(v4.octets());
        }
        IpAddr::V6(v6) => {
            bytes.extend(u16::try_from(libc::AF_INET6).unwrap_or_default().to_ne_bytes());
            bytes.extend([0; 6]);
            bytes.extend(v6.octets());
        }
    }
    bytes.resize(ADDRESS, 0);
    bytes.extend([0, 0]);
    bytes.extend(u16::try_from(KEY.len()).unwrap_or_default().to_ne_bytes());
    bytes.extend([0; 4]);
    bytes.extend(KEY);
    bytes.resize(ADDRESS + 8 + KEY_ROOM, 0);
    bytes
}

fn option(socket: &impl AsFd, level: i32, name: i32, value: &[u8]) -> io::Result<()> {
    let length = libc::socklen_t::try_from(value.len()).unwrap_or_default();
    // SAFETY: the kernel reads `length` bytes of `value`, which outlives the call.
    let result =
        unsafe { libc::setsockopt(socket.as_fd().as_raw_fd(), level, name, value.as_ptr().cast(), length) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
