//! Recordings of two hosts in one report: the clocks compared, a client's stall named by what the server did.

#[path = "common/checked.rs"]
mod checked;

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tcptrace::event::Timestamp;
use tcptrace::record::{Reader, Writer};

/// The server's clock is ahead by so much.
const SKEW_NS: u64 = 37_250_000_000;

fn recordings() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recordings/across")
}

fn report(arguments: &[&str], files: &[&Path]) -> Result<String> {
    let output = Command::new(env!("CARGO_BIN_EXE_tcptrace"))
        .arg("report")
        .args(arguments)
        .args(files)
        .env("TZ", "UTC")
        .output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}

/// `from` as if another host, whose clock is ahead, had recorded it.
fn of_another_host(from: &Path, to: &Path, host: &str, ahead_ns: u64) -> Result<()> {
    let mut reader = Reader::open(from)?;
    let mut metadata = reader.metadata().clone();
    host.clone_into(&mut metadata.host);
    metadata.boot_id = format!("boot of {host}");
    metadata.started = ahead(metadata.started, ahead_ns);
    let mut writer = Writer::new(fs::File::create(to)?, &metadata)?;
    let mut events = Vec::new();
    while reader.next_events(&mut events)? {
        for mut event in events.drain(..) {
            event.time = ahead(event.time, ahead_ns);
            writer.push(&event, false)?;
        }
    }
    writer.finish()?;
    Ok(())
}

fn ahead(time: Timestamp, by: u64) -> Timestamp {
    Timestamp::from_nanos(time.nanos() + by)
}

/// Each `clock` and `stall` line.
fn lines(report: &str) -> Result<(Vec<Value>, Vec<Value>)> {
    let lines = checked::lines(report)?;
    let of =
        |kind: &str| lines.iter().filter(|line| line.get("type") == Some(&kind.into())).cloned().collect();
    Ok((of("clock"), of("stall")))
}

fn text<'a>(of: &'a Value, key: &str) -> &'a str {
    of.get(key).and_then(Value::as_str).unwrap_or_default()
}

/// The committed pair was made on one machine in two namespaces, the second while the machine's clock had been set ahead, so
/// both say how far; then they were given names and boots of two hosts. `tests/recordings/README.md` tells how.
#[test]
fn two_hosts_are_told_of_as_before() -> Result<()> {
    let (client, server) = (recordings().join("client.arrows"), recordings().join("server.arrows"));
    let golden = recordings().join("report.txt");
    let now = report(&[], &[&client, &server])?;
    if std::env::var_os("TCPTRACE_BLESS").is_some() {
        fs::write(&golden, &now)?;
    }
    ensure!(
        fs::read_to_string(&golden).unwrap_or_default() == now,
        "another report than before. If that is meant: TCPTRACE_BLESS=1 cargo test -p tcptrace --test across"
    );
    let offset = |path: &Path| -> Result<i64> { Ok(Reader::open(path)?.metadata().clock_offset_ns) };
    let truth = (offset(&server)? - offset(&client)?) as f64 / 1e6;
    ensure!(truth.abs() > 10_000.0, "the clocks of the recordings are the same");
    let (clocks, stalls) = lines(&report(&["--json"], &[&client, &server])?)?;
    check_clock(&clocks, "client", truth)?;
    ensure!(stalls.iter().any(|of| text(of, "code") == "accept-queue-overflow"
        && text(of, "confidence") == "certain"
        && text(of, "server_recording") == "server"
        && text(of, "client_recording") == "client"));
    let page = tempfile::tempdir()?.path().join("page.html");
    fs::create_dir_all(page.parent().context("a directory")?)?;
    report(&["--html", &page.to_string_lossy()], &[&client, &server])?;
    ensure!(fs::read_to_string(&page)?.contains("From client to server"));
    Ok(())
}

