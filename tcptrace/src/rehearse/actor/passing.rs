//! A listening socket goes from one process to another that is not its child: in a message of a Unix socket (SCM_RIGHTS), as socket
//! activation and restarts without downtime do it, or fetched out of the other process with pidfd_getfd().

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

use nix::cmsg_space;
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, UnixAddr, bind,
    recvmsg, sendmsg, socket,
};

/// How long the other one may take to be there.
const PATIENCE: Duration = Duration::from_secs(30);
const AGAIN: Duration = Duration::from_millis(10);

/// Waits at the abstract address `at` for a message with a descriptor.
pub(super) fn receive(at: &str) -> io::Result<OwnedFd> {
    let door = door()?;
    bind(door.as_raw_fd(), &UnixAddr::new_abstract(at.as_bytes())?)?;
    let mut byte = [0];
    let mut payload = [IoSliceMut::new(&mut byte)];
    let mut room = cmsg_space!(RawFd);
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let message = recvmsg::<UnixAddr>(door.as_raw_fd(), &mut payload, Some(&mut room), flags)?;
    let descriptors = message.cmsgs()?.filter_map(|control| match control {
        ControlMessageOwned::ScmRights(descriptors) => Some(descriptors),
        _ => None,
    });
    let descriptor = descriptors.flatten().next();
    let descriptor = descriptor.ok_or_else(|| io::Error::other("the message brings no descriptor"))?;
    // SAFETY: the kernel has just made this descriptor for us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// Sends `socket` to the abstract address `to`, as soon as somebody waits there.
pub(super) fn send(socket: &impl AsFd, to: &str) -> io::Result<()> {
    let door = door()?;
    let to = UnixAddr::new_abstract(to.as_bytes())?;
    let descriptors = [socket.as_fd().as_raw_fd()];
    let rights = [ControlMessage::ScmRights(&descriptors)];
    let until = Instant::now() + PATIENCE;
    loop {
        let payload = [IoSlice::new(b"!")];
        match sendmsg(door.as_raw_fd(), &payload, &rights, MsgFlags::empty(), Some(&to)) {
            Ok(_) => return Ok(()),
            Err(Errno::ECONNREFUSED) if Instant::now() < until => std::thread::sleep(AGAIN),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Duplicates a descriptor of another process (pidfd_getfd(), since Linux 5.6).
pub(super) fn fetch(pid: u32, descriptor: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: no pointer is passed.
    let process = owned(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })?;
    // SAFETY: likewise.
    owned(unsafe { libc::syscall(libc::SYS_pidfd_getfd, process.as_raw_fd(), descriptor, 0) })
}

fn door() -> nix::Result<OwnedFd> {
    socket(AddressFamily::Unix, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)
}

/// The descriptor that a system call has returned.
fn owned(result: libc::c_long) -> io::Result<OwnedFd> {
    let number = RawFd::try_from(result).ok().filter(|number| *number >= 0);
    let number = number.ok_or_else(io::Error::last_os_error)?;
    // SAFETY: the kernel has just made this descriptor for us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}
