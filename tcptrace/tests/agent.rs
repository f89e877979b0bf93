//! The agent as people run it: what it keeps, what it tells, what it survives.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::fd::AsRawFd as _;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrIn, bind, connect, getsockname, listen, socket,
};
use nix::unistd::Pid;
use serde_json::Value;

/// Ends when the test does.
struct Process(Child);

impl Process {
    fn signal(&self, signal: Signal) -> Result<()> {
        Ok(kill(Pid::from_raw(i32::try_from(self.0.id())?), signal)?)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _over = self.0.kill();
        let _over = self.0.wait();
    }
}

fn wait_for<T>(what: &str, mut look: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(40) {
        if let Some(found) = look()? {
            return Ok(found);
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    bail!("in 40 s there was not: {what}")
}

/// A network namespace of its own, for as long as a process sleeps there.
struct Place(Process);

impl Place {
    fn new() -> Result<Option<Self>> {
        let child = Command::new("unshare").args(["-n", "sleep", "600"]).stderr(Stdio::null()).spawn();
        let Ok(mut child) = child else { return Ok(None) };
        std::thread::sleep(Duration::from_millis(300));
        if child.try_wait()?.is_some() {
            return Ok(None);
        }
        let place = Self(Process(child));
        let pid = place.pid().to_string();
        let up = Command::new("nsenter").args(["-t", &pid, "-n", "ip", "link", "set", "lo", "up"]).status();
        Ok(up.is_ok_and(|status| status.success()).then_some(place))
    }

    fn pid(&self) -> u32 {
        self.0.0.id()
    }

    /// A listener that nobody accepts from gets more connections than it has room for.
    fn overflow(&self) -> Result<()> {
        let namespace = fs::File::open(format!("/proc/{}/ns/net", self.pid()))?;
        // Its namespace is a thread's own.
        let thread = std::thread::spawn(move || -> Result<()> {
            setns(&namespace, CloneFlags::CLONE_NEWNET)?;
            let new = || socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_NONBLOCK, None);
            let server = new()?;
            bind(server.as_raw_fd(), &SockaddrIn::new(127, 0, 0, 1, 0))?;
            listen(&server, Backlog::new(1)?)?;
            let place: SockaddrIn = getsockname(server.as_raw_fd())?;
            let mut clients = Vec::new();
            for _ in 0..12 {
                let client = new()?;
                let _in_progress = connect(client.as_raw_fd(), &place);
                clients.push(client);
            }
            // The SYNs that were dropped are sent again, and dropped again.
            std::thread::sleep(Duration::from_secs(4));
            Ok(())
        });
        thread.join().map_err(|_| anyhow::anyhow!("the load has panicked"))?
    }
}

/// A port that is free now.
fn free_port() -> Result<u16> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

fn ask(port: u16, request: &str) -> Result<(u16, String)> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    stream.write_all(format!("{request}\r\nHost: localhost\r\n\r\n").as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let status = answer.split(' ').nth(1).and_then(|code| code.parse().ok()).context("no status")?;
    let body = answer.split_once("\r\n\r\n").context("no body")?.1.to_owned();
    Ok((status, body))
}

struct Agent {
    process: Process,
    directory: PathBuf,
    port: u16,
    out: PathBuf,
}

impl Agent {
    /// Started as systemd does it; `None` where tracing is not possible.
    fn start(at: &Path, place: &Place, more: &[&str]) -> Result<Option<Self>> {
        let (directory, out) = (at.join("agent"), at.join("out"));
        let notify = at.join("notify");
        let _not_there = fs::remove_file(&notify);
        let heard = UnixDatagram::bind(&notify)?;
        heard.set_read_timeout(Some(Duration::from_secs(60)))?;
        let port = free_port()?;
        let netns = place.pid().to_string();
        let child = Command::new(env!("CARGO_BIN_EXE_tcptrace"))
            .args(["agent", "--json", "--netns", &netns, "--metrics", &format!("127.0.0.1:{port}"), "--dir"])
            .arg(&directory)
            .args(more)
            .env("NOTIFY_SOCKET", &notify)
            .stdout(fs::File::create(&out)?)
            .stderr(fs::File::create(at.join("err"))?)
            .spawn()?;
        let mut process = Process(child);
        let mut said = String::new();
        while !said.contains("READY=1") {
            let mut words = [0; 256];
            heard.set_read_timeout(Some(Duration::from_millis(500)))?;
            if let Ok(count) = heard.recv(&mut words) {
                said.push_str(std::str::from_utf8(words.get(..count).unwrap_or_default())?);
            } else if let Some(status) = process.0.try_wait()? {
                let err = fs::read_to_string(at.join("err"))?;
                if matches!(status.code(), Some(3 | 4)) {
                    println!("skipped: {}", err.trim());
                    return Ok(None);
                }
                bail!("it ended with {status}: {err}");
            }
        }
        Ok(Some(Self { process, directory, port, out }))
    }

    fn ask(&self, request: &str) -> Result<(u16, String)> {
        ask(self.port, request)
    }

    fn metrics(&self) -> Result<String> {
        let (status, page) = self.ask("GET /metrics HTTP/1.1")?;
        ensure!(status == 200, "{status}: {page}");
        Ok(page)
    }

    /// The incidents that are kept, oldest first.
    fn incidents(&self) -> Result<Vec<PathBuf>> {
        let mut all: Vec<PathBuf> = fs::read_dir(self.directory.join("incidents"))?
            .map(|entry| Ok(entry?.path()))
            .collect::<Result<_>>()?;
        all.sort();
        Ok(all)
    }

    fn end(mut self) -> Result<Value> {
        self.process.signal(Signal::SIGTERM)?;
        let status = self.process.0.wait()?;
        ensure!(status.success(), "{status}");
        let text = fs::read_to_string(&self.out)?;
        let last = text.lines().last().context("nothing was printed")?;
        Ok(serde_json::from_str(last)?)
    }
}

/// A family's samples by the value of one label.
fn by_label(page: &str, name: &str, label: &str) -> BTreeMap<String, u64> {
    let mut found = BTreeMap::new();
    for line in page.lines().filter(|line| line.starts_with(&format!("{name}{{"))) {
        let value = line.split_once(&format!("{label}=\"")).and_then(|(_, rest)| rest.split_once('"'));
        let number: Option<u64> = line.rsplit(' ').next().and_then(|number| number.parse().ok());
        if let (Some((value, _)), Some(number)) = (value, number) {
            *found.entry(value.to_owned()).or_default() += number;
        }
    }
    found
}

fn counts(of: &Value) -> BTreeMap<String, u64> {
    let members = of.as_object().into_iter().flatten();
    members.filter_map(|(name, count)| Some((name.clone(), count.as_u64()?))).collect()
}

fn is_there(program: &str) -> bool {
    Command::new(program).arg("--version").output().is_ok()
}

fn skipped(why: &str) -> Result<()> {
    println!("skipped: {why}");
    Ok(())
}

fn above_zero(found: BTreeMap<String, u64>) -> BTreeMap<String, u64> {
    found.into_iter().filter(|(_, count)| *count > 0).collect()
}

/// A time series database that scrapes the agent once a second.
struct Store {
    name: &'static str,
    _process: Process,
    port: u16,
}

impl Store {
    fn prometheus(at: &Path, agent: u16) -> Result<Option<Self>> {
        Self::start("prometheus", at, agent, |config, data, address| {
            vec![
                format!("--config.file={config}"),
                format!("--storage.tsdb.path={data}"),
                format!("--web.listen-address={address}"),
            ]
        })
    }

    fn victoria_metrics(at: &Path, agent: u16) -> Result<Option<Self>> {
        Self::start("victoria-metrics", at, agent, |config, data, address| {
            vec![
                format!("-promscrape.config={config}"),
                format!("-storageDataPath={data}"),
                format!("-httpListenAddr={address}"),
                // What was scraped just now is asked for.
                "-search.latencyOffset=0s".to_owned(),
                "-search.disableCache".to_owned(),
            ]
        })
    }

    fn start(
        name: &'static str,
        at: &Path,
        agent: u16,
        arguments: impl Fn(&str, &str, &str) -> Vec<String>,
    ) -> Result<Option<Self>> {
        if !is_there(name) {
            println!("skipped: no {name} scrapes the agent (cargo xtask setup installs it)");
            return Ok(None);
        }
        let (config, data) = (at.join(format!("{name}.yml")), at.join(name));
        fs::write(
            &config,
            format!(
                "global: {{scrape_interval: 1s}}\nscrape_configs:\n  - job_name: tcptrace\n    static_configs: \
                 [{{targets: ['127.0.0.1:{agent}']}}]\n",
            ),
        )?;
        let port = free_port()?;
        let words = |path: &Path| path.display().to_string();
        let process = Command::new(name)
            .args(arguments(&words(&config), &words(&data), &format!("127.0.0.1:{port}")))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        Ok(Some(Self { name, _process: Process(process), port }))
    }

    /// Findings by code and events by kind, as it holds them now.
    fn holds(&self) -> Result<(BTreeMap<String, u64>, BTreeMap<String, u64>)> {
        let url = "GET /api/v1/query?query=%7B__name__=~%22tcptrace_(findings|events)_total%22%7D HTTP/1.0";
        let asked = ask(self.port, url)?;
        let answer: Value = serde_json::from_str(&asked.1).with_context(|| asked.1.clone())?;
        let (mut codes, mut kinds) = (BTreeMap::new(), BTreeMap::new());
        for sample in answer.pointer("/data/result").and_then(Value::as_array).into_iter().flatten() {
            let count: u64 = sample.pointer("/value/1").and_then(Value::as_str).unwrap_or("").parse()?;
            let metric = &sample["metric"];
            if let Some(code) = metric["code"].as_str() {
                codes.insert(code.to_owned(), count);
            } else if let Some(kind) = metric["kind"].as_str() {
                kinds.insert(kind.to_owned(), count);
            }
        }
        Ok((above_zero(codes), kinds))
    }
}

fn report(of: &Path) -> Result<String> {
    let output = Command::new(env!("CARGO_BIN_EXE_tcptrace")).args(["report", "--json"]).arg(of).output()?;
    ensure!(output.status.success(), "{output:?}");
    Ok(String::from_utf8(output.stdout)?)
}

#[test]
fn an_incident_is_kept_and_the_metrics_are_the_summarys() -> Result<()> {
    let Some(place) = Place::new()? else { return skipped("no network namespace can be made here") };
    let at = tempfile::tempdir()?;
    let Some(agent) = Agent::start(at.path(), &place, &["--part", "2s", "--after", "3s"])? else {
        return Ok(());
    };
    ensure!(agent.ask("GET /health HTTP/1.1")?.0 == 200);
    ensure!(agent.ask("GET /ready HTTP/1.1")?.0 == 200);
    ensure!(agent.ask("GET /snapshot HTTP/1.1")?.0 == 405);
    ensure!(agent.ask("POST /snapshot HTTP/1.1\r\nOrigin: http://evil.example")?.0 == 403);
    ensure!(agent.incidents()?.is_empty());

    // A second one of the same directory.
    let second = Command::new(env!("CARGO_BIN_EXE_tcptrace"))
        .args(["agent", "--dir"])
        .arg(&agent.directory)
        .output()?;
    let words = String::from_utf8_lossy(&second.stderr).into_owned();
    ensure!(second.status.code() == Some(2) && words.contains("records there already"), "{words}");

    let stores = [Store::prometheus(at.path(), agent.port)?, Store::victoria_metrics(at.path(), agent.port)?];

    place.overflow()?;
    let kept = wait_for("an incident", || Ok(agent.incidents()?.first().cloned()))?;
    ensure!(kept.to_string_lossy().ends_with("-accept-queue-overflow"), "{kept:?}");
    // What it says by itself, while it may still go on.
    let text = report(&kept)?;
    ensure!(text.contains("accept-queue-overflow"), "{text}");
    agent.process.signal(Signal::SIGUSR1)?;
    let (status, answer) = agent.ask("POST /snapshot HTTP/1.1")?;
    ensure!(status == 202 && answer.contains("\"directory\""), "{status}: {answer}");
    wait_for("its end", || {
        let about: Value = serde_json::from_slice(&fs::read(kept.join("incident.json"))?)?;
        Ok((about["closed"] == true).then_some(()))
    })?;

    // Everything has come to rest: what a scrape says from now on is what the summary will say.
    std::thread::sleep(Duration::from_secs(3));
    let page = agent.metrics()?;
    if is_there("promtool") {
        let mut check = Command::new("promtool")
            .args(["check", "metrics"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        check.stdin.take().context("stdin")?.write_all(page.as_bytes())?;
        let checked = check.wait_with_output()?;
        ensure!(checked.status.success() && checked.stderr.is_empty(), "{checked:?}\n{page}");
    } else {
        println!("skipped: no promtool");
    }
    let told = above_zero(by_label(&page, "tcptrace_findings_total", "code"));
    let seen = by_label(&page, "tcptrace_events_total", "kind");
    let drops = by_label(&page, "tcptrace_listener_drops_total", "cause");
    ensure!(drops.get("accept-queue").is_some_and(|count| *count > 0), "{page}");
    let mut held = Vec::new();
    for store in stores.iter().flatten() {
        let same = wait_for(&format!("a scrape by {} that says the same", store.name), || {
            Ok(Some(store.holds()?).filter(|(codes, _)| *codes == told))
        });
        held.push((store.name, same?));
    }
    let summary = agent.end()?;
    ensure!(counts(&summary["trace"]["findings"]) == told, "{summary}: {told:?}");
    ensure!(counts(&summary["trace"]["events"]) == seen, "{summary}: {seen:?}");
    for (name, (codes, kinds)) in held {
        ensure!(codes == told && kinds == seen, "{name}: {codes:?} {kinds:?}: {summary}");
    }
    Ok(())
}

#[test]
fn after_attaching_it_has_five_capabilities_and_its_other_threads_none() -> Result<()> {
    let Some(place) = Place::new()? else { return skipped("no network namespace can be made here") };
    let at = tempfile::tempdir()?;
    let Some(agent) = Agent::start(at.path(), &place, &[])? else { return Ok(()) };
    let needed: u64 = tcptrace::agent::NEEDED.iter().map(|(capability, _)| capability.bitmask()).sum();
    let pid = agent.process.0.id();
    // A thread gets its name, and gives up what it has, as the first thing that it does.
    std::thread::sleep(Duration::from_secs(1));
    let mut threads = BTreeMap::new();
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let status = fs::read_to_string(task?.path().join("status"))?;
        let value = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.map(|line| line.trim().to_owned()).context("no such line")
        };
        let set = |name: &str| -> Result<u64> { Ok(u64::from_str_radix(&value(name)?, 16)?) };
        ensure!(value("NoNewPrivs:")? == "1", "{status}");
        ensure!(set("CapPrm:")? == set("CapEff:")?, "{status}");
        ensure!(set("CapInh:")? == 0 && set("CapAmb:")? == 0, "{status}");
        ensure!(set("CapBnd:")? & !needed == 0, "{status}");
        threads.insert(value("Name:")?, set("CapPrm:")?);
    }
    ensure!(threads.get("tcptrace").is_some_and(|kept| kept & !needed == 0), "{threads:x?}");
    ensure!(threads.get("http") == Some(&0) && threads.get("recorder") == Some(&0), "{threads:x?}");
    // And it still works: who has a socket is found in /proc, another namespace is entered.
    place.overflow()?;
    let page = agent.metrics()?;
    let processes = by_label(&page, "tcptrace_listener_drops_total", "process");
    ensure!(processes.keys().any(|name| !name.is_empty()), "{page}");
    agent.end()?;
    Ok(())
}

#[test]
fn what_is_kept_survives_kill_9_and_the_next_one_goes_on() -> Result<()> {
    let Some(place) = Place::new()? else { return skipped("no network namespace can be made here") };
    let at = tempfile::tempdir()?;
    let options = ["--part", "2s", "--after", "1s", "--keep-size", "8M", "--keep-incidents", "8M"];
    let mut kept = Vec::new();
    for round in 0..3 {
        let Some(mut agent) = Agent::start(at.path(), &place, &options)? else { return Ok(()) };
        ensure!(agent.incidents()? == kept, "round {round}: {:?}", agent.incidents()?);
        // Some seconds of the time before.
        std::thread::sleep(Duration::from_millis(2500));
        let (status, answer) = agent.ask("POST /snapshot HTTP/1.1")?;
        ensure!(status == 202, "{status}: {answer}");
        agent.process.0.kill()?;
        agent.process.0.wait()?;
        kept = agent.incidents()?;
    }
    ensure!(!kept.is_empty());
    for incident in &kept {
        let output = Command::new(env!("CARGO_BIN_EXE_tcptrace")).arg("report").arg(incident).output()?;
        ensure!(output.status.success(), "{incident:?}: {output:?}");
    }
    Ok(())
}

#[test]
fn many_slow_clients_hurt_neither_the_tracer_nor_the_next_scrape() -> Result<()> {
    let Some(place) = Place::new()? else { return skipped("no network namespace can be made here") };
    let at = tempfile::tempdir()?;
    let Some(agent) = Agent::start(at.path(), &place, &[])? else { return Ok(()) };
    let mut clients = Vec::new();
    for _ in 0..200 {
        let mut client = TcpStream::connect(("127.0.0.1", agent.port))?;
        // Half a request, and no more.
        let _may_be_refused = client.write_all(b"GET /metrics HTTP/1.1\r\nHost: l");
        clients.push(client);
    }
    place.overflow()?;
    // The tracer has gone on meanwhile, and slow clients are gone after some seconds.
    let page = wait_for("a page", || Ok(agent.metrics().ok()))?;
    ensure!(page.contains("tcptrace_http_refused_total 1"), "{page}");
    let drops = by_label(&page, "tcptrace_listener_drops_total", "cause");
    ensure!(drops.get("accept-queue").is_some_and(|count| *count > 0), "{page}");
    drop(clients);
    agent.end()?;
    Ok(())
}

#[test]
fn a_configuration_that_is_read_again_holds_at_once_and_a_wrong_one_changes_nothing() -> Result<()> {
    let Some(place) = Place::new()? else { return skipped("no network namespace can be made here") };
    let at = tempfile::tempdir()?;
    let config = at.path().join("tcptrace.toml");
    fs::write(&config, "[agent]\npart = \"1h\"\nafter = \"5s\"\n")?;
    let options = ["--config", config.to_str().context("a path")?, "--after", "1s"];
    let Some(agent) = Agent::start(at.path(), &place, &options)? else { return Ok(()) };
    let said = || Ok::<_, anyhow::Error>(fs::read_to_string(at.path().join("err"))?);
    let count = |name: &str| -> Result<u64> {
        let page = agent.metrics()?;
        let line = page.lines().find_map(|line| line.strip_prefix(&format!("{name} ")).map(str::to_owned));
        Ok(line.context("no such metric")?.parse()?)
    };
    fs::write(&config, "[agent]\npart = \"1s\"\nkeep-sizes = \"1G\"\n")?;
    agent.process.signal(Signal::SIGHUP)?;
    wait_for("the refusal", || Ok((count("tcptrace_config_reloads_refused_total")? == 1).then_some(())))?;
    let words = format!("{}:3:1: unknown field `keep-sizes`", config.display());
    ensure!(said()?.contains(&words), "{}", said()?);
    std::thread::sleep(Duration::from_secs(6));
    ensure!(count("tcptrace_ring_parts")? == 1, "a wrong configuration changed something");

    fs::write(&config, "[agent]\npart = \"1s\"\n")?;
    agent.process.signal(Signal::SIGHUP)?;
    wait_for("parts of a second", || Ok((count("tcptrace_ring_parts")? > 2).then_some(())))?;
    ensure!(count("tcptrace_config_reloads_total")? == 1);
    agent.end()?;
    Ok(())
}

#[test]
fn what_cannot_be_is_refused_before_anything_is_attached() -> Result<()> {
    let at = tempfile::tempdir()?;
    let try_out = |more: &[&str]| {
        Command::new(env!("CARGO_BIN_EXE_tcptrace"))
            .args(["agent", "--dir"])
            .arg(at.path())
            .args(more)
            .output()
    };
    for (more, words) in [
        (&["--metrics", "0.0.0.0:0"][..], "--metrics-remote"),
        (&["--keep-age", "1m"], "the ring must reach back"),
        (&["--keep-size", "1M"], "8M at least"),
        (&["--part", "1ms"], "a second long at least"),
    ] {
        let refused = try_out(more)?;
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        ensure!(refused.status.code() == Some(2) && said.contains(words), "{more:?}: {said}");
    }
    Ok(())
}

#[test]
fn alert_rules_are_sound_and_go_off_when_they_should() -> Result<()> {
    if !is_there("promtool") {
        return skipped("no promtool (cargo xtask setup installs it)");
    }
    let rules = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/agent");
    for words in [["check", "rules", "alerts.yaml"], ["test", "rules", "alerts-test.yaml"]] {
        let output = Command::new("promtool").args(words).current_dir(&rules).output()?;
        ensure!(output.status.success(), "{words:?}: {output:?}");
    }
    Ok(())
}
