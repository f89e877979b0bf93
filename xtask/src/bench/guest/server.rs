//! The server: a process with many listeners, of which the load uses the first.

use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, bail};
use clap::{Args as ClapArgs, ValueEnum};
use nix::libc;
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::socket::{setsockopt, sockopt};

/// The first listener's port; the others follow it.
const FIRST_PORT: u16 = 5_000;
/// The most listeners that leave the ephemeral ports alone (see `guest::tune`).
const MOST: u16 = 15_000;
/// Descriptors beside the listeners.
const OTHER_FILES: u64 = 64;

/// How connections end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Close {
    /// The server resets (SO_LINGER 0). No side keeps a TIME_WAIT, so the ten-thousandth connection costs what the first
    /// did; and there are the fewest changes of state, of which some contenders take note each time.
    Rst,
    /// The server closes first, in order.
    Fin,
}

impl Close {
    /// As on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Rst => "rst",
            Self::Fin => "fin",
        }
    }
}

#[derive(ClapArgs)]
pub(crate) struct Args {
    /// How many listeners, one of which accepts.
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=i64::from(MOST)))]
    listeners: u16,
    #[arg(long, value_enum)]
    close: Close,
}

/// A server in a process of its own; killed when dropped.
pub(crate) struct Server(Child);

impl Server {
    /// Starts it, and returns when all its listeners listen.
    pub(crate) fn start(listeners: u16, close: Close) -> Result<Self> {
        let child = Command::new("/proc/self/exe")
            .args(["guest-server", "--listeners", &listeners.to_string(), "--close", close.name()])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .context("starting the server")?;
        let mut server = Self(child);
        let stdout = server.0.stdout.take().context("the server has a stdout")?;
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line).context("waiting for the server")?;
        if line != READY {
            bail!("the server did not start");
        }
        Ok(server)
    }

    /// What the load connects to.
    pub(crate) fn address() -> SocketAddr {
        (Ipv4Addr::LOCALHOST, FIRST_PORT).into()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ended_already = self.0.kill();
        let _reaped = self.0.wait();
    }
}

/// What it says when it listens.
const READY: &str = "ready\n";

/// The server's process.
pub(crate) fn main(args: &Args) -> Result<()> {
    let files = u64::from(args.listeners) + OTHER_FILES;
    setrlimit(Resource::RLIMIT_NOFILE, files, files).context("raising the limit of open files")?;
    let listeners = (FIRST_PORT..)
        .take(usize::from(args.listeners))
        .map(|port| {
            TcpListener::bind((Ipv4Addr::LOCALHOST, port)).with_context(|| format!("listening on {port}"))
        })
        .collect::<Result<Vec<_>>>()?;
    let used = listeners.first().context("at least one listener")?;
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(READY.as_bytes()).and_then(|()| stdout.flush()).context("saying that it listens")?;
    loop {
        let (mut connection, _) = used.accept().context("accepting")?;
        match args.close {
            Close::Rst => {
                let now = libc::linger { l_onoff: 1, l_linger: 0 };
                setsockopt(&connection, sockopt::Linger, &now).context("setting SO_LINGER")?;
            }
            Close::Fin => {
                // TIME_WAIT becomes this side's: the client, whose ports would run out, has none.
                connection.shutdown(std::net::Shutdown::Write).context("closing")?;
                let _end = connection.read(&mut [0]);
            }
        }
    }
}
