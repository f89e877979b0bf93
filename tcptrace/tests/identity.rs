//! One identity prints the same in all commands: a listener of this test, its process and its namespace.

mod common;

use std::net::TcpListener;

use anyhow::{Context as _, Result, ensure};
use common::{lines, stage, tcptrace};
use serde_json::Value;
use tcptrace::host::netns::in_netns;

/// Members of a subject that say which socket and process it is.
const IDENTITY: [&str; 5] = ["address", "port", "netns", "process", "confidence"];

#[test]
fn a_listener_is_the_same_in_every_command() -> Result<()> {
    let Some((_stage, netns)) = stage()? else { return Ok(()) };
    let _listener = in_netns(&netns, || {
        std::fs::write("/proc/sys/net/ipv4/ip_local_port_range", "20000 20999")?;
        TcpListener::bind("127.0.0.1:20001")
    })??;
    let id = netns.id().to_string();
    let find = |arguments: &[&str], pointer: &str| -> Result<Value> {
        let lines = lines(&tcptrace(&netns, arguments)?)?;
        let found = lines.iter().filter_map(|line| line.pointer(pointer));
        let is_ours = |subject: &&Value| subject["port"] == 20001 && subject["address"] == "127.0.0.1";
        found.into_iter().find(is_ours).cloned().with_context(|| format!("{arguments:?}: {lines:#?}"))
    };
    let subjects = [
        ("listeners", find(&["listeners", "--json", "--netns", &id], "/subject")?),
        ("who", find(&["who", "20001", "--json", "--netns", &id], "/subject")?),
        ("who, of a bind", find(&["who", "20001", "--json", "--netns", &id], "/binds/0/holder")?),
        ("check", find(&["check", "--json", "--netns", &id], "/listeners/0")?),
    ];
    let (_, first) = &subjects[0];
    ensure!(first["process"]["pid"] == std::process::id(), "{first}");
    ensure!(first["process"]["exe"].is_string() && first["process"]["command"].is_string(), "{first}");
    for (command, subject) in &subjects {
        for member in IDENTITY {
            ensure!(subject[member] == first[member], "{member} in {command}: {subject} is not {first}");
        }
    }
    // `ports` lists processes: the one that has a port of the range is this one.
    let ports = lines(&tcptrace(&netns, &["ports", "--json", "--netns", &id])?)?;
    let process = ports.iter().find_map(|line| line.pointer("/processes/0/process")).context("ports")?;
    ensure!(*process == first["process"], "process in ports: {process} is not {first}");
    Ok(())
}
