//! A server with blocking workers, each busy with one connection at a time: the slow proxy of the incident.

use std::io::{self, Read, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Starts `workers` threads that accept for ever; the counter says how many connections they took.
pub(super) fn start(listener: &TcpListener, workers: usize, busy: Duration) -> io::Result<Arc<AtomicU64>> {
    let accepted = Arc::new(AtomicU64::new(0));
    for _ in 0..workers {
        let (listener, accepted) = (listener.try_clone()?, Arc::clone(&accepted));
        // Unnamed on purpose: a thread without a name of its own carries the actor's.
        std::thread::Builder::new().spawn(move || {
            while let Ok((mut connection, _)) = listener.accept() {
                accepted.fetch_add(1, Ordering::Relaxed);
                std::thread::sleep(busy);
                // The client may have gone meanwhile; the worker does not care. It never waits for a request that has
                // not come: its pace must be the one that was asked for.
                let _ = connection.set_nonblocking(true);
                let _ = connection.read(&mut [0; 16]);
                let _ = connection.write(b"!");
            }
        })?;
    }
    Ok(accepted)
}
