//! One line a case while the suite runs, what is needed to understand a failure, and the count in the end.

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::seconds;
use crate::paths;
use crate::vm::JobReport;

/// How much of an output is shown at a failure: the last so many lines, each cut here. Where the suite runs unattended,
/// what it printed may be all that is left of it; otherwise the whole is in a file.
const SHOWN_LINES: usize = 25;
const SHOWN_COLUMNS: usize = 1200;

/// The suite's account.
pub(crate) struct Tally {
    passed: usize,
    failed: Vec<String>,
    skipped: usize,
    /// How many findings were claimed as certain and are not so: the worst that the tracer can do.
    false_certains: usize,
    /// Where the outputs of failed cases are kept.
    directory: PathBuf,
}

impl Tally {
    pub(crate) fn new() -> Result<Self> {
        let directory = paths::target()?.join("xtask/test");
        if directory.exists() {
            fs::remove_dir_all(&directory).with_context(|| format!("clearing {}", directory.display()))?;
        }
        fs::create_dir_all(&directory).with_context(|| format!("creating {}", directory.display()))?;
        Ok(Self { passed: 0, failed: Vec::new(), skipped: 0, false_certains: 0, directory })
    }

    /// A command with output, judged.
    pub(crate) fn case(&mut self, name: &str, report: &JobReport, problems: &[String]) {
        self.verdict(name, report.elapsed, problems);
        self.false_certains += problems.iter().filter(|problem| problem.contains("false certain")).count();
        if problems.is_empty() {
            return;
        }
        for (stream, content) in [("stdout", &report.stdout), ("stderr", &report.stderr)] {
            self.show(&format!("{name}.{stream}"), &String::from_utf8_lossy(content));
        }
    }

    /// Something that passed or failed as a whole.
    pub(crate) fn verdict(&mut self, name: &str, elapsed: Duration, problems: &[String]) {
        let word = if problems.is_empty() { "ok  " } else { "FAIL" };
        println!("{word} {name} ({} s)", seconds(elapsed));
        for problem in problems {
            println!("       {problem}");
        }
        if problems.is_empty() {
            self.passed += 1;
        } else {
            // Of a long log often only the end is kept.
            self.failed.push(format!("{name}: {}", problems.join("; ")));
        }
    }

    pub(crate) fn skip(&mut self, name: &str, reason: &str) {
        println!("skip {name}: {reason}");
        self.skipped += 1;
    }

    /// Shows the end of an output that explains a failure, and keeps all of it.
    pub(crate) fn show(&self, name: &str, content: &str) {
        if content.is_empty() {
            return;
        }
        let path = self.directory.join(name.replace([' ', '/'], "-"));
        match fs::write(&path, content) {
            Ok(()) => println!("       in {}:", path.display()),
            Err(error) => println!("       {} could not be written: {error}", path.display()),
        }
        let lines: Vec<&str> = content.lines().collect();
        for line in lines.iter().skip(lines.len().saturating_sub(SHOWN_LINES)) {
            println!("       | {}", line.chars().take(SHOWN_COLUMNS).collect::<String>());
        }
    }

    /// The closing line, which readers of logs look for.
    pub(crate) fn close(self) -> ExitCode {
        println!();
        for failure in &self.failed {
            println!("failed: {}", failure.chars().take(SHOWN_COLUMNS).collect::<String>());
        }
        let skipped = if self.skipped > 0 { format!(", {} skipped", self.skipped) } else { String::new() };
        println!("false certains: {}", self.false_certains);
        println!("{} passed, {} failed{skipped}", self.passed, self.failed.len());
        ExitCode::from(u8::from(!self.failed.is_empty()))
    }
}
