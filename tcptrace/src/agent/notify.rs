//! What systemd wants to know of a service (`sd_notify(3)`): that it is ready, that it is alive, what it does, that it ends.

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// The service manager, if one started us.
#[derive(Debug)]
pub(super) struct Notify {
    to: Option<(UnixDatagram, SocketAddr)>,
    watchdog: Option<Duration>,
}

impl Notify {
    /// By `NOTIFY_SOCKET` and `WATCHDOG_USEC`.
    pub(super) fn from_environment() -> Self {
        let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        let to = variable("NOTIFY_SOCKET").and_then(|name| {
            connect(&name).map_err(|error| log::warn!("NOTIFY_SOCKET cannot be used: {error}")).ok()
        });
        // Of another process, if its number says so.
        let ours = variable("WATCHDOG_PID")
            .is_none_or(|pid| pid.to_str().and_then(|pid| pid.parse().ok()) == Some(std::process::id()));
        let period = variable("WATCHDOG_USEC").filter(|_| ours && to.is_some());
        let micros = period.and_then(|period| period.to_str()?.parse().ok()).filter(|micros| *micros > 0);
        Self { to, watchdog: micros.map(Duration::from_micros) }
    }

    /// How often it wants to hear that we are alive, at least.
    pub(super) fn watchdog(&self) -> Option<Duration> {
        self.watchdog.map(|period| period / 2)
    }

    /// Says something: `READY=1`. A manager that does not listen keeps nobody waiting.
    pub(super) fn say(&self, text: &str) {
        if let Some((socket, address)) = &self.to
            && let Err(error) = socket.send_to_addr(text.as_bytes(), address)
        {
            log::debug!("the service manager does not hear {text:?}: {error}");
        }
    }
}

fn connect(name: &OsStr) -> io::Result<(UnixDatagram, SocketAddr)> {
    let address = match name.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(name)?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    Ok((socket, address))
}