/// The clock of the recording that is compared with `against`: ahead by `truth` ms, within the error that is said, which is small.
fn check_clock(clocks: &[Value], against: &str, truth: f64) -> Result<()> {
    let clock =
        clocks.iter().find(|of| text(of, "against") == against).context("a clock that is compared")?;
    let number = |key: &str| clock.get(key).and_then(Value::as_f64).context(key.to_owned());
    let (ahead, error) = (number("ahead_ms")?, number("error_ms")?);
    ensure!((ahead - truth).abs() <= error && error < 5.0, "{ahead} ± {error} ms instead of {truth}");
    Ok(())
}

struct Ends(Vec<Child>);

impl Drop for Ends {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _over = child.kill();
            let _status = child.wait();
        }
    }
}

/// Two namespaces, two recorders, one incident; then one of the recordings is set ahead. Needs root and a kernel that can be
/// traced; says so and passes where it has neither.
#[test]
fn two_namespaces_that_are_recorded_apart_explain_each_other() -> Result<()> {
    let deps = std::env::current_exe()?;
    let scene = deps.ancestors().nth(2).context("a test lies in target/…/deps")?.join("examples/two_hosts");
    ensure!(scene.exists(), "{} is missing: cargo build -p tcptrace --example two_hosts", scene.display());
    let mut ends = Ends(Vec::new());
    let mut scene = Command::new(scene).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let (mut go, out) = (scene.stdin.take().context("stdin")?, scene.stdout.take().context("stdout")?);
    ends.0.push(scene);
    let mut out = BufReader::new(out).lines();
    let Some(paths) = out.next().transpose()? else {
        println!("skipped: this machine does not let us make namespaces");
        return Ok(());
    };
    let paths: Value = serde_json::from_str(&paths)?;
    let directory = tempfile::tempdir()?;
    let mut recorders = Vec::new();
    for (end, name) in [("client", "made-client.arrows"), ("server", "made-server.arrows")] {
        let file = directory.path().join(name);
        let mut recorder = Command::new(env!("CARGO_BIN_EXE_tcptrace"))
            .args(["record", "--all", "--for", "25s", "--netns", text(&paths, end), "-o"])
            .arg(&file)
            .stderr(Stdio::piped())
            .spawn()?;
        // The file is there once the tracer is attached.
        let attached = (0..600).any(|_| {
            std::thread::sleep(std::time::Duration::from_millis(50));
            file.exists() || !matches!(recorder.try_wait(), Ok(None))
        });
        ensure!(attached, "the recorder does not begin");
        if !file.exists() {
            println!("skipped: this machine cannot be traced (exit code {:?})", recorder.wait()?.code());
            return Ok(());
        }
        recorders.push((recorder.id(), file));
        ends.0.push(recorder);
    }
    writeln!(go)?;
    let played = out.next().transpose()?.context("what was played")?;
    for (pid, _) in &recorders {
        nix::sys::signal::kill(
            nix::unistd::Pid::from_raw(i32::try_from(*pid)?),
            nix::sys::signal::Signal::SIGINT,
        )?;
    }
    for child in ends.0.iter_mut().skip(1) {
        ensure!(child.wait()?.success(), "a recorder failed");
    }
    let (client, server) = (directory.path().join("client.arrows"), directory.path().join("server.arrows"));
    of_another_host(&directory.path().join("made-client.arrows"), &client, "client", 0)?;
    of_another_host(&directory.path().join("made-server.arrows"), &server, "server", SKEW_NS)?;
    let said = report(&["--json"], &[&client, &server])?;
    let (clocks, stalls) = lines(&said)?;
    check_clock(&clocks, "client", SKEW_NS as f64 / 1e6)?;
    for code in ["accept-queue-overflow", "no-listener"] {
        let found = stalls.iter().find(|of| text(of, "code") == code);
        let found = found.with_context(|| format!("no {code}: {played}\n{said}"))?;
        ensure!(
            text(found, "server_recording") == "server" && !text(found, "server_finding").is_empty(),
            "{found}"
        );
    }
    ensure!(!stalls.iter().any(|of| text(of, "code") == "lost-on-the-way"), "nothing was lost: {stalls:?}");
    Ok(())
}
