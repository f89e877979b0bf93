//! One virtual service of IPVS with one server behind it, as `ipvsadm -A -t SERVICE -s rr; ipvsadm -a -t SERVICE -r SERVER -m` makes it: by
//! the socket option that is older than the netlink family, and takes IPv4 only.

use std::io;
use std::net::SocketAddrV4;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, socket};

use super::error::Error;
use super::netlink::Request;

// linux/ip_vs.h and linux/genetlink.h: part of the system-call interface.
const ADD_SERVICE: i32 = 64 + 1024 + 64 + 2;
const ADD_SERVER: i32 = 64 + 1024 + 64 + 7;
const GENL_ID_CTRL: u16 = 16;
const CTRL_CMD_GETFAMILY: u8 = 3;
const CTRL_ATTR_FAMILY_NAME: u16 = 2;

/// Makes the service in the calling thread's namespace; it lives as long as that. Its connections are translated in both directions
/// ("masquerading").
pub(super) fn serve(service: SocketAddrV4, server: SocketAddrV4) -> io::Result<()> {
    // Asking for the netlink family is what loads the module (since 5.16), if the kernel has it as one.
    let ask = Request::new(GENL_ID_CTRL, 0, &[CTRL_CMD_GETFAMILY, 1, 0, 0])
        .attribute(CTRL_ATTR_FAMILY_NAME, b"IPVS\0");
    ask.ask(SockProtocol::NetlinkGeneric)?;
    let any: OwnedFd = socket(AddressFamily::Inet, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::Raw)?;
    let service = service_of(service);
    set(&any, ADD_SERVICE, &service)?;
    set(&any, ADD_SERVER, &[service, server_of(server)].concat())
}

/// An error of its own for a kernel without IPVS.
pub(super) fn lacking(source: io::Error) -> Error {
    match source.raw_os_error() {
        Some(libc::ENOPROTOOPT | libc::ENOENT) => {
            Error::NotSupported("this kernel has no IPVS (module ip_vs, and ip_vs_rr)".into())
        }
        _ => Error::Io { what: "making an IPVS service in the private namespace".into(), source },
    }
}

/// `struct ip_vs_service_user`: protocol, address, port, mark, scheduler, flags, timeout, netmask.
fn service_of(at: SocketAddrV4) -> Vec<u8> {
    let mut bytes = u16::try_from(libc::IPPROTO_TCP).unwrap_or_default().to_ne_bytes().to_vec();
    bytes.extend([0; 2]);
    bytes.extend(at.ip().octets());
    bytes.extend(at.port().to_be_bytes());
    bytes.extend([0; 2]);
    bytes.extend([0; 4]);
    bytes.extend(b"rr\0\0\0\0\0\0\0\0\0\0\0\0\0\0");
    bytes.extend([0; 8]);
    bytes.extend([0xff; 4]);
    bytes
}

/// `struct ip_vs_dest_user`: address, port, how packets get there (0: translated), weight, two thresholds.
fn server_of(at: SocketAddrV4) -> Vec<u8> {
    let mut bytes = at.ip().octets().to_vec();
    bytes.extend(at.port().to_be_bytes());
    bytes.extend([0; 2]);
    bytes.extend([0; 4]);
    bytes.extend(1_i32.to_ne_bytes());
    bytes.extend([0; 8]);
    bytes
}

fn set(any: &OwnedFd, option: i32, value: &[u8]) -> io::Result<()> {
    let length = libc::socklen_t::try_from(value.len()).unwrap_or_default();
    // SAFETY: the kernel reads `length` bytes of `value`, which outlives the call.
    let result =
        unsafe { libc::setsockopt(any.as_raw_fd(), libc::IPPROTO_IP, option, value.as_ptr().cast(), length) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_structures_have_the_kernel_s_sizes() {
        let at = "10.77.0.1:80".parse().unwrap();
        assert_eq!((service_of(at).len(), server_of(at).len()), (44, 24));
        assert_eq!(service_of(at)[4..10], [10, 77, 0, 1, 0, 80]);
        assert_eq!(server_of(at)[..6], [10, 77, 0, 1, 0, 80]);
    }
}
