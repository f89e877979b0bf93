//! The number of a network namespace that is gone is given to the next one: nothing of the first is told of the second.

mod common;

use std::io;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};
use common::{lines, stage, tcptrace};
use serde_json::Value;
use tcptrace::host::netns::{Netns, cookie_here, in_netns};
use tcptrace::rehearse::Stage;

const PORT: u16 = 7777;

/// A process in a namespace, without which the tracer would not find it.
struct Inhabitant(Child);

impl Inhabitant {
    fn of(netns: &Netns) -> Result<Self> {
        let sleep = || Command::new("sleep").arg("60").stdout(Stdio::null()).spawn();
        Ok(Self(in_netns(netns, sleep)??))
    }
}

impl Drop for Inhabitant {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn wait(time: Duration) {
    std::thread::sleep(time);
}

/// A listener is connected to, and closed.
fn listen_for_a_while() -> io::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, PORT))?;
    for _ in 0..20 {
        let _client = TcpStream::connect((Ipv4Addr::LOCALHOST, PORT))?;
        let _served = listener.accept()?;
    }
    Ok(())
}

/// Makes namespaces until one has the number `wanted`.
fn namespace_with(wanted: u32) -> Result<Option<(Stage, Netns)>> {
    let begin = Instant::now();
    // Those that have another number must stay, or theirs is given again and again.
    let mut others = Vec::new();
    while begin.elapsed() < Duration::from_secs(8) {
        let Some(made) = stage()? else { return Ok(None) };
        if made.1.id() == wanted {
            return Ok(Some(made));
        }
        others.push(made);
        wait(Duration::from_millis(50));
    }
    println!("skipped: {} namespaces, and none has the number {wanted}", others.len());
    Ok(None)
}

#[test]
fn what_was_known_of_a_namespace_is_not_told_of_the_next_with_its_number() -> Result<()> {
    let Some((first_stage, first)) = stage()? else { return Ok(()) };
    let id = first.id();
    if in_netns(&first, cookie_here)?.is_none() {
        println!("skipped: this kernel does not tell the cookie of a namespace");
        return Ok(());
    }
    let inhabitant = Inhabitant::of(&first)?;
    let host = Netns::current()?;
    let traced = std::thread::spawn(move || tcptrace(&host, &["watch", "--json", "--for", "20s"]));
    wait(Duration::from_secs(3));
    in_netns(&first, listen_for_a_while)??;
    wait(Duration::from_millis(2500));
    drop((inhabitant, first, first_stage));

    let second = namespace_with(id)?;
    if let Some((_, second)) = &second {
        let _inhabitant = Inhabitant::of(second)?;
        for _ in 0..6 {
            in_netns(second, || TcpStream::connect((Ipv4Addr::LOCALHOST, PORT)))?.err().context("refused")?;
            wait(Duration::from_millis(300));
        }
        // Until the finding has been told, and the counters have been read.
        wait(Duration::from_millis(2500));
    }
    let output = traced.join().map_err(|_panic| anyhow!("the thread of the tracer"))??;
    let lines = lines(&output)?;
    if second.is_none() || lines.is_empty() {
        println!("skipped: tracing is not possible here, or the number was not used again");
        return Ok(());
    }
    let of_type = |kind: &'static str| lines.iter().filter(move |line| line["type"] == kind);
    let found: Vec<String> = of_type("finding")
        .filter(|line| line["code"] == "no-listener")
        .map(Value::to_string)
        .filter(|line| line.contains(&id.to_string()))
        .collect();
    ensure!(!found.is_empty(), "the second namespace has no listener on {PORT}: {lines:?}");
    for finding in found {
        ensure!(!finding.contains("listener-exited"), "there never was one: {finding}");
    }
    let summary = of_type("summary").next().context("a summary")?;
    let rows = summary["trace"]["reconciliation"].as_array().context("reconciliation")?;
    let wrong: Vec<&Value> =
        rows.iter().filter(|row| row["netns"]["id"] == id && row["status"] == "mismatch").collect();
    ensure!(wrong.is_empty(), "{wrong:?}");
    Ok(())
}
