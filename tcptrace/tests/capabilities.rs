//! With exactly the capabilities that the README names, as a user who is not root, as much is observed as by root; with fewer, what
//! is left out is said once.

use std::os::unix::process::CommandExt as _;
use std::process::{Command, Output};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

/// As in the README, and what Linux before 5.11 wants for the memory of maps.
const NAMED: [&str; 4] = ["sys_admin", "sys_ptrace", "dac_read_search", "sys_resource"];

/// Traces for a second as uid 65534 with these capabilities alone; `None`: without setpriv(1), or where that is not allowed.
fn traced(binary: &std::path::Path, capabilities: Option<&[&str]>) -> Result<Option<Output>> {
    let home = tempfile::tempdir()?;
    let mut command = match capabilities {
        None => Command::new(binary),
        Some(capabilities) => {
            let set: String = capabilities.iter().map(|name| format!(",+{name}")).collect();
            let set = format!("-all{set}");
            let mut command = Command::new("setpriv");
            command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]);
            command.args(["--inh-caps", &set, "--ambient-caps", &set, "--bounding-set", &set]);
            command.arg(binary);
            command
        }
    };
    command
        .args(["watch", "--json", "--for", "1500ms"])
        .env("HOME", home.path())
        .current_dir("/")
        .process_group(0);
    match command.output() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        output => Ok(Some(output?)),
    }
}

fn coverage(output: &Output) -> Result<Value> {
    let text = std::str::from_utf8(&output.stdout)?;
    let first = text.lines().next().with_context(|| format!("no coverage: {output:?}"))?;
    Ok(serde_json::from_str(first)?)
}

fn attached(coverage: &Value) -> Vec<&str> {
    let observations = coverage["observations"].as_array().into_iter().flatten();
    observations.filter(|of| of["status"] == "attached").filter_map(|of| of["name"].as_str()).collect()
}

#[test]
fn the_named_capabilities_are_enough_and_fewer_are_said_once() -> Result<()> {
    // Where another user may read it.
    let directory = tempfile::Builder::new()
        .prefix("tt-capabilities")
        .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .tempdir_in("/tmp")?;
    let binary = directory.path().join("tcptrace");
    std::fs::copy(env!("CARGO_BIN_EXE_tcptrace"), &binary)?;
    let skipped = |why: &str| {
        println!("skipped: {why}");
        Ok(())
    };
    let Some(of_root) = traced(&binary, None)?.filter(|output| output.status.success()) else {
        return skipped("tracing is not possible here");
    };
    let of_root = coverage(&of_root)?;
    let Some(named) = traced(&binary, Some(&NAMED))? else { return skipped("no setpriv") };
    if String::from_utf8_lossy(&named.stderr).contains("setpriv:") {
        return skipped("no such capabilities here");
    }
    ensure!(named.status.success() && named.stderr.is_empty(), "{named:?}");
    let of_named = coverage(&named)?;
    ensure!(
        attached(&of_named) == attached(&of_root),
        "{:?} of {:?}",
        attached(&of_named),
        attached(&of_root)
    );
    ensure!(of_named["hindrances"] == of_root["hindrances"], "{of_named}");

    let few = traced(&binary, Some(&["bpf", "perfmon", "sys_resource"]))?.context("setpriv")?;
    ensure!(few.status.success(), "{few:?}");
    let hindrances = coverage(&few)?["hindrances"].to_string();
    for name in ["CAP_SYS_ADMIN", "CAP_SYS_PTRACE"] {
        ensure!(hindrances.contains(name), "{name}: {hindrances}");
    }
    let warnings = String::from_utf8_lossy(&few.stderr).lines().count();
    ensure!(warnings <= 2, "{warnings} warnings: {}", String::from_utf8_lossy(&few.stderr));
    Ok(())
}
