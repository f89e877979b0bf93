//! `tcptrace` beside a load: what it found, and what the kernel counted meanwhile.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

/// A tracer at work.
pub(super) struct Tracer {
    child: Child,
    lines: std::io::Lines<BufReader<ChildStdout>>,
    overflows: u64,
    cut_short: u64,
    taken_over: u64,
}

/// What came of it.
pub(super) struct Seen {
    /// The findings as they were when they were told last.
    pub(super) findings: Vec<Value>,
    /// Connections that the kernel dropped at full accept queues of this network namespace.
    pub(super) overflows: u64,
    /// Handshakes that their clients reset before they were complete.
    pub(super) cut_short: u64,
    /// Connections in TIME_WAIT whose port connect() took over.
    pub(super) taken_over: u64,
}

impl Tracer {
    /// Starts one that looks at this network namespace alone, and waits until it sees.
    pub(super) fn start(program: &Path) -> Result<Self> {
        let mut child = Command::new(program)
            .args(["watch", "--json", "--netns", &std::process::id().to_string()])
            // What is proven is what comes with it.
            .env_remove("TCPTRACE_SOFTWARE")
            .env("XDG_CONFIG_HOME", "/nonexistent")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .context("starting tcptrace")?;
        let stdout = child.stdout.take().context("the output of tcptrace")?;
        let mut lines = BufReader::new(stdout).lines();
        let first = lines.next().context("tcptrace says nothing")??;
        ensure!(first.contains(r#""type":"coverage""#), "tcptrace does not begin with its coverage: {first}");
        Ok(Self {
            child,
            lines,
            overflows: counted(OVERFLOWS)?,
            cut_short: counted(CUT_SHORT)?,
            taken_over: counted(TAKEN_OVER)?,
        })
    }

    /// Ends it.
    pub(super) fn end(mut self) -> Result<Seen> {
        let overflows = counted(OVERFLOWS)?.saturating_sub(self.overflows);
        let cut_short = counted(CUT_SHORT)?.saturating_sub(self.cut_short);
        let taken_over = counted(TAKEN_OVER)?.saturating_sub(self.taken_over);
        let pid = Pid::from_raw(i32::try_from(self.child.id()).context("a process id")?);
        kill(pid, Signal::SIGINT).context("ending tcptrace")?;
        let mut findings: Vec<Value> = Vec::new();
        for line in self.lines.by_ref() {
            let line: Value = serde_json::from_str(&line?).context("a line of tcptrace")?;
            if line.get("type").is_some_and(|kind| kind == "finding") {
                findings.retain(|earlier| earlier.get("id") != line.get("id"));
                findings.push(line);
            }
        }
        let status = self.child.wait().context("waiting for tcptrace")?;
        ensure!(status.success(), "tcptrace: {status}");
        Ok(Seen { findings, overflows, cut_short, taken_over })
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        // It has ended, unless something else failed.
        let _ended = self.child.kill();
        let _ended = self.child.wait();
    }
}

impl Seen {
    /// What it gives to do.
    pub(super) fn remedies(finding: &Value) -> Vec<String> {
        let remedies = finding["remedy"].as_array().map(Vec::as_slice).unwrap_or_default();
        remedies.iter().filter_map(|remedy| remedy["text"].as_str()).map(str::to_owned).collect()
    }

    /// All findings, in short.
    pub(super) fn in_short(&self) -> Vec<String> {
        let short =
            |finding: &Value| format!("{} {}: {}", finding["code"], finding["cause"], finding["title"]);
        self.findings.iter().map(short).collect()
    }
}

const OVERFLOWS: &str = "ListenOverflows";
const CUT_SHORT: &str = "EmbryonicRsts";
const TAKEN_OVER: &str = "TWRecycled";

/// A counter of this network namespace, of those under `TcpExt`.
fn counted(counter: &str) -> Result<u64> {
    let text = fs::read_to_string("/proc/self/net/netstat").context("the kernel's counters")?;
    let mut lines = text.lines().filter(|line| line.starts_with("TcpExt:"));
    let (names, values) = (lines.next().context("TcpExt")?, lines.next().context("TcpExt")?);
    let at = names.split(' ').position(|name| name == counter).with_context(|| counter.to_owned())?;
    values.split(' ').nth(at).with_context(|| counter.to_owned())?.parse().with_context(|| counter.to_owned())
}
