//! `tcptrace ports` where there is no free ephemeral port: it needs none, and says who has them.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Output};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tcptrace::host::netns::{Netns, in_netns};
use tcptrace::rehearse::{Error, Stage};

/// Runs inside the namespace, as somebody would who has entered it.
fn tcptrace(netns: &Netns, arguments: &[&str]) -> Result<Output> {
    let run = || Command::new(env!("CARGO_BIN_EXE_tcptrace")).args(arguments).output();
    in_netns(netns, run)?.context("tcptrace runs")
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
    let stage = match Stage::new() {
        Err(Error::NotPermitted { what, .. }) => {
            println!("skipped: no permission for {what}");
            return Ok(());
        }
        other => other?,
    };
    let netns = Netns::from_path(&stage.server().path())?;
    stage.server().set_sysctl("net.ipv4.ip_local_port_range", "20000 20020")?;
    stage.server().set_sysctl("net.ipv4.ip_local_reserved_ports", "20020")?;
    let (to, _connections, listeners) = use_up(&netns)?;
    ensure!(listeners.len() == 11, "{listeners:?}");

    let id = netns.id().to_string();
    let output = tcptrace(&netns, &["ports", "--json", "--netns", &id])?;
    ensure!(output.status.code() == Some(0), "{output:?}");
    let text = String::from_utf8(output.stdout)?;
    let lines: Vec<Value> =
        text.lines().map(serde_json::from_str).collect::<Result<_, _>>().context("lines are JSON")?;
    let [space, summary] = lines.as_slice() else { anyhow::bail!("{text}") };
    let number = |name: &str| space[name].as_u64();
    ensure!(
        (number("capacity"), number("in_use"), number("free")) == (Some(20), Some(20), Some(0)),
        "{space}"
    );
    ensure!(number("blocked") == Some(10) && number("time_wait") == Some(0), "{space}");
    // connect() prefers one half, bind() to port 0 the other.
    ensure!(number("in_use_connect_half") == Some(10), "{space}");
    let process = &space["processes"][0];
    ensure!(process["pid"] == std::process::id() && process["ports"] == 20, "{process}");
    let lane = &space["destinations"][0];
    ensure!(lane["remote"] == to.to_string() && lane["used"] == 10 && lane["free"] == 0, "{lane}");
    ensure!(space["risks"][1]["code"] == "small-range" && summary["type"] == "summary", "{text}");

    let text = String::from_utf8(tcptrace(&netns, &["ports", "--netns", &id])?.stdout)?;
    ensure!(text.contains("20 in use (100.0 %)") && text.contains("127.0.0.1:700 from 127.0.0.1"), "{text}");
    Ok(())
}
