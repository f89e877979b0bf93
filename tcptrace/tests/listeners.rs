//! `tcptrace listeners` against what `ss -ltn` reads, in namespaces made here. Needs root; without it the test says so.

#[path = "common/checked.rs"]
mod checked;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sched::{CloneFlags, unshare};
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrIn, bind, listen, setsockopt, socket,
    sockopt::ReusePort,
};
use serde_json::Value;

fn tcptrace(arguments: &[&str]) -> Result<Vec<Value>> {
    let output = Command::new(env!("CARGO_BIN_EXE_tcptrace"))
        .arg("listeners")
        .arg("--json")
        .args(arguments)
        .output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    checked::lines(&String::from_utf8(output.stdout)?)
}

fn listeners(arguments: &[&str]) -> Result<Vec<Value>> {
    let mut lines = tcptrace(arguments)?;
    lines.retain(|line| line["type"] == "listener");
    Ok(lines)
}

/// Runs `test` on a thread in a namespace of its own with `lo` up, or says why it cannot.
fn in_private_namespace(test: impl FnOnce(u64) -> Result<()> + Send + 'static) -> Result<()> {
    let run = std::thread::spawn(move || {
        if let Err(errno) = unshare(CloneFlags::CLONE_NEWNET) {
            println!("skipped: no private network namespace here ({errno}); run as root");
            return Ok(());
        }
        let up = Command::new("ip").args(["link", "set", "lo", "up"]).status();
        if !up.is_ok_and(|status| status.success()) {
            println!("skipped: no iproute2 to bring lo up");
            return Ok(());
        }
        let link = std::fs::read_link("/proc/thread-self/ns/net")?;
        let id = link.to_string_lossy().trim_start_matches("net:[").trim_end_matches(']').parse()?;
        test(id)
    });
    run.join().map_err(|_| anyhow::anyhow!("the test panicked"))?
}

/// The namespace is that of one thread, and so is found through a process in it only.
struct Inhabitant(std::process::Child);

impl Inhabitant {
    fn new() -> Result<Self> {
        Ok(Self(Command::new("sleep").arg("60").stdin(Stdio::null()).spawn()?))
    }
}

