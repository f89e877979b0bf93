//! `who` beside the tools that people know: it names whoever `ss -tanp` and `lsof` name, and the sockets that they do not show.

mod common;

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use common::{lines, stage, tcptrace};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, bind, socket};
use serde_json::Value;
use tcptrace::host::netns::{Netns, in_netns};

/// Who has a socket: process, and the socket's peer (port 0 for none). Sockets in TIME_WAIT have nobody: process 0.
type Holders = BTreeSet<(u64, u16)>;

/// A child that has a socket of ours, too.
struct Heir(Child);

impl Heir {
    fn of(descriptor: OwnedFd) -> Result<Self> {
        let child = Command::new("sleep").arg("60").stdin(Stdio::from(descriptor)).spawn()?;
        Ok(Self(child))
    }
}

impl Drop for Heir {
    fn drop(&mut self) {
        let _ended = self.0.kill();
        let _reaped = self.0.wait();
    }
}

/// Sockets of all sorts.
struct Sockets {
    _listeners: [TcpListener; 2],
    _connection: [TcpStream; 2],
    _bound: OwnedFd,
    client: u16,
    time_wait: u16,
    heir: Heir,
}

const LISTENED: u16 = 701;
const DUAL: u16 = 702;
const BOUND: u16 = 703;

impl Sockets {
    fn make() -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, LISTENED))?;
        let heir = Heir::of(listener.as_fd().try_clone_to_owned()?)?;
        let to = listener.local_addr()?;
        let connection = [TcpStream::connect(to)?, listener.accept()?.0];
        let passing = TcpStream::connect(to)?;
        let (client, time_wait) = (connection[0].local_addr()?.port(), passing.local_addr()?.port());
        let accepted = listener.accept()?.0;
        drop(passing);
        drop(accepted);
        let dual = TcpListener::bind(SocketAddr::from(([0_u16; 8], DUAL)))?;
        let bound = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
        bind(bound.as_raw_fd(), &SockaddrIn::new(127, 0, 0, 1, BOUND))?;
        let listeners = [listener, dual];
        Ok(Self { _listeners: listeners, _connection: connection, _bound: bound, client, time_wait, heir })
    }
}

/// What a tool prints in the namespace; `None`, with a word about it, if this machine does not have it.
fn said(netns: &Netns, program: &str, arguments: &[&str]) -> Result<Option<String>> {
    match in_netns(netns, || Command::new(program).args(arguments).output())? {
        Ok(output) => Ok(Some(String::from_utf8(output.stdout)?)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            println!("skipped: this machine has no {program}");
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}

fn port_of(address: &str) -> Result<u16> {
    let (_, port) = address.rsplit_once(':').with_context(|| format!("no address: {address}"))?;
    Ok(port.parse().unwrap_or(0))
}

fn by_ss(listing: &str, port: u16) -> Result<Holders> {
    let mut holders = Holders::new();
    for line in listing.lines() {
        let mut words = line.split_whitespace();
        let (local, peer) = (words.nth(3), words.next());
        if port_of(local.context("a local address")?)? != port {
            continue;
        }
        let peer = port_of(peer.context("a peer's address")?)?;
        let pids: Vec<_> = line.split("pid=").skip(1).collect();
        for text in &pids {
            let digits: String = text.chars().take_while(char::is_ascii_digit).collect();
            holders.insert((digits.parse()?, peer));
        }
        if pids.is_empty() {
            holders.insert((0, peer));
        }
    }
    Ok(holders)
}

/// `lsof -F pn`: a line for each field, `p` for the process, `n` for its socket's addresses.
fn by_lsof(listing: &str, port: u16) -> Result<Holders> {
    let mut holders = Holders::new();
    let mut pid = 0;
    for line in listing.lines() {
        if let Some(digits) = line.strip_prefix('p') {
            pid = digits.parse()?;
        } else if let Some(addresses) = line.strip_prefix('n') {
            let (local, peer) = addresses.split_once("->").unwrap_or((addresses, ":0"));
            if port_of(local)? == port {
                holders.insert((pid, port_of(peer)?));
            }
        }
    }
    Ok(holders)
}

/// Of this namespace: others are told, too.
fn by_who(lines: &[Value], netns: &Netns) -> Result<Holders> {
    let mut holders = Holders::new();
    for line in lines.iter().filter(|line| line["type"] == "holder") {
        let subject = &line["subject"];
        let at = |pointer: &str| subject.pointer(pointer).and_then(Value::as_u64);
        if at("/netns/id") != Some(netns.id().into()) {
            continue;
        }
        let peer = u16::try_from(at("/remote/port").unwrap_or(0))?;
        holders.insert((at("/process/pid").unwrap_or(0), peer));
        for also in subject["also"].as_array().into_iter().flatten() {
            holders.insert((also["pid"].as_u64().context("a process")?, peer));
        }
    }
    Ok(holders)
}

// One test: a child that another one has just forked would have all of this process's sockets for a moment.
#[test]
fn names_whom_ss_and_lsof_name() -> Result<()> {
    let Some((_stage, netns)) = stage()? else { return Ok(()) };
    let sockets = in_netns(&netns, Sockets::make)??;
    let ss = said(&netns, "ss", &["-Htanp"])?;
    let me = u64::from(std::process::id());
    let heir = u64::from(sockets.heir.0.id());
    let client = sockets.client;
    for (port, expected) in [
        // The listener; and its end of the connection.
        (LISTENED, Holders::from([(me, 0), (heir, 0), (me, client)])),
        (DUAL, Holders::from([(me, 0)])),
        (client, Holders::from([(me, LISTENED)])),
        (sockets.time_wait, Holders::from([(0, LISTENED)])),
    ] {
        let output = tcptrace(&netns, &["who", &port.to_string(), "--json"])?;
        let ours = by_who(&lines(&output)?, &netns)?;
        ensure!(ours == expected, "who {port}: {ours:?}, not {expected:?}");
        if let Some(ss) = &ss {
            let theirs = by_ss(ss, port)?;
            ensure!(ours == theirs, "who {port}: {ours:?}; ss: {theirs:?}");
        }
        let selection = format!("-iTCP:{port}");
        if let Some(lsof) = said(&netns, "lsof", &["-nP", &selection, "-Fpn"])? {
            // It knows no sockets without a process.
            let (theirs, ours) = (by_lsof(&lsof, port)?, ours.into_iter().filter(|(pid, _)| *pid != 0));
            let ours = Holders::from_iter(ours);
            ensure!(ours == theirs, "who {port}: {ours:?}; lsof: {theirs:?}");
        }
    }
    let output = tcptrace(&netns, &["who", &BOUND.to_string(), "--json"])?;
    let lines = lines(&output)?;
    if lines.iter().any(|line| line["owners_via"] == "procfs") {
        println!("skipped: no iterator here, and sock_diag may not show sockets that are only bound");
        return Ok(());
    }
    let (ours, expected) = (by_who(&lines, &netns)?, Holders::from([(me, 0)]));
    ensure!(ours == expected, "who {BOUND}: {ours:?}, not {expected:?}");
    Ok(())
}
