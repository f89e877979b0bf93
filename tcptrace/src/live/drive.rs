//! Drives a live trace: wakes it when it should look, until it is to end.

use std::{future::Future, io, ops::ControlFlow, os::fd::AsFd, time::Duration};

use nix::sys::signal::Signal;
use tokio::{
    io::{Interest, unix::AsyncFd},
    signal::unix::{SignalKind, signal},
    time::{MissedTickBehavior, interval},
};

use super::Live;
use crate::{event::Event, output::Written};

/// How often the ring buffer is emptied without being asked: the longest that an event waits to be seen.
const DRAIN: Duration = Duration::from_millis(100);
/// The same when everything is streamed: then the kernel side never asks.
const DRAIN_ALL: Duration = Duration::from_millis(10);
/// How often what must be polled is polled.
const LOOK: Duration = Duration::from_millis(200);

/// Why a trace ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Its time was up, or what it waited for happened.
    Over,
    /// SIGINT, SIGTERM or SIGHUP.
    Interrupted,
    /// Nobody reads the output any more.
    OutputClosed,
}

/// Hands every event of `live` to `each`, until `over` comes true, a signal comes, or `each` fails. A closed pipe is an
/// ending like any other. The last events (samples, losses, the end) are handed over in every case but that one.
///
/// # Errors
/// Those of `each`, and of setting up signals.
pub async fn drive(
    live: Live,
    over: impl Future<Output = ()>,
    each: impl FnMut(&[Event]) -> Written,
) -> io::Result<Ending> {
    // The terminal is gone. Under nohup(1) that is to be ignored, and stays so.
    let hangup = if is_ignored(Signal::SIGHUP) { None } else { Some(signal(SignalKind::hangup())?) };
    drive_until(live, over, hangup, each).await
}

/// The same for a service: SIGHUP, which a service is sent to read its configuration again, does not end it.
///
/// # Errors
/// As [`drive`].
pub async fn drive_service(
    live: Live,
    over: impl Future<Output = ()>,
    each: impl FnMut(&[Event]) -> Written,
) -> io::Result<Ending> {
    drive_until(live, over, None, each).await
}

async fn drive_until(
    mut live: Live,
    over: impl Future<Output = ()>,
    mut hangup: Option<tokio::signal::unix::Signal>,
    mut each: impl FnMut(&[Event]) -> Written,
) -> io::Result<Ending> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    // A descriptor of its own, closed only after the reactor has let go of it.
    let ring = live.as_fd().try_clone_to_owned()?;
    // SAFETY: an OwnedFd keeps the same open descriptor for as long as it lives.
    let ring = unsafe { AsyncFd::register_with_interest(ring, Interest::READABLE) }?;
    let mut drain = interval(if live.streams_all() { DRAIN_ALL } else { DRAIN });
    let mut look = interval(LOOK);
    let mut second = interval(Duration::from_secs(1));
    for timer in [&mut drain, &mut look, &mut second] {
        timer.set_missed_tick_behavior(MissedTickBehavior::Skip);
        // The first tick comes at once.
        timer.tick().await;
    }
    tokio::pin!(over);
    let mut events = Vec::new();
    let ending = loop {
        tokio::select! {
            biased;
            _ = interrupt.recv() => break Ending::Interrupted,
            _ = terminate.recv() => break Ending::Interrupted,
            () = told(&mut hangup) => break Ending::Interrupted,
            () = &mut over => break Ending::Over,
            _ = second.tick() => {
                // What happened before this second ended comes before its samples.
                live.poll(&mut events);
                live.second(&mut events);
            }
            _ = look.tick() => live.look(&mut events),
            _ = drain.tick() => live.poll(&mut events),
            ready = ring.readable() => {
                ready?.clear_ready();
                live.poll(&mut events);
            }
        }
        live.hand_over(&mut events);
        match each(&events) {
            Ok(ControlFlow::Continue(())) => events.clear(),
            Ok(ControlFlow::Break(())) => return Ok(Ending::OutputClosed),
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(Ending::OutputClosed),
            Err(error) => return Err(error),
        }
    };
    drop(ring);
    live.finish(&mut events);
    match each(&events) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(Ending::OutputClosed),
        Err(error) => Err(error),
        Ok(ControlFlow::Break(())) => Ok(Ending::OutputClosed),
        Ok(ControlFlow::Continue(())) => Ok(ending),
    }
}

/// Comes true when the signal comes; never, if it is not listened for.
async fn told(of: &mut Option<tokio::signal::unix::Signal>) {
    match of {
        Some(signal) => {
            signal.recv().await;
        }
        None => std::future::pending().await,
    }
}

/// Whether this process was started with `signal` ignored.
fn is_ignored(signal: Signal) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    mask & (1 << (signal as u32 - 1)) != 0
}
