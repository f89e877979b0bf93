//! `tcptrace rehearse`: makes an incident in a private network namespace while tracing it, and explains it.

use std::time::Duration;

use super::{
    args::RehearseArgs,
    exit::{Exit, Failure},
    trace,
};
use crate::{
    host::netns::Netns,
    live::{Live, drive::drive},
    pipeline::Pipeline,
    rehearse::{self, GroundTruth},
};

/// How long the tracer looks on after the incident: samples and polls of the last second.
const SETTLE: Duration = Duration::from_millis(1500);

pub(super) fn run(args: &RehearseArgs) -> Result<Exit, Failure> {
    let names: Vec<&str> = match args.name.as_str() {
        "list" => todo!(),
        "all" => rehearse::catalogue().iter().map(|entry| entry.name).collect(),
        name => vec![name],
    };
    let runtime = trace::runtime()?;
    let mut exit = Exit::Done;
    for name in names {
        if runtime.block_on(one(name, args))? != Exit::Done {
            exit = Exit::Found;
        }
    }
    Ok(exit)
}

async fn one(name: &str, args: &RehearseArgs) -> Result<Exit, Failure> {
    let options = rehearse::Options {
        variant: args.variant.clone(),
        family: args.family,
        abort_on_overflow: args.abort_on_overflow,
        syncookies: args.syncookies,
        older: args.older,
        actor_executable: None,
    };
    let mut incident = rehearse::incident(name, &options)?;
    incident.prepare()?;
    let netns = Netns::from_path(&incident.stage().server().path())
        .map_err(|error| Failure::new(Exit::NotPermitted, error))?;
    let cancel = incident.stage().cancel().clone();
    let filters = trace::Filters { netns: Some(netns), ..Default::default() };
    let options = trace::options(&args.trace, &args.output, filters)?;
    let (live, first) = Live::start(&options)?;
    let (out, _) = trace::stdout();
    let mut pipeline = Pipeline::new(out);
    pipeline.feed(&first).map_err(|error| trace::cannot_write(&error))?;

    let (done, played) = tokio::sync::oneshot::channel::<()>();
    let actors = std::thread::spawn(move || {
        let truth = incident.play();
        // Fails when the trace has ended before: then nobody waits.
        let _ = done.send(());
        (incident, truth)
    });
    let over = async {
        let _ = played.await;
        tokio::time::sleep(SETTLE).await;
    };
    let ending = drive(live, over, |events| pipeline.feed(events)).await;
    cancel.cancel();
    let Ok((incident, truth)) = actors.join() else {
        return Err(Failure::new(Exit::NotSupported, "the rehearsal itself failed"));
    };
    ending.map_err(|error| trace::cannot_write(&error))?;
    let truth: GroundTruth = truth?;
    drop(incident);
    println!("{}", truth.to_json());
    Ok(Exit::Done)
}
