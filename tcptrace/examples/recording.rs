//! What recordings cost: `cargo xtask bench-recording` runs this, optimised, and writes what it says into the documentation.
//!
//! `write FILE EVENTS` records synthetic events of `--all`, `read FILE` reads them, `digest FILE` makes a report of them. Each of these
//! prints one JSON object; times are this thread's CPU time, so that what else the machine does is not in them.

use std::fs::File;
use std::io::BufWriter;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use nix::time::{ClockId, clock_gettime};
use smol_str::SmolStr;
use tcptrace::event::{
    Accept, Endpoints, Enqueue, EnqueuedBy, Event, Family, How, Kind, ListenerRef, PortReleased, PortTaken,
    SocketOptions, Task, Timestamp,
};
use tcptrace::record::{Metadata, Reader, Writer};
use tcptrace::report::Digest;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["write", file, events] => write(Path::new(file), events.parse().context("a number of events")?),
        ["read", file] => read(Path::new(file)),
        ["digest", file] => digest(Path::new(file)),
        ["rename", from, to, host] => rename(Path::new(from), Path::new(to), host),
        _ => bail!("write FILE EVENTS | read FILE | digest FILE | rename FROM TO HOST"),
    }
}

/// The same recording as if a host of that name had made it.
fn rename(from: &Path, to: &Path, host: &str) -> Result<()> {
    let mut reader = Reader::open(from)?;
    let (host, boot_id) = (host.to_owned(), format!("boot of {host}"));
    let metadata = Metadata { recording: format!("{boot_id}/1"), host, boot_id, ..reader.metadata().clone() };
    let mut writer = Writer::new(BufWriter::new(File::create(to)?), &metadata)?;
    let mut events = Vec::new();
    while reader.next_events(&mut events)? {
        events.drain(..).try_for_each(|event| writer.push(&event, false))?;
    }
    writer.finish()?;
    Ok(())
}

/// CPU time of this thread.
fn now() -> Result<Duration> {
    Ok(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)?.into())
}

fn say(events: u64, spent: Duration, bytes: u64) {
    println!("{}", serde_json::json!({"events": events, "seconds": spent.as_secs_f64(), "bytes": bytes}));
}

fn write(path: &Path, events: u64) -> Result<()> {
    // Made before, in pieces, so that making them does not count.
    let mut made = Host::new();
    let metadata = Metadata { format: (1, 0), host: "bench".to_owned(), part: 1, ..Metadata::default() };
    let mut writer = Writer::new(BufWriter::new(File::create(path)?), &metadata)?;
    let mut spent = Duration::ZERO;
    let mut left = events;
    while left > 0 {
        let piece: Vec<Event> = (0..left.min(50_000)).map(|_| made.event()).collect();
        left -= piece.len() as u64;
        let begin = now()?;
        for event in &piece {
            writer.push(event, false)?;
        }
        spent += now()? - begin;
    }
    let begin = now()?;
    writer.finish()?;
    spent += now()? - begin;
    say(events, spent, std::fs::metadata(path)?.len());
    Ok(())
}

fn read(path: &Path) -> Result<()> {
    let mut reader = Reader::open(path)?;
    let (mut count, mut events) = (0, Vec::new());
    let begin = now()?;
    while reader.next_events(&mut events)? {
        count += events.len() as u64;
        events.clear();
    }
    say(count, now()? - begin, std::fs::metadata(path)?.len());
    Ok(())
}

fn digest(path: &Path) -> Result<()> {
    let mut reader = Reader::open(path)?;
    let (mut count, mut events) = (0, Vec::new());
    let mut digest = Digest::new(None, None, None);
    let begin = now()?;
    while reader.next_events(&mut events)? {
        count += events.len() as u64;
        events.iter().for_each(|event| {
            digest.note(event);
        });
        events.clear();
    }
    let report = digest.finish();
    let spent = now()? - begin;
    anyhow::ensure!(report.events == count);
    say(count, spent, std::fs::metadata(path)?.len());
    Ok(())
}

/// A host with a server whose clients have random addresses, and a client program: half of the events each.
struct Host {
    random: u64,
    time: u64,
    /// Sockets live in memory that is used again and again.
    sockets: Vec<u64>,
    /// What is still to be told of connections that have begun.
    waiting: Vec<Event>,
}

impl Host {
    fn new() -> Self {
        let mut host = Self {
            random: 0x9e37_79b9_7f4a_7c15,
            time: 1_795_344_012_000_000_000,
            sockets: Vec::new(),
            waiting: Vec::new(),
        };
        host.sockets = (0..4096).map(|_| 0xffff_8880_0000_0000 | (host.next() & 0x3_ffff_ffc0)).collect();
        host
    }

    fn next(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    fn ends(&mut self, local: SocketAddr, remote: SocketAddr) -> Endpoints {
        Endpoints { netns: 4_026_531_840, family: Family::V4, local, remote: Some(remote), device: 0 }
    }

    fn event(&mut self) -> Event {
        self.time += 1 + self.below(6_000);
        let time = Timestamp::from_nanos(self.time);
        if !self.waiting.is_empty() && self.below(2) == 0 {
            let which = self.below(self.waiting.len() as u64) as usize;
            return Event { time, ..self.waiting.swap_remove(which) };
        }
        let place = self.below(4096) as usize;
        let child = self.sockets.get(place).copied().unwrap_or_default();
        let port = 32_768 + self.below(28_232) as u16;
        if self.below(2) == 0 {
            let remote = SocketAddr::from((
                [10, self.below(4) as u8, self.below(256) as u8, self.below(256) as u8],
                port,
            ));
            let endpoints = self.ends(SocketAddr::from(([10, 0, 0, 1], 443)), remote);
            let depth = self.below(12) as u32;
            let listener =
                ListenerRef { sk: 0xffff_8881_0203_0400, inode: 34_567, depth, limit: 511, syn_queue: 0 };
            let tid = 7_000 + self.below(8) as u32;
            let task = Task { pid: tid, tid, uid: 33, cgroup: 4_711, comm: "nginx".into() };
            let wait_ns = Some(20_000 + self.below(1 << 18));
            let after = ListenerRef { depth: depth.saturating_sub(1), ..listener };
            let accept = Accept { endpoints, listener: after, task, wait_ns, child };
            self.waiting.push(Event { time, kind: Kind::Accept(Box::new(accept)) });
            return Event {
                time,
                kind: Kind::Enqueue(Enqueue {
                    endpoints,
                    listener,
                    child,
                    how: EnqueuedBy::Handshake,
                    handshake_ns: Some(300_000),
                }),
            };
        }
        let remote = SocketAddr::from(([10, 9, 0, self.below(8) as u8], 5432));
        let endpoints = self.ends(SocketAddr::from(([10, 0, 0, 1], port)), remote);
        let pid = 8_000 + self.below(4) as u32;
        let comm = SmolStr::new_static("worker");
        let held_ns = 100_000 + self.below(1 << 24);
        let released = PortReleased {
            endpoints,
            sk: child,
            held_ns,
            pid,
            comm: comm.clone(),
            how: How::Connect,
            time_wait: true,
        };
        self.waiting.push(Event { time, kind: Kind::PortReleased(Box::new(released)) });
        let task = Task { pid, tid: pid, uid: 1000, cgroup: 815, comm };
        let options = SocketOptions::NONE;
        let taken = PortTaken { endpoints, task, sk: child, how: How::Connect, options };
        Event { time, kind: Kind::PortTaken(Box::new(taken)) }
    }
}
