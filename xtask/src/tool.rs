//! Running other programs, with errors that say which program and what it said.

use std::process::{Command, Output, Stdio};

use anyhow::{Context as _, Result, bail};

/// Runs to the end with the output kept back; a failure carries the tail of stderr.
pub(crate) fn capture(command: &mut Command) -> Result<Output> {
    let name = describe(command);
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("starting `{name}`"))?;
    if !output.status.success() {
        bail!("`{name}` failed ({}):\n{}", output.status, tail(&output.stderr));
    }
    Ok(output)
}

/// `capture`, for a program whose answer is text.
pub(crate) fn capture_text(command: &mut Command) -> Result<String> {
    Ok(String::from_utf8_lossy(&capture(command)?.stdout).into_owned())
}

/// Runs with the terminal's own stdout and stderr.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let name = describe(command);
    let status = command.stdin(Stdio::null()).status().with_context(|| format!("starting `{name}`"))?;
    if !status.success() {
        bail!("`{name}` failed ({status})");
    }
    Ok(())
}

/// The command as somebody would type it, shortened: enough to know which call it was.
fn describe(command: &Command) -> String {
    const LONGEST: usize = 160;
    let mut words = vec![command.get_program().to_string_lossy().into_owned()];
    words.extend(command.get_args().map(|arg| arg.to_string_lossy().into_owned()));
    let line = words.join(" ");
    if line.chars().count() <= LONGEST {
        return line;
    }
    line.chars().take(LONGEST).chain("…".chars()).collect()
}

/// The last lines of a program's stderr: the reason is nearly always there.
fn tail(bytes: &[u8]) -> String {
    const LINES: usize = 30;
    let text = String::from_utf8_lossy(bytes);
    let lines: Vec<&str> = text.lines().collect();
    lines.iter().skip(lines.len().saturating_sub(LINES)).copied().collect::<Vec<_>>().join("\n")
}
