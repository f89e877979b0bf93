//! `tcptrace watch`: live findings, as they happen.

use std::{io, ops::ControlFlow};

use super::{
    args::{PeriodArgs, ReplayArgs, WatchArgs, WatchFilesArgs},
    exit::{Exit, Failure},
    replay, selection, trace,
};
use crate::{
    finding::Severity,
    live::{
        self, Live,
        drive::{Ending, drive},
    },
    output::stdout_output,
    pipeline::Pipeline,
};

/// Of this host, or of recordings.
pub(super) fn live_or_recorded(args: &WatchFilesArgs) -> Result<Exit, Failure> {
    let WatchFilesArgs { watch, files } = args;
    if files.is_empty() {
        return run(watch);
    }
    let number = |name: &String| {
        let usage = || format!("--netns {name}: of a recording, a namespace is named by its inode number");
        name.parse().map_err(|_| Failure::new(Exit::Usage, usage()))
    };
    let netns = watch.filter.netns.iter().map(number).collect::<Result<_, _>>()?;
    replay::run(&ReplayArgs {
        files: files.clone(),
        json: watch.output.json,
        events: watch.output.events || watch.output.all,
        counters: watch.output.counters,
        period: PeriodArgs::default(),
        port: watch.filter.port.clone(),
        netns,
        selection: watch.selection.clone(),
        fail_on: watch.fail_on,
    })
}

pub(super) fn run(args: &WatchArgs) -> Result<Exit, Failure> {
    selection::are_there(&args.selection.parties.pid)?;
    let selection = selection::of(&args.selection)?;
    let filters = trace::Filters::of(&args.filter.port, &args.filter.netns)?;
    let mut output = stdout_output("watch", args.output.json, args.output.counters);
    if let [only] = filters.netns.as_slice() {
        output.at_home(only.id());
    }
    let words: Vec<String> =
        filters.scope.iter().chain(&filters.words).cloned().chain(selection.words()).collect();
    let opening = format!("{}{}: attaching", trace::here(), selection::only(&words));
    // Before anything that takes time: a person sees at once that something happens.
    let gone = trace::at_once(&mut output, &opening).map_err(|error| trace::cannot_write(&error))?;
    if gone.is_break() {
        return Ok(Exit::Done);
    }
    let options = trace::options(&args.trace, trace::streams(args.output.all, args.output.syns), filters);
    let mut pipeline = Pipeline::new(output, selection, args.output.events || args.output.all);
    pipeline.live();
    trace::runtime()?.block_on(watch(args, &options, &mut pipeline))
}

async fn watch<W: io::Write>(
    args: &WatchArgs,
    options: &live::Options,
    pipeline: &mut Pipeline<W>,
) -> Result<Exit, Failure> {
    let (live, first) = Live::start(options)?;
    let over = async {
        match args.limit {
            Some(limit) => tokio::time::sleep(limit).await,
            None => std::future::pending().await,
        }
    };
    let begun = pipeline.feed(&first).and_then(|fed| if fed.is_break() { Ok(fed) } else { pipeline.begun() });
    let ending = match begun {
        Ok(ControlFlow::Continue(())) => drive(live, over, |events| pipeline.feed(events)).await,
        Ok(ControlFlow::Break(())) => Ok(Ending::OutputClosed),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(Ending::OutputClosed),
        Err(error) => Err(error),
    };
    let written = match ending {
        Ok(Ending::OutputClosed) => Ok(ControlFlow::Break(())),
        Ok(Ending::Over | Ending::Interrupted) => pipeline.finish(),
        Err(error) => Err(error),
    };
    let _gone = written.map_err(|error| trace::cannot_write(&error))?;
    let fails = |on| pipeline.worst().is_some_and(|worst| worst >= Severity::from(on));
    Ok(if args.fail_on.is_some_and(fails) { Exit::Found } else { Exit::Done })
}
