//! `tcptrace check` as a pipeline runs it: exit codes, JSON, no free port.

mod common;

use std::net::TcpListener;
use std::process::Command;

use anyhow::{Result, ensure};
use common::{lines, stage, tcptrace};
use tcptrace::host::netns::in_netns;

#[test]
fn risks_are_exit_code_1_and_it_needs_no_free_port() -> Result<()> {
    let Some((stage, netns)) = stage()? else { return Ok(()) };
    let id = netns.id().to_string();
    let arguments = ["check", "--json", "--netns", &id];
    ensure!(tcptrace(&netns, &arguments)?.status.code() == Some(0), "a new namespace has no risks");

    stage.server().set_sysctl("net.ipv4.ip_local_port_range", "20000 20001")?;
    let _holders = in_netns(&netns, || {
        [20000, 20001].map(|port| TcpListener::bind(("0.0.0.0", port)).map_err(anyhow::Error::from))
    })?;
    ensure!(in_netns(&netns, || TcpListener::bind("0.0.0.0:0").is_err())?, "there is no free port left");
    let found = tcptrace(&netns, &arguments)?;
    ensure!(found.status.code() == Some(1), "{found:?}");
    let found = lines(&found)?;
    let codes: Vec<&str> = found.iter().filter_map(|line| line["code"].as_str()).collect();
    ensure!(codes == ["port-grab-risk", "small-range"], "{codes:?}");
    ensure!(found[0]["listeners"][0]["process"]["pid"] == std::process::id(), "{}", found[0]);
    ensure!(found.last().is_some_and(|line| line["counts"]["risks"] == 2), "{found:?}");

    let ignoring = [&arguments[..], &["--ignore", "port-grab-risk", "--ignore", "small-range"]].concat();
    ensure!(tcptrace(&netns, &ignoring)?.status.code() == Some(0));
    let planned = ["check", "--servers", "20000-20001", "--ignore", "small-range", "--netns", &id];
    let text = String::from_utf8(tcptrace(&netns, &planned)?.stdout)?;
    ensure!(text.contains("ip_local_reserved_ports=20000-20001"), "{text}");
    Ok(())
}

#[test]
fn a_wrong_command_line_is_exit_code_2() -> Result<()> {
    for arguments in [
        ["check", "--ignore", "no-such-risk"],
        ["check", "--servers", "70000"],
        ["check", "--netns", "no/such"],
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_tcptrace")).args(arguments).output()?;
        ensure!(output.status.code() == Some(2), "{arguments:?}: {output:?}");
    }
    Ok(())
}
