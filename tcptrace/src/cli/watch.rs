//! `tcptrace watch`: live findings, as they happen.

use std::{io, ops::ControlFlow};

use super::{
    args::WatchArgs,
    exit::{Exit, Failure},
    selection, trace,
};
use crate::{
    finding::Severity,
    live::{
        self, Live,
        drive::{Ending, drive},
    },
    pipeline::Pipeline,
};

pub(super) fn run(args: &WatchArgs) -> Result<Exit, Failure> {
    let filters = trace::Filters::of(&args.filter)?;
    let options = trace::options(&args.trace, args.output.all, filters)?;
    trace::runtime()?.block_on(watch(args, &options))
}

async fn watch(args: &WatchArgs, options: &live::Options) -> Result<Exit, Failure> {
    let selection = selection::of(&args.selection)?;
    let events = args.output.events || args.output.all;
    let mut pipeline = Pipeline::new(trace::output(args.output.json), selection, events);
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
