//! What tests of commands in a private network namespace share.

mod checked;

use std::process::{Command, Output};

use anyhow::{Context, Result};
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
    checked::lines(&String::from_utf8(output.stdout.clone())?)
}