impl Drop for Inhabitant {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What `ss -ltn` and the kernel's own table say of listening sockets: how many there are at each address, in hexadecimal, and
/// how many connections wait at them.
fn truth() -> Result<BTreeMap<String, (u32, u32)>> {
    let mut found: BTreeMap<String, (u32, u32)> = BTreeMap::new();
    for table in ["tcp", "tcp6"] {
        let text = std::fs::read_to_string(format!("/proc/thread-self/net/{table}"))?;
        for line in text.lines().skip(1) {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let [_, local, _, "0A", queues, ..] = fields.as_slice() else { continue };
            let (_, waiting) = queues.split_once(':').context("tx:rx")?;
            let entry = found.entry((*local).to_owned()).or_default();
            entry.0 += 1;
            entry.1 += u32::from_str_radix(waiting, 16)?;
        }
    }
    Ok(found)
}

/// An address as `/proc/net/tcp` writes it.
fn kernel_form(address: SocketAddr) -> String {
    let words: String = match address {
        SocketAddr::V4(v4) => format!("{:08X}", u32::from_ne_bytes(v4.ip().octets())),
        SocketAddr::V6(v6) => v6
            .ip()
            .octets()
            .chunks(4)
            .map(|word| format!("{:08X}", u32::from_ne_bytes(word.try_into().unwrap_or_default())))
            .collect(),
    };
    format!("{words}:{:04X}", address.port())
}

fn reuseport_listener(port: u16) -> Result<std::os::fd::OwnedFd> {
    let fd = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    setsockopt(&fd, ReusePort, &true)?;
    bind(fd.as_raw_fd(), &SockaddrIn::new(127, 0, 0, 1, port))?;
    listen(&fd, Backlog::new(5)?)?;
    Ok(fd)
}

#[test]
fn every_listener_is_shown_as_the_kernel_has_it() -> Result<()> {
    in_private_namespace(|netns| {
        let inhabitant = Inhabitant::new()?;
        std::fs::write("/proc/sys/net/core/somaxconn", "64")?;
        let mut keep: Vec<TcpListener> = Vec::new();
        for address in ["127.0.0.1:5001", "0.0.0.0:5002", "[::]:5003", "[::1]:5004", "127.0.0.1:40001"] {
            keep.push(TcpListener::bind(address)?);
        }
        let members = [reuseport_listener(5005)?, reuseport_listener(5005)?, reuseport_listener(5005)?];
        let waiting: Vec<TcpStream> =
            (0..4).map(|_| TcpStream::connect("127.0.0.1:5002")).collect::<Result<_, _>>()?;
        let truth = truth()?;
        ensure!(truth.len() == 6, "{truth:?}");

        for arguments in [vec!["--netns".to_owned(), netns.to_string()], vec![]] {
            let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
            let mut shown: BTreeMap<String, (u32, u32)> = BTreeMap::new();
            for line in listeners(&arguments)?.iter().filter(|line| line["subject"]["netns"]["id"] == netns) {
                let address: IpAddr = line["subject"]["address"].as_str().context("an address")?.parse()?;
                let port = u16::try_from(line["subject"]["port"].as_u64().context("a port")?)?;
                let entry = shown.entry(kernel_form(SocketAddr::new(address, port))).or_default();
                entry.0 += 1;
                entry.1 += u32::try_from(line["queue"].as_u64().context("a queue")?)?;
                ensure!(line["subject"]["process"]["pid"] == std::process::id(), "{line}");
                ensure!(line["somaxconn"] == 64, "{line}");
            }
            ensure!(shown == truth, "{shown:?} is not {truth:?}");
        }

        let name = netns.to_string();
        let of = |port: &str| listeners(&["--netns", &name, "--port", port]);
        let group = of("5005")?;
        ensure!(group.len() == 3 && group.iter().all(|line| line["reuseport"]["members"] == 3), "{group:?}");
        ensure!(
            group.iter().all(|line| line["limited_by"] == "backlog-argument" && line["queue_limit"] == 5)
        );
        // std asks for 128 or more, and somaxconn is 64.
        ensure!(
            of("5001")?.iter().all(|line| line["limited_by"] == "somaxconn" && line["queue_limit"] == 64)
        );
        ensure!(
            of("40001")?
                .iter()
                .all(|line| line["ephemeral_port"] == true && line["marks"][0]["kind"] == "ephemeral-port")
        );
        let deepest = listeners(&["--netns", &name])?;
        ensure!(deepest.first().is_some_and(|line| line["queue"] == 4), "{deepest:?}");
        drop((members, waiting, keep, inhabitant));
        Ok(())
    })
}

#[test]
fn a_full_listener_of_a_stopped_process_is_in_trouble() -> Result<()> {
    in_private_namespace(|netns| {
        let script =
            "import socket,time; s=socket.socket(); s.bind(('127.0.0.1',5001)); s.listen(2); time.sleep(60)";
        let server = Command::new("python3").args(["-c", script]).spawn();
        let Ok(server) = server.map(Inhabitant) else {
            println!("skipped: no python3");
            return Ok(());
        };
        let start = Instant::now();
        while truth()?.is_empty() {
            ensure!(start.elapsed() < Duration::from_secs(20), "the server does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        let waiting: Vec<TcpStream> =
            (0..3).map(|_| TcpStream::connect("127.0.0.1:5001")).collect::<Result<_, _>>()?;
        nix::sys::signal::kill(
            nix::unistd::Pid::from_raw(i32::try_from(server.0.id())?),
            nix::sys::signal::Signal::SIGSTOP,
        )?;
        std::thread::sleep(Duration::from_millis(100));
        let found = listeners(&["--netns", &netns.to_string()])?;
        let [line] = found.as_slice() else { anyhow::bail!("{found:?}") };
        let kinds: Vec<&str> = line["marks"]
            .as_array()
            .context("marks")?
            .iter()
            .filter_map(|mark| mark["kind"].as_str())
            .collect();
        ensure!(kinds == ["full", "process-stopped"], "{line}");
        ensure!(
            line["subject"]["process"]["pid"] == server.0.id() && line["owners"][0]["stopped"] == true,
            "{line}"
        );
        let text = Command::new(env!("CARGO_BIN_EXE_tcptrace"))
            .args(["listeners", "--netns", &netns.to_string()])
            .env("COLUMNS", "80")
            .output()?;
        let text = String::from_utf8(text.stdout)?;
        ensure!(text.contains("!! accept queue full: 3 connections wait"), "{text}");
        ensure!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        drop(waiting);
        Ok(())
    })
}

/// Nobody's rights: own namespace only, owners unknown, and that is said.
#[test]
fn without_root_it_says_what_is_missing() -> Result<()> {
    if !nix::unistd::geteuid().is_root() {
        println!("skipped: this test gives up root, which it has not");
        return Ok(());
    }
    let server = TcpListener::bind("127.0.0.1:0")?;
    let port = server.local_addr()?.port().to_string();
    // Nobody may not read the directory that it was built in.
    let copy = tempfile::tempdir_in("/tmp")?;
    std::fs::set_permissions(copy.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    let executable = copy.path().join("tcptrace");
    std::fs::copy(env!("CARGO_BIN_EXE_tcptrace"), &executable)?;
    let output = Command::new(&executable)
        .args(["listeners", "--json", "--port", &port])
        .uid(65534)
        .gid(65534)
        .output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let lines = checked::lines(&String::from_utf8(output.stdout)?)?;
    let [listener, summary] = lines.as_slice() else { anyhow::bail!("{lines:?}") };
    ensure!(listener["subject"]["process"]["pid"].is_null() && listener["queue"] == 0, "{listener}");
    let missing: Vec<&str> = summary["missing"]
        .as_array()
        .context("missing")?
        .iter()
        .filter_map(|gap| gap["what"].as_str())
        .collect();
    ensure!(missing.contains(&"owners") && missing.contains(&"namespaces"), "{summary}");
    Ok(())
}

/// The probes that this host allows, for a second: a listener that accepts is seen to.
#[test]
fn a_trace_adds_what_was_accepted() -> Result<()> {
    in_private_namespace(|netns| {
        let server = TcpListener::bind("127.0.0.1:5001")?;
        let _inhabitant = Inhabitant::new()?;
        let address = server.local_addr()?;
        let accepting = std::thread::spawn(move || server.incoming().take(200).filter(Result::is_ok).count());
        let clients = std::thread::spawn(move || {
            // The tracer takes its time to attach; connections go on until long after.
            (0..199)
                .filter(|_| {
                    std::thread::sleep(Duration::from_millis(25));
                    TcpStream::connect(address).is_ok()
                })
                .count()
        });
        let output = Command::new(env!("CARGO_BIN_EXE_tcptrace"))
            .args(["listeners", "--json", "--for", "2s", "--netns", &netns.to_string()])
            .output()?;
        clients.join().map_err(|_| anyhow::anyhow!("the clients panicked"))?;
        TcpStream::connect(address)?;
        accepting.join().map_err(|_| anyhow::anyhow!("the server panicked"))?;
        if !output.status.success() {
            println!("skipped: no probes here: {}", String::from_utf8_lossy(&output.stderr));
            return Ok(());
        }
        let text = String::from_utf8(output.stdout)?;
        let lines = checked::lines(&text)?;
        ensure!(lines.first().is_some_and(|line| line["type"] == "coverage"), "{text}");
        let line = lines.iter().find(|line| line["type"] == "listener").context("the listener")?;
        let accepts = line["traced"]["accepts"].as_u64().with_context(|| line.to_string())?;
        ensure!((10..=190).contains(&accepts), "{line}");
        ensure!(line["traced"]["syn_drops_accept_queue"].as_u64().unwrap_or(0) == 0, "{line}");
        Ok(())
    })
}
