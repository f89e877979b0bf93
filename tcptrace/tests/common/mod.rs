//! What tests of commands in a private network namespace share.

use std::process::{Command, Output};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tcptrace::host::netns::{Netns, in_netns};
use tcptrace::rehearse::{Error, Stage};

/// A namespace of the test's own; `None`, with the reason printed, where that is not allowed.
pub(crate) fn stage() -> Result<Option<(Stage, Netns)>> {
    match Stage::new() {
        Err(Error::NotPermitted { what, .. }) => {
            println!("skipped: no permission for {what}");
            Ok(None)
        }
        Err(error) => Err(error.into()),
        Ok(stage) => {
            let netns = Netns::from_path(&stage.server().path())?;
            Ok(Some((stage, netns)))
        }
    }
}

/// Runs inside the namespace, as somebody would who has entered it.
pub(crate) fn tcptrace(netns: &Netns, arguments: &[&str]) -> Result<Output> {
    let run = || Command::new(env!("CARGO_BIN_EXE_tcptrace")).args(arguments).output();
    in_netns(netns, run)?.context("tcptrace runs")
}

/// The lines of `--json`, every one held against the schema.
pub(crate) fn lines(output: &Output) -> Result<Vec<Value>> {
    checked(&String::from_utf8(output.stdout.clone())?)
}

/// Lines of JSON, every one held against the schema: what is missing and what it does not name is wrong alike.
pub(crate) fn checked(text: &str) -> Result<Vec<Value>> {
    let line = |line: &str| {
        let value: Value = serde_json::from_str(line).with_context(|| format!("a line is JSON: {line}"))?;
        let problems = tcptrace::output::json::schema::problems(&value);
        ensure!(problems.is_empty(), "{line}: {problems:#?}");
        Ok(value)
    };
    text.lines().map(line).collect()
}
