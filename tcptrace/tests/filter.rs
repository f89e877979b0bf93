//! Filters filter everything, polled listeners and counts included; each is named; one that can match nothing is an error.

mod common;

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use common::{lines, stage, tcptrace};
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, connect, listen, socket,
};
use serde_json::Value;
use tcptrace::host::netns::{Netns, in_netns};

/// A listener at port 1090 whose accept queue overflows while `arguments` run.
fn beside_an_overflow(netns: &Netns, arguments: &[&str]) -> Result<Vec<Value>> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tcptrace"));
    command.args(arguments).args(["--json", "--for", "5s"]).stdout(std::process::Stdio::piped());
    let traced = in_netns(netns, || command.spawn())??;
    std::thread::sleep(Duration::from_millis(1500));
    let _held = in_netns(netns, || -> io::Result<(TcpListener, Vec<OwnedFd>)> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 1090))?;
        listen(&listener, Backlog::new(4)?)?;
        let to = SockaddrStorage::from(SocketAddr::from((Ipv4Addr::LOCALHOST, 1090)));
        let call = || -> io::Result<OwnedFd> {
            let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
            let client = socket(AddressFamily::Inet, SockType::Stream, flags, None)?;
            // It is not answered at once.
            let _ = connect(client.as_raw_fd(), &to);
            Ok(client)
        };
        Ok((listener, std::iter::repeat_with(call).take(30).collect::<io::Result<_>>()?))
    })??;
    lines(&traced.wait_with_output()?)
}

fn of_type<'a>(lines: &'a [Value], kind: &'a str) -> impl Iterator<Item = &'a Value> {
    lines.iter().filter(move |line| line["type"] == kind)
}

#[test]
fn what_was_not_asked_for_is_neither_told_nor_counted() -> Result<()> {
    let Some((_stage, netns)) = stage()? else { return Ok(()) };
    let id = netns.id().to_string();
    let me = std::process::id().to_string();
    // Of init nothing is traced; ranges and lists are filtered as single ports are. Other tests have servers in namespaces of their
    // own, which are none of this one's business.
    for (arguments, named, found) in [
        (vec!["watch", "--port", "8081", "--netns", &id], "--port 8081", false),
        (
            vec!["watch", "--port", "8000-9000", "--port", "80,443", "--netns", &id],
            "--port 80,443,8000-9000",
            false,
        ),
        (vec!["watch", "--pid", "1", "--netns", &id], "--pid 1", false),
        (
            vec!["watch", "--finding", "bind-conflict,port-leak", "--netns", &id],
            "--finding bind-conflict",
            false,
        ),
        (vec!["watch", "--port", "1000-1100", "--netns", &id], "--port 1000-1100", true),
        (vec!["watch", "--pid", &me, "--netns", &id], &format!("--netns {id}"), true),
    ] {
        let lines = beside_an_overflow(&netns, &arguments)?;
        let Some(coverage) = lines.first() else {
            println!("skipped: tracing is not possible here");
            return Ok(());
        };
        let summary = of_type(&lines, "summary").next().context("a summary")?;
        for line in [coverage, summary] {
            let filters = line["filters"].as_array().context("filters")?;
            ensure!(filters.iter().any(|word| word == named), "{arguments:?}: {line}");
        }
        let codes: Vec<&str> = of_type(&lines, "finding").filter_map(|line| line["code"].as_str()).collect();
        let counted = summary["trace"]["findings"].as_object().context("findings")?;
        if found {
            ensure!(codes.contains(&"accept-queue-overflow"), "{arguments:?}: {codes:?}");
            ensure!(counted.contains_key("accept-queue-overflow"), "{arguments:?}: {summary}");
        } else {
            ensure!(codes.is_empty() && counted.is_empty(), "{arguments:?}: {codes:?} {summary}");
            let events = summary["trace"]["events"].as_object().context("events")?;
            ensure!(arguments.contains(&"--finding") || events.is_empty(), "{arguments:?}: {summary}");
        }
    }
    Ok(())
}

#[test]
fn a_filter_that_can_match_nothing_is_exit_code_2() -> Result<()> {
    let recording = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/recordings/port-grab.arrows");
    for (arguments, says) in [
        (vec!["watch", "--finding", "no-such-finding"], "there are accept-"),
        (vec!["watch", "--netns", "tt-no-such-namespace"], "tt-no-such-namespace"),
        (vec!["watch", "--pid", "4194999"], "no such process"),
        (vec!["record", "-o", "/nowhere/x.arrows", "--pid", "4194999"], "no such process"),
        (vec!["watch", "--comm", "longer-than-the-kernel-keeps"], "15 bytes"),
        (vec!["watch", "--port", "0"], "port 0"),
        (vec!["who", "0"], "port 0"),
        (vec!["replay", "--netns", "7", recording], "there are 40"),
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_tcptrace")).args(&arguments).output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.code() == Some(2) && said.contains(says), "{arguments:?}: {output:?}");
    }
    Ok(())
}

#[test]
fn a_recording_is_filtered_as_a_trace_is() -> Result<()> {
    let Some((_stage, netns)) = stage()? else { return Ok(()) };
    let recording = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/recordings/accept-overflow.arrows");
    let replay =
        |more: &[&str]| lines(&tcptrace(&netns, &[&["replay", "--json", recording], more].concat())?);
    let all = replay(&[])?;
    let of_all = of_type(&all, "summary").next().context("a summary")?.clone();
    ensure!(
        of_all["filters"] == serde_json::json!([])
            && of_all["trace"]["findings"]["accept-queue-overflow"] == 1,
        "{of_all}"
    );
    let other = replay(&["--port", "1"])?;
    let summary = of_type(&other, "summary").next().context("a summary")?;
    ensure!(of_type(&other, "finding").next().is_none(), "{other:?}");
    ensure!(
        summary["trace"]["findings"] == serde_json::json!({})
            && summary["trace"]["events"] == serde_json::json!({}),
        "{summary}"
    );
    ensure!(summary["filters"][0] == "--port 1" && other[0]["filters"][0] == "--port 1", "{summary}");
    Ok(())
}
