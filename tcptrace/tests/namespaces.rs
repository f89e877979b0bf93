//! The number of a network namespace that is gone is given to the next one: nothing of the first is told of the second.

mod common;

use std::io;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};
use common::{lines, stage, tcptrace};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
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

/// Kilobytes of a process's memory that are its own.
fn memory_of(pid: u32) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).context("it has memory")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

/// Containers that come and go, each with clients that call ports where nobody listens.
#[test]
fn what_happens_in_hundreds_of_namespaces_is_summed_up_and_takes_no_more_and_more_memory() -> Result<()> {
    const NAMESPACES: usize = 120;
    const AT_A_TIME: usize = 20;
    const PORTS: std::ops::Range<u16> = 7001..7006;
    let host = Netns::current()?;
    let directory = tempfile::tempdir()?;
    let told = directory.path().join("told");
    let mut command = Command::new(env!("CARGO_BIN_EXE_tcptrace"));
    command.args(["watch", "--json"]).stdout(std::fs::File::create(&told)?);
    let mut tracer = in_netns(&host, || command.spawn())??;
    wait(Duration::from_secs(4));
    if let Some(status) = tracer.try_wait()? {
        println!("skipped: tracing is not possible here ({status})");
        return Ok(());
    }
    let begin = Instant::now();
    let mut alive = std::collections::VecDeque::new();
    let mut early = 0;
    for number in 0..NAMESPACES {
        let Some((stage, netns)) = stage()? else {
            tracer.kill()?;
            tracer.wait()?;
            return Ok(());
        };
        let inhabitant = Inhabitant::of(&netns)?;
        in_netns(&netns, || {
            for port in PORTS.chain(PORTS).chain(PORTS).chain(PORTS).chain(PORTS).chain(PORTS) {
                let _refused = TcpStream::connect((Ipv4Addr::LOCALHOST, port));
            }
        })?;
        alive.push_back((inhabitant, netns, stage));
        if alive.len() > AT_A_TIME {
            alive.pop_front();
        }
        if number == NAMESPACES / 3 {
            early = memory_of(tracer.id())?;
        }
    }
    wait(Duration::from_secs(3));
    let late = memory_of(tracer.id())?;
    let seconds = usize::try_from(begin.elapsed().as_secs())?;
    kill(Pid::from_raw(i32::try_from(tracer.id())?), Signal::SIGINT)?;
    let status = tracer.wait()?;
    ensure!(status.success(), "{status}");
    let lines = lines(&Output { status, stdout: std::fs::read(&told)?, stderr: Vec::new() })?;
    let is_one = |line: &&Value| line["code"] == "no-listener" && line["state"] == "opened";
    let opened = lines.iter().filter(is_one).count();
    let summary = lines.iter().find(|line| line["type"] == "summary").context("a summary")?;
    let counted = summary["trace"]["forgotten"]["finding-no-listener"].as_u64().unwrap_or_default();
    println!("{opened} findings, {counted} counted, in {seconds} s; {early} KB, then {late} KB");
    ensure!(opened >= 256 && opened <= 256 + seconds + 2, "{opened} findings in {seconds} s");
    let all = opened + usize::try_from(counted)?;
    ensure!(counted > 0 && all <= NAMESPACES * PORTS.len(), "{counted} beside {opened}: {summary}");
    ensure!(late < early + 16_384, "{early} KB, and {late} KB after three times as many namespaces");
    Ok(())
}

/// A namespace as `ip netns` makes them, with a name.
struct Named(String);

impl Named {
    fn new(name: &str) -> Option<(Self, Netns)> {
        let add = Command::new("ip").args(["netns", "add", name]).stderr(Stdio::null()).status();
        if !add.is_ok_and(|status| status.success()) {
            println!("skipped: `ip netns add` does not work here");
            return None;
        }
        let named = Self(name.to_owned());
        let _up = Command::new("ip").args(["-n", name, "link", "set", "lo", "up"]).status();
        let netns = Netns::from_path(&std::path::Path::new("/run/netns").join(name)).ok()?;
        Some((named, netns))
    }
}

impl Drop for Named {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "delete", &self.0]).status();
    }
}

/// The namespaces in `value`: id and name of each.
fn namespaces(value: &Value) -> Vec<(u64, Option<String>)> {
    match value {
        Value::Object(members) => members
            .iter()
            .flat_map(|(name, member)| match (name.as_str(), member["id"].as_u64()) {
                ("netns", Some(id)) => vec![(id, member["name"].as_str().map(str::to_owned))],
                _ => namespaces(member),
            })
            .collect(),
        Value::Array(elements) => elements.iter().flat_map(namespaces).collect(),
        _ => Vec::new(),
    }
}

#[test]
fn a_namespace_is_named_live_in_replay_and_in_reports() -> Result<()> {
    let name = format!("tt-named-{}", std::process::id());
    let Some((_named, netns)) = Named::new(&name) else { return Ok(()) };
    let directory = tempfile::tempdir()?;
    let file = directory.path().join("named.arrows").to_string_lossy().into_owned();
    let host = Netns::current()?;
    let trace = |arguments: Vec<String>| {
        let host = host.clone();
        std::thread::spawn(move || tcptrace(&host, &arguments.iter().map(String::as_str).collect::<Vec<_>>()))
    };
    let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
    let live = trace(words("watch --json --events --for 8s"));
    let recorded = trace(words(&format!("record -o {file} --for 8s")));
    wait(Duration::from_secs(4));
    in_netns(&netns, || -> io::Result<()> {
        let _listener = TcpListener::bind((Ipv4Addr::LOCALHOST, PORT))?;
        wait(Duration::from_millis(1200));
        let refused = TcpListener::bind((Ipv4Addr::LOCALHOST, PORT));
        wait(Duration::from_millis(1200));
        refused.map_or(Ok(()), |_| Err(io::Error::other("the port was to be taken")))
    })??;
    let (live, recorded) = (live.join(), recorded.join());
    let live = lines(&live.map_err(|_panic| anyhow!("the thread of the tracer"))??)?;
    let recorded = recorded.map_err(|_panic| anyhow!("the thread of the tracer"))??;
    if live.is_empty() || !recorded.status.success() {
        println!("skipped: tracing is not possible here");
        return Ok(());
    }
    let told = |arguments: &[&str]| lines(&tcptrace(&host, arguments)?);
    for (what, lines) in [
        ("live", live),
        ("replay", told(&["replay", "--json", "--events", &file])?),
        ("report", told(&["report", "--json", &file, "--port", &PORT.to_string()])?),
    ] {
        let of_ours: Vec<_> =
            lines.iter().flat_map(namespaces).filter(|(id, _)| *id == u64::from(netns.id())).collect();
        ensure!(of_ours.len() > 2, "{what} says nothing of it: {lines:?}");
        ensure!(of_ours.iter().all(|(_, of)| of.as_ref() == Some(&name)), "{what}: {of_ours:?} in {lines:?}");
        let finding = |line: &&Value| line["type"] == "finding" && line["subject"]["netns"]["name"] == *name;
        ensure!(lines.iter().any(|line| finding(&line)), "{what} has no finding: {lines:?}");
    }
    Ok(())
}
