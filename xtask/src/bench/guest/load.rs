//! The load: one client that connects, waits for the server to close, closes, and begins again.
//!
//! There is never more than one connection, so no queue fills, and both sides go at one pace.

use std::io::{ErrorKind, Read as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

/// What was done.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Done {
    pub(crate) connections: u64,
    pub(crate) elapsed: Duration,
}

impl Done {
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    pub(crate) fn per_second(self) -> f64 {
        self.connections as f64 / self.elapsed.as_secs_f64()
    }
}

/// Makes so many connections.
pub(crate) fn run(server: SocketAddr, connections: u64) -> Result<Done> {
    let start = Instant::now();
    for number in 0..connections {
        connect(server).with_context(|| format!("connection {number} to {server}"))?;
    }
    Ok(Done { connections, elapsed: start.elapsed() })
}

/// One connection, from its SYN to both sides' close.
fn connect(server: SocketAddr) -> Result<()> {
    let connection = TcpStream::connect(server);
    match connection.and_then(|mut stream| stream.read(&mut [0])) {
        Ok(0) => Ok(()),
        Ok(_) => bail!("the server sent something"),
        // With `Close::Rst`, that is the end; it may even come before connect() returns.
        Err(error) if error.kind() == ErrorKind::ConnectionReset => Ok(()),
        Err(error) => Err(error.into()),
    }
}
