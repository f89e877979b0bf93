//! Where there is no free ephemeral port: no command needs one, none opens a socket of its own, and `ports` says who has them.

mod common;

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Result, ensure};
use common::{lines, stage, tcptrace};
use serde_json::Value;
use tcptrace::host::netns::{Netns, in_netns};
use tcptrace::host::sock_diag::{Query, SockDiag, States};
use tcptrace::rehearse::Stage;

/// A namespace with 20 ephemeral ports.
fn small_stage() -> Result<Option<(Stage, Netns)>> {
    let Some((stage, netns)) = stage()? else { return Ok(None) };
    stage.server().set_sysctl("net.ipv4.ip_local_port_range", "20000 20020")?;
    stage.server().set_sysctl("net.ipv4.ip_local_reserved_ports", "20020")?;
    Ok(Some((stage, netns)))
}

/// Half of 20 ports have connections to a server, the others are listened on; nobody gets another.
fn use_up(netns: &Netns) -> Result<(SocketAddr, Vec<TcpStream>, Vec<TcpListener>)> {
    in_netns(netns, || {
        let server = TcpListener::bind("127.0.0.1:700")?;
        let to = server.local_addr()?;
        let mut connections = Vec::new();
        for _ in 0..10 {
            connections.push(TcpStream::connect(to)?);
        }
        let mut listeners = vec![server];
        while let Ok(listener) = TcpListener::bind("127.0.0.1:0") {
            listeners.push(listener);
        }
        ensure!(TcpStream::connect(to).is_err(), "there is no free port left");
        Ok((to, connections, listeners))
    })?
}

#[test]
fn ports_are_told_without_a_free_one() -> Result<()> {
    let Some((_stage, netns)) = small_stage()? else { return Ok(()) };
    let (to, _connections, listeners) = use_up(&netns)?;
    ensure!(listeners.len() == 11, "{listeners:?}");

    let id = netns.id().to_string();
    let output = tcptrace(&netns, &["ports", "--json", "--netns", &id])?;
    ensure!(output.status.code() == Some(0), "{output:?}");
    let lines = lines(&output)?;
    let [space, summary] = lines.as_slice() else { anyhow::bail!("{lines:?}") };
    let number = |name: &str| space[name].as_u64();
    ensure!(
        (number("capacity"), number("in_use"), number("free")) == (Some(20), Some(20), Some(0)),
        "{space}"
    );
    ensure!(number("blocked") == Some(10) && number("time_wait") == Some(0), "{space}");
    // connect() prefers one half, bind() to port 0 the other.
    ensure!(number("in_use_connect_half") == Some(10), "{space}");
    let process = &space["processes"][0];
    ensure!(process["process"]["pid"] == std::process::id() && process["ports"] == 20, "{process}");
    let lane = &space["destinations"][0];
    ensure!(lane["remote"]["port"] == to.port() && lane["used"] == 10 && lane["free"] == 0, "{lane}");
    ensure!(space["risks"][1]["code"] == "small-range" && summary["type"] == "summary", "{lines:?}");

    let text = String::from_utf8(tcptrace(&netns, &["ports", "--netns", &id])?.stdout)?;
    ensure!(text.contains("20 in use (100.0 %)") && text.contains("127.0.0.1:700 from 127.0.0.1"), "{text}");
    Ok(())
}

/// The inodes of a process's descriptors that are sockets; none once it has ended.
fn sockets_of(child: &Child) -> BTreeSet<u64> {
    let directory = std::fs::read_dir(format!("/proc/{}/fd", child.id()));
    let links = directory.into_iter().flatten().flatten().filter_map(|entry| entry.path().read_link().ok());
    links
        .filter_map(|link| link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok())
        .collect()
}

#[test]
fn no_command_needs_a_port_or_opens_a_tcp_socket() -> Result<()> {
    let Some((_stage, netns)) = small_stage()? else { return Ok(()) };
    let (to, _connections, _listeners) = use_up(&netns)?;
    let id = netns.id().to_string();
    let inodes = || -> Result<BTreeSet<u64>> {
        let mut diag = SockDiag::open(&netns)?;
        let found = diag.sockets(&Query { states: States::ALL, ports: None })?;
        Ok(found.sockets.iter().map(|socket| socket.inode).collect())
    };
    let before = inodes()?;
    ensure!(before.len() > 20, "{before:?}");
    let port = to.port().to_string();
    let target = to.to_string();
    let commands: [&[&str]; 7] = [
        &["who", &port, "--json"],
        &["ports", "--json", "--netns", &id],
        &["check", "--json", "--netns", &id],
        &["listeners", "--json", "--netns", &id],
        &["why", &target, "--json"],
        &["probes", "--json"],
        &["watch", "--json", "--netns", &id, "--for", "2s"],
    ];
    for arguments in commands {
        let mut child = in_netns(&netns, || {
            let mut command = Command::new(env!("CARGO_BIN_EXE_tcptrace"));
            command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()
        })??;
        let mut looks = 0;
        while child.try_wait()?.is_none() {
            let (own, tcp) = (sockets_of(&child), inodes()?);
            ensure!(own.is_disjoint(&tcp), "{arguments:?} has a TCP socket: {own:?}");
            ensure!(tcp.is_subset(&before), "{arguments:?}: {:?} are new", tcp.difference(&before));
            looks += 1;
            std::thread::sleep(Duration::from_millis(2));
        }
        let output = child.wait_with_output()?;
        // 1: risks were found; 3 and 4: this machine does not let us trace, and it says so.
        ensure!(matches!(output.status.code(), Some(0 | 1 | 3 | 4)), "{arguments:?}: {:?}", output.status);
        if !["watch", "probes"].contains(&arguments[0]) {
            ensure!(!lines(&output)?.is_empty(), "{arguments:?} says nothing");
        }
        ensure!(looks > 0, "{arguments:?} was not looked at");
    }
    ensure!(inodes()? == before, "sockets were left behind, or taken away");
    Ok(())
}

/// What a finding says of a setting is what it is, not what it was when it was last looked at.
#[test]
fn a_range_that_was_just_changed_is_the_one_that_is_told() -> Result<()> {
    let Some((stage, netns)) = stage()? else { return Ok(()) };
    stage.set_sysctl("net.ipv4.ip_local_port_range", "32768 60999")?;
    let id = netns.id().to_string();
    let mut command = Command::new(env!("CARGO_BIN_EXE_tcptrace"));
    command.args(["watch", "--json", "--for", "6s", "--netns", &id]).stdout(Stdio::piped());
    let traced = in_netns(&netns, || command.spawn())??;
    std::thread::sleep(Duration::from_secs(4));
    stage.set_sysctl("net.ipv4.ip_local_port_range", "20000 30000")?;
    let _server = in_netns(&netns, || TcpListener::bind((Ipv4Addr::LOCALHOST, 25_000)))??;
    let output = traced.wait_with_output()?;
    if matches!(output.status.code(), Some(3 | 4)) {
        println!("skipped: tracing is not possible here");
        return Ok(());
    }
    let lines = lines(&output)?;
    let risks = lines.iter().filter(|line| line["code"] == "port-grab-risk");
    let told: Vec<&Value> = risks.map(|line| &line["title"]).collect();
    ensure!(!told.is_empty(), "port 25000 is in the range by now: {lines:?}");
    for title in told {
        ensure!(title.as_str().is_some_and(|title| title.contains("range 20000-30000")), "{title}");
    }
    Ok(())
}
