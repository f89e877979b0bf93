//! `tcptrace schema`: the JSON Schema of what `--json` prints.

use std::io::Write as _;

use super::{
    args::SchemaArgs,
    exit::{Exit, Failure},
    trace,
};
use crate::output::{ended, json::schema, stdout_export};

pub(super) fn run(args: &SchemaArgs) -> Result<Exit, Failure> {
    let text = if args.list {
        schema::list().map(|(name, commands)| format!("{name:16} {commands}\n")).collect()
    } else {
        let found = schema::schema(args.kind.as_deref()).ok_or_else(|| {
            let known: Vec<_> = schema::types().collect();
            let asked = args.kind.as_deref().unwrap_or_default();
            let message = format!("there is no type {asked:?} of lines; there are {}", known.join(", "));
            Failure::new(Exit::Usage, message)
        })?;
        schema::text(&found)
    };
    let mut out = stdout_export();
    ended(out.write_all(text.as_bytes()).and_then(|()| out.flush()))
        .map_err(|error| trace::cannot_write(&error))?;
    Ok(Exit::Done)
}
