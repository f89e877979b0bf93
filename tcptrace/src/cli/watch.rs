//! `tcptrace watch`: live findings, as they happen.

use super::{
    args::WatchArgs,
    exit::{Exit, Failure},
    trace,
};
use crate::{
    host::{netns::Netns, procfs::Procfs},
    live::{self, Live, drive::drive},
    pipeline::Pipeline,
};

pub(super) fn run(args: &WatchArgs) -> Result<Exit, Failure> {
    let mut filters = trace::Filters { ports: &args.port, ..Default::default() };
    for port in &args.port {
        filters.words.push(format!("--port {port}"));
    }
    if let Some(name) = &args.netns {
        filters.netns = Some(find_netns(name)?);
        filters.words.push(format!("--netns {name}"));
    }
    let options = trace::options(&args.trace, &args.output, filters)?;
    trace::runtime()?.block_on(watch(args, &options))
}

async fn watch(args: &WatchArgs, options: &live::Options) -> Result<Exit, Failure> {
    let (live, first) = Live::start(options)?;
    let (out, _colour) = trace::stdout();
    let mut pipeline = Pipeline::new(out);
    let over = async {
        match args.limit {
            Some(limit) => tokio::time::sleep(limit).await,
            None => std::future::pending().await,
        }
    };
    pipeline.feed(&first).map_err(|error| trace::cannot_write(&error))?;
    drive(live, over, |events| pipeline.feed(events)).await.map_err(|error| trace::cannot_write(&error))?;
    Ok(Exit::Done)
}

/// A namespace by the inode number of its file, by a pid in it, or by its name in `/run/netns`.
fn find_netns(name: &str) -> Result<Netns, Failure> {
    let usage = |error: &dyn std::fmt::Display| Failure::new(Exit::Usage, format!("--netns {name}: {error}"));
    let Ok(number) = name.parse::<u32>() else {
        return Netns::from_path(&std::path::Path::new("/run/netns").join(name)).map_err(|error| usage(&error));
    };
    let mut table =
        crate::host::netns::NetnsTable::new(Procfs::default()).map_err(|error| usage(&error))?;
    table.refresh().map_err(|error| usage(&error))?;
    if let Some(netns) = table.get(number) {
        return Ok(netns.clone());
    }
    Netns::of_process(&Procfs::default(), number)
        .map_err(|_| usage(&"no network namespace has this inode number, and no process this pid (see lsns -t net)"))
}
