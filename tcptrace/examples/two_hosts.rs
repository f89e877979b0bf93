//! Two namespaces as if they were two hosts, and a server in one of them that is too slow for its clients in the other: what
//! two recordings, one made at each, are to explain together. `tests/across.rs` runs it.
//!
//! Prints one JSON object with the paths of both namespaces, waits for a line on stdin, plays, and prints what happened.

use std::io::BufRead as _;
use std::net::{SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrIn, bind, connect, listen, setsockopt, socket,
    sockopt,
};
use tcptrace::rehearse::{Layout, Stage};

const PORT: u16 = 8080;
const CLOSED_PORT: u16 = 8081;
const BACKLOG: i32 = 5;
const CLIENTS: usize = 12;
/// Accepting begins after so long: some SYNs are dropped twice until then.
const NAP: Duration = Duration::from_millis(2500);

fn main() -> Result<()> {
    let stage = Stage::with(Layout::Pair)?;
    stage.set_sysctl("net.core.somaxconn", 128)?;
    let path = |path: PathBuf| {
        path.to_string_lossy().replace("/proc/self/", &format!("/proc/{}/", std::process::id()))
    };
    say(&serde_json::json!({"server": path(stage.server().path()), "client": path(stage.client().path())}))?;
    std::io::stdin().lock().read_line(&mut String::new())?;

    let std::net::IpAddr::V4(address) = stage.server_address(false) else { anyhow::bail!("an IPv4 address") };
    let to = SocketAddrV4::new(address, PORT);
    let listener = stage.server().run(move || -> Result<TcpListener> {
        let socket = tcp()?;
        setsockopt(&socket, sockopt::ReuseAddr, &true)?;
        bind(socket.as_raw_fd(), &SockaddrIn::new(0, 0, 0, 0, PORT))?;
        listen(&socket, Backlog::new(BACKLOG)?)?;
        Ok(socket.into())
    })??;
    // Nobody listens there.
    for _ in 0..4 {
        let refused = call(&stage, SocketAddrV4::new(address, CLOSED_PORT))?.join();
        anyhow::ensure!(matches!(refused, Ok(Err(_))), "somebody listens on {CLOSED_PORT}");
    }
    let began = Instant::now();
    let calls = (0..CLIENTS).map(|_| call(&stage, to)).collect::<Result<Vec<_>>>()?;
    thread::sleep(NAP);
    listener.set_nonblocking(true)?;
    let mut served: Vec<(TcpStream, SocketAddr)> = Vec::new();
    while began.elapsed() < NAP + Duration::from_secs(5) {
        match listener.accept() {
            Ok(pair) => served.push(pair),
            Err(_) => thread::sleep(Duration::from_millis(10)),
        }
    }
    let connected = calls.into_iter().filter_map(|call| call.join().ok()?.ok()).count();
    say(&serde_json::json!({"connected": connected, "accepted": served.len(), "calls": CLIENTS}))
}

fn say(line: &serde_json::Value) -> Result<()> {
    let mut out = tcptrace::output::stdout_lines();
    tcptrace::output::go_on(out.text(&format!("{line}\n")))?;
    Ok(tcptrace::output::go_on(out.flush())?)
}

fn tcp() -> Result<OwnedFd> {
    Ok(socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?)
}

/// A connect from the clients' namespace: a socket stays in the one that it was made in. Ends with the connection.
fn call(stage: &Stage, to: SocketAddrV4) -> Result<thread::JoinHandle<Result<TcpStream>>> {
    let socket = stage.client().run(tcp)??;
    thread::Builder::new()
        .name("tt-browser".to_owned())
        .spawn(move || {
            connect(socket.as_raw_fd(), &SockaddrIn::from(to)).context("connect")?;
            Ok(socket.into())
        })
        .context("a thread")
}
