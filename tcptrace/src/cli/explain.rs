//! `tcptrace explain CODE`: the page that explains a finding, in the terminal.

use super::{
    args::ExplainArgs,
    exit::{Exit, Failure},
    trace,
};
use crate::{finding, output::stdout_lines};

pub(super) fn run(args: &ExplainArgs) -> Result<Exit, Failure> {
    let text = match &args.code {
        None => finding::explained().map(|code| format!("{code}\n")).collect(),
        Some(code) => finding::page(code).ok_or_else(|| {
            let known: Vec<_> = finding::explained().collect();
            Failure::new(Exit::Usage, format!("there is no finding {code:?}; there are {}", known.join(", ")))
        })?,
    };
    let mut out = stdout_lines();
    let written = out.text(&text).and_then(|_| out.flush());
    let _gone = written.map_err(|error| trace::cannot_write(&error))?;
    Ok(Exit::Done)
}
