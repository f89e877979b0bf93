//! `tcptrace.toml`, as a user meets it: what is read, what wins, and what is refused.

use std::path::Path;
use std::process::{Command, Output};

use anyhow::{Result, ensure};

/// Runs tcptrace with these settings of the user's own, and none of the environment that runs this test.
fn tcptrace(home: &Path, arguments: &[&str], environment: &[(&str, &str)]) -> Result<Output> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tcptrace"));
    for name in ["NO_COLOR", "CLICOLOR_FORCE", "TCPTRACE_CONFIG", "SUDO_UID", "PKEXEC_UID"] {
        command.env_remove(name);
    }
    command.args(arguments).env("XDG_CONFIG_HOME", home).envs(environment.iter().copied());
    Ok(command.output()?)
}

fn home(text: &str) -> Result<tempfile::TempDir> {
    let home = tempfile::tempdir()?;
    std::fs::create_dir(home.path().join("tcptrace"))?;
    std::fs::write(home.path().join("tcptrace/tcptrace.toml"), text)?;
    Ok(home)
}

#[test]
fn flags_win_over_the_environment_and_that_over_the_file() -> Result<()> {
    let home = home("[look]\nutc = true\ncolor = \"never\"\n[thresholds.slow-accept]\nwait = \"2s\"\n")?;
    let said = |arguments: &[&str], environment: &[(&str, &str)]| -> Result<String> {
        let output = tcptrace(home.path(), arguments, environment)?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8(output.stdout)?)
    };
    let file = home.path().join("tcptrace/tcptrace.toml");
    let plain = said(&["config"], &[])?;
    ensure!(plain.contains(&format!("# {}: read\n", file.display())), "{plain}");
    ensure!(plain.contains(&format!("utc = true  # {}\n", file.display())), "{plain}");
    ensure!(plain.contains("accepts = 20  # default\n"), "{plain}");
    let environment = [("TCPTRACE_LOOK_UTC", "false"), ("TCPTRACE_THRESHOLDS_SLOW_ACCEPT_WAIT", "9s")];
    let set = said(&["config"], &environment)?;
    ensure!(set.contains("utc = false  # $TCPTRACE_LOOK_UTC\n"), "{set}");
    ensure!(set.contains("wait = \"9s\"  # $TCPTRACE_THRESHOLDS_SLOW_ACCEPT_WAIT\n"), "{set}");
    let flag = said(&["config", "--utc", "--color", "always"], &environment)?;
    ensure!(
        flag.contains("utc = true  # --utc\n") && flag.contains("color = \"always\"  # --color\n"),
        "{flag}"
    );
    let none = said(&["config", "--config", "/dev/null"], &[])?;
    ensure!(none.contains("# /dev/null: read\n") && none.contains("utc = false  # default\n"), "{none}");
    // What is printed can be put where it came from.
    std::fs::write(home.path().join("copy.toml"), &plain)?;
    let copy = home.path().join("copy.toml").display().to_string();
    let again = said(&["config"], &[("TCPTRACE_CONFIG", &copy)])?;
    ensure!(again.contains(&format!("wait = \"2s\"  # {copy}\n")), "{again}");
    Ok(())
}

/// In whatever is asked, and with what to do without it.
#[test]
fn a_wrong_file_is_refused_with_its_place() -> Result<()> {
    let home = home("[look]\nutc = true\n[thresholds]\nslow-acept = { wait = \"2s\" }\n")?;
    for arguments in [&["config"] as &[&str], &["explain"], &["schema"]] {
        let output = tcptrace(home.path(), arguments, &[])?;
        let error = String::from_utf8(output.stderr)?;
        ensure!(output.status.code() == Some(2) && output.stdout.is_empty(), "{error}");
        ensure!(
            error.contains("tcptrace/tcptrace.toml:4:1: unknown field `slow-acept`, expected one of"),
            "{error}"
        );
        ensure!(error.contains("; --config /dev/null does without configuration"), "{error}");
    }
    let output = tcptrace(home.path(), &["config", "--config", "/no/such/file"], &[])?;
    let error = String::from_utf8(output.stderr)?;
    ensure!(output.status.code() == Some(2) && error.contains("/no/such/file: No such file"), "{error}");
    Ok(())
}

/// Thresholds change what a recording says, and that is said.
#[test]
fn thresholds_hold_for_recordings_and_are_named() -> Result<()> {
    let recording = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/recordings/slow-accept.arrows");
    let home = home("[thresholds.slow-accept]\nwait = \"1h\"\n")?;
    let usual = tcptrace(home.path(), &["replay", recording, "--config", "/dev/null"], &[])?;
    ensure!(String::from_utf8(usual.stdout)?.contains("slow-accept") && usual.stderr.is_empty());
    let other = tcptrace(home.path(), &["replay", recording], &[])?;
    let (text, note) = (String::from_utf8(other.stdout)?, String::from_utf8(other.stderr)?);
    ensure!(!text.contains(" slow-accept #"), "{text}");
    ensure!(note.contains("note: set by the configuration: thresholds.slow-accept.wait ("), "{note}");
    Ok(())
}
