//! `tcptrace compare`: two recordings side by side.

use super::{
    args::CompareArgs,
    exit::{Exit, Failure},
    report, trace,
};
use crate::{
    output::{ended, go_on, json_text, stdout_json, stdout_lines},
    report::Comparison,
};

pub(super) fn run(args: &CompareArgs) -> Result<Exit, Failure> {
    let read = |path: &std::path::PathBuf| report::only(std::slice::from_ref(path));
    let ((before, damage_before), (after, damage_after)) = (read(&args.before)?, read(&args.after)?);
    for line in damage_before.iter().chain(&damage_after) {
        log::warn!("{line}");
    }
    let comparison = Comparison::of(&before, &after);
    let worse = comparison.worse(args.threshold);
    let written = if args.json {
        let mut line = serde_json::to_value(&comparison).unwrap_or_default();
        if let serde_json::Value::Object(line) = &mut line {
            line.insert("type".to_owned(), "comparison".into());
            line.insert("worse".to_owned(), worse.clone().into());
        }
        let mut out = stdout_json();
        go_on(out.made(&json_text(&line))).and_then(|()| go_on(out.flush()))
    } else {
        let mut out = stdout_lines();
        go_on(out.text(&comparison.text(&worse))).and_then(|()| go_on(out.flush()))
    };
    ended(written).map_err(|error| trace::cannot_write(&error))?;
    Ok(if worse.is_empty() { Exit::Done } else { Exit::Found })
}
