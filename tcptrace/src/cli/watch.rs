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
        period: PeriodArgs::default(),
        port: watch.filter.port.clone(),
        netns,
        selection: watch.selection.clone(),
        fail_on: watch.fail_on,
    })
}

pub(super) fn run(args: &WatchArgs) -> Result<Exit, Failure> {
    selection::are_there(&args.selection.parties)?;
    let filters = trace::Filters::of(&args.filter.port, &args.filter.netns)?;
    let options = trace::options(&args.trace, trace::streams(args.output.all, args.output.syns), filters);
    trace::runtime()?.block_on(watch(args, &options))
}

async fn watch(args: &WatchArgs, options: &live::Options) -> Result<Exit, Failure> {
    let selection = selection::of(&args.selection)?;
    let events = args.output.events || args.output.all;
    let mut pipeline = Pipeline::new(stdout_output(args.output.json), selection, events);
    let (live, first) = Live::start(options)?;
    let over = async {
        match args.limit {
            Some(limit) => tokio::time::sleep(limit).await,
            None => std::future::pending().await,
        }
    };
    let ending = match pipeline.feed(&first) {
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
