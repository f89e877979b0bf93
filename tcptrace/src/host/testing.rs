//! What tests of the host side share: private namespaces, processes that end with the test.

use std::process::Child;
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, unshare};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket};
use std::os::fd::AsRawFd;

use super::netns::Netns;

/// A child process that is killed and reaped when the test ends, however it ends.
#[derive(Debug)]
pub(crate) struct KillOnDrop(pub(crate) Child);

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Waits up to five seconds for `condition`.
pub(crate) fn wait_for(mut condition: impl FnMut() -> bool) -> bool {
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(5) {
        if condition() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    false
}

/// A network namespace of the test's own with `lo` up; `None`, with the reason printed, where that is not allowed.
pub(crate) fn private_netns() -> Option<Netns> {
    let made = std::thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNET).map_err(|errno| format!("unshare(CLONE_NEWNET): {errno}"))?;
        loopback_up().map_err(|errno| format!("bringing lo up: {errno}"))?;
        Netns::current().map_err(|error| error.to_string())
    })
    .join()
    .unwrap();
    made.inspect_err(|reason| println!("skipped: no private network namespace here ({reason}); run as root"))
        .ok()
}

/// `ip link set lo up`, as one rtnetlink request.
fn loopback_up() -> nix::Result<()> {
    const RTM_NEWLINK: u16 = 16;
    const NLM_F_REQUEST_ACK: u16 = 0x5;
    const IFF_UP: u32 = 1;
    let mut request = Vec::new();
    request.extend(32u32.to_ne_bytes()); // struct nlmsghdr
    request.extend(RTM_NEWLINK.to_ne_bytes());
    request.extend(NLM_F_REQUEST_ACK.to_ne_bytes());
    request.extend([0; 8]);
    request.extend([0; 4]); // struct ifinfomsg: family, type
    request.extend(1i32.to_ne_bytes()); // lo is always index 1
    request.extend(IFF_UP.to_ne_bytes());
    request.extend(IFF_UP.to_ne_bytes());
    let netlink =
        socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkRoute)?;
    send(netlink.as_raw_fd(), &request, MsgFlags::empty())?;
    let mut answer = [0; 256];
    recv(netlink.as_raw_fd(), &mut answer, MsgFlags::empty())?;
    let errno = i32::from_ne_bytes(answer[16..20].try_into().unwrap());
    if errno == 0 { Ok(()) } else { Err(nix::Error::from_raw(-errno)) }
}
