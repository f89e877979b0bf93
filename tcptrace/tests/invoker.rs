//! Under sudo, what a user hands to `record` runs as that user, with none of what tracing needs, and the file is the user's.

use std::os::unix::fs::{MetadataExt as _, chown};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

/// How many descriptors a program has that the shell runs.
const DESCRIPTORS: &str = "echo descriptors $(ls /proc/self/fd | wc -l)";

/// The same without tcptrace: whoever runs the tests may leave us some.
fn descriptors() -> Result<String> {
    Ok(String::from_utf8(Command::new("sh").args(["-c", DESCRIPTORS]).output()?.stdout)?)
}

/// The exit code of that name.
const NOT_PERMITTED: i32 = 3;

/// The recording's owner, group and mode.
type Owned = (u32, u32, u32);

/// As sudo leaves it for user 65534, who called it: the command's words of itself, and whose the recording is, made in a directory
/// of `owner`.
fn recorded(extra: &[&str], owner: Option<u32>) -> Result<Option<(String, Owned)>> {
    let directory = tempfile::tempdir()?;
    chown(directory.path(), owner, None)?;
    let path = directory.path().join("run.arrows");
    let script = format!(
        "echo ids $(id -u) $(id -g); grep -E '^(CapPrm|CapEff|CapAmb|Groups)' /proc/self/status; {DESCRIPTORS}"
    );
    let mut command = Command::new(env!("CARGO_BIN_EXE_tcptrace"));
    command
        .args(["record", "-o"])
        .arg(&path)
        .args(extra)
        .args(["--", "sh", "-c", &script])
        .env("SUDO_UID", "65534")
        .env("SUDO_GID", "65533");
    let output = command.output()?;
    if output.status.code() == Some(NOT_PERMITTED) {
        println!("skipped: {}", String::from_utf8_lossy(&output.stderr).trim());
        return Ok(None);
    }
    ensure!(output.status.success(), "{output:?}");
    let file = std::fs::metadata(&path).context("no recording")?;
    Ok(Some((String::from_utf8(output.stdout)?, (file.uid(), file.gid(), file.mode() & 0o777))))
}

#[test]
fn the_command_is_run_as_who_called_sudo_and_the_file_is_theirs() -> Result<()> {
    let Some((said, file)) = recorded(&[], Some(65534))? else { return Ok(()) };
    ensure!(said.contains("ids 65534 65533\n"), "{said}");
    ensure!(said.contains("Groups:\t65533 \n"), "root's groups are left: {said}");
    for set in ["CapPrm", "CapEff", "CapAmb"] {
        ensure!(said.contains(&format!("{set}:\t0000000000000000\n")), "{said}");
    }
    ensure!(said.ends_with(&descriptors()?), "a descriptor of ours is left: {said}");
    ensure!(file == (65534, 65533, 0o600), "{file:?}");
    Ok(())
}

#[test]
fn as_root_where_that_is_asked_for() -> Result<()> {
    let Some((said, file)) = recorded(&["--as-root"], Some(65534))? else { return Ok(()) };
    ensure!(said.contains("ids 0 "), "{said}");
    ensure!(said.ends_with(&descriptors()?), "a descriptor of ours is left: {said}");
    ensure!(file == (65534, 65533, 0o600), "{file:?}");
    Ok(())
}

#[test]
fn in_a_directory_that_is_not_theirs_the_file_stays_root_s() -> Result<()> {
    let Some((_, (uid, _, mode))) = recorded(&[], None)? else { return Ok(()) };
    ensure!((uid, mode) == (0, 0o600), "{uid} {mode:o}");
    Ok(())
}
