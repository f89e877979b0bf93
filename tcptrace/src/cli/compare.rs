//! `tcptrace compare`: two recordings side by side.

use std::io::{self, Write as _};

use super::{
    args::CompareArgs,
    exit::{Exit, Failure},
    report, trace,
};
use crate::{output::json_text, report::Comparison};

pub(super) fn run(args: &CompareArgs) -> Result<Exit, Failure> {
    let read = |path: &std::path::PathBuf| report::only(std::slice::from_ref(path));
    let ((before, damage_before), (after, damage_after)) = (read(&args.before)?, read(&args.after)?);
    for line in damage_before.iter().chain(&damage_after) {
        log::warn!("{line}");
    }
    let comparison = Comparison::of(&before, &after);
    let worse = comparison.worse(args.threshold);
    let out = if args.json {
        let mut line = serde_json::to_value(&comparison).unwrap_or_default();
        if let serde_json::Value::Object(line) = &mut line {
            line.insert("type".to_owned(), "comparison".into());
            line.insert("worse".to_owned(), worse.clone().into());
        }
        json_text(&line) + "\n"
    } else {
        comparison.text(&worse)
    };
    match io::stdout().lock().write_all(out.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => return Err(trace::cannot_write(&error)),
        _ => {}
    }
    Ok(if worse.is_empty() { Exit::Done } else { Exit::Found })
}
