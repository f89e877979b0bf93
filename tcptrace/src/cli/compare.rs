//! `tcptrace compare`: two recordings side by side.

use super::{
    args::CompareArgs,
    exit::{Exit, Failure},
    report, tape, trace,
};
use crate::{
    output::json::ComparisonLine,
    output::{Meaning, ended, go_on, stdout_json, stdout_lines},
    record::Condition,
    report::{Comparison, Sheet},
};

pub(super) fn run(args: &CompareArgs) -> Result<Exit, Failure> {
    let read = |path: &std::path::PathBuf| report::only(std::slice::from_ref(path));
    let ((before, of_before), (after, of_after)) = (read(&args.before)?, read(&args.after)?);
    for (report, condition) in [(&before, &of_before), (&after, &of_after)] {
        if report.events == 0 && !condition.is_complete() {
            return Err(tape::unreadable(condition));
        }
        // What is missing looks like a change.
        if let Some(shortage) = condition.shortage().filter(|_| !args.partial) {
            let marks: Vec<String> = condition.marks.iter().map(ToString::to_string).collect();
            let message = format!(
                "a recording is not complete: {shortage} ({}); --partial compares what can be read",
                marks.join("; ")
            );
            return Err(Failure::new(Exit::BadInput, message));
        }
    }
    let comparison = Comparison::of(&before, &after);
    let worse = comparison.worse(args.threshold);
    let written = if args.json {
        let line = ComparisonLine::of(&comparison, &worse, &of_before, &of_after);
        let mut out = stdout_json("compare");
        go_on(out.write(after.to, &line.into())).and_then(|()| go_on(out.flush()))
    } else {
        let mut out = stdout_lines();
        let marks = marks(&of_before, &of_after);
        let text = comparison.text(&worse);
        go_on(out.rows(marks.rows().iter().chain(text.rows()))).and_then(|()| go_on(out.flush()))
    };
    ended(written).map_err(|error| trace::cannot_write(&error))?;
    Ok(if worse.is_empty() { Exit::Done } else { Exit::Found })
}

/// What is wrong with the two recordings, a line each.
fn marks(before: &Condition, after: &Condition) -> Sheet {
    let mut out = Sheet::default();
    for (name, condition) in [("before", before), ("after", after)] {
        if let Some(shortage) = condition.shortage() {
            let which = name.to_uppercase();
            out.marked(Meaning::Warning, format_args!("! THE RECORDING {which} IS NOT COMPLETE: {shortage}"));
        }
        for mark in &condition.marks {
            out.marked(Meaning::Warning, format_args!("! {name}: {mark}"));
        }
    }
    out
}
