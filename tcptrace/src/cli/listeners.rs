//! `tcptrace listeners`: every listener, owner, queue and limit, now; with `--for`, what a trace adds.

use std::{
    io::{self, IsTerminal as _, Write as _},
    ops::ControlFlow,
};

use super::{
    args::ListenersArgs,
    exit::{Exit, Failure},
    trace,
};
use crate::{
    event::{Coverage, Event, Kind},
    host::netns::Netns,
    live::{Live, drive::drive},
    output::{
        Output,
        listeners::{ListenerLine, StockSummary, lines},
    },
    stock::{Filter, Gap, Scope, Stock, Tracing, take},
};

pub(super) fn run(args: &ListenersArgs) -> Result<Exit, Failure> {
    let netns = args.netns.as_deref().map(super::netns::find).transpose()?;
    let mut traced = None;
    let mut coverage = None;
    let mut untraced = None;
    if args.limit.is_some() {
        match follow(args, netns.clone()) {
            Ok((tracing, seen)) => (traced, coverage) = (Some(tracing), seen),
            // What can be seen without probes is still worth having.
            Err(failure) if failure.exit != Exit::Usage => untraced = Some(failure),
            Err(failure) => return Err(failure),
        }
    }
    let scope = Scope { netns, ports: args.port.clone(), ..Scope::default() };
    let mut stock = take(&scope).map_err(|error| Failure::new(Exit::NotPermitted, error))?;
    match (&traced, &untraced) {
        (Some(tracing), _) => {
            tracing.add_to(&mut stock);
            stock.missing.extend(coverage.as_ref().and_then(not_observed));
        }
        (None, Some(failure)) => stock.missing.push(Gap::new("traced", failure.message.clone())),
        (None, None) => {}
    }
    let exit = untraced.map_or(Exit::Done, |failure| failure.exit);
    let written = show(args, stock, traced.as_ref(), coverage.as_ref());
    match written {
        Ok(()) => Ok(exit),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(exit),
        Err(error) => Err(trace::cannot_write(&error)),
    }
}

/// Traces for the time asked for, or until a signal.
fn follow(args: &ListenersArgs, netns: Option<Netns>) -> Result<(Tracing, Option<Coverage>), Failure> {
    let filters = trace::Filters {
        ports: &args.port,
        netns,
        words: args.port.iter().map(|port| format!("--port {port}")).collect(),
        scope: args.netns.iter().map(|name| format!("--netns {name}")).collect(),
    };
    let options = trace::options(&args.trace, 0, filters)?;
    let mut tracing = Tracing::default();
    let mut coverage = None;
    trace::runtime()?.block_on(async {
        let (live, first) = Live::start(&options)?;
        coverage = first.iter().find_map(|event| match &event.kind {
            Kind::Coverage(coverage) => Some((**coverage).clone()),
            _ => None,
        });
        tracing.feed(&first);
        let over = tokio::time::sleep(args.limit.unwrap_or_default());
        let each = |events: &[Event]| {
            tracing.feed(events);
            Ok(ControlFlow::Continue(()))
        };
        drive(live, over, each).await.map_err(|error| trace::cannot_write(&error))
    })?;
    Ok((tracing, coverage))
}

/// The part of the coverage without which a number of the trace is missing.
fn not_observed(coverage: &Coverage) -> Option<Gap> {
    let missing: Vec<&str> = coverage
        .observations
        .iter()
        .filter(|observation| observation.status != crate::event::ObservationStatus::Attached)
        .map(|observation| observation.name.as_str())
        .collect();
    let why = format!(
        "not seen one by one in tier {}: {} (tcptrace probes says why)",
        coverage.tier.name(),
        missing.join(", ")
    );
    (!missing.is_empty()).then(|| Gap::new("traced", why))
}

fn show(
    args: &ListenersArgs,
    mut stock: Stock,
    traced: Option<&Tracing>,
    coverage: Option<&Coverage>,
) -> io::Result<()> {
    let filter = Filter {
        ports: args.port.clone(),
        pids: args.pid.clone(),
        comms: args.comm.clone(),
        containers: args.container.clone(),
    };
    let all = stock.listeners.len();
    let mut listeners = std::mem::take(&mut stock.listeners);
    listeners.retain(|listener| filter.wants(listener));
    args.sort.sort(&mut listeners);
    let findings = traced.map_or(&[][..], Tracing::findings);
    let mut output = trace::output(args.json);
    if let Output::Json(writer) = &mut output {
        if let Some(coverage) = coverage {
            go_on(writer.coverage(coverage)?)?;
        }
        for listener in &listeners {
            go_on(writer.write("listener", &ListenerLine::of(listener))?)?;
        }
        for finding in findings {
            go_on(writer.finding(finding)?)?;
        }
        let summary = StockSummary {
            listeners: all,
            ..StockSummary::of(&stock, listeners.len(), traced.map(Tracing::span))
        };
        go_on(writer.write("summary", &summary)?)?;
        return Ok(());
    }
    let mut out = io::BufWriter::new(io::stdout().lock());
    for line in lines(&listeners, all, stock.namespaces, &stock.missing, width()) {
        writeln!(out, "{line}")?;
    }
    if !findings.is_empty() {
        writeln!(out)?;
    }
    out.flush()?;
    drop(out);
    for finding in findings {
        go_on(output.finding(finding)?)?;
    }
    Ok(())
}

/// Columns of the terminal; a pipe has none, and nothing is cut.
fn width() -> Option<usize> {
    if !io::stdout().is_terminal() {
        return std::env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok());
    }
    terminal_size::terminal_size().map(|(width, _)| usize::from(width.0))
}

fn go_on(written: ControlFlow<()>) -> io::Result<()> {
    match written {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(()) => Err(io::ErrorKind::BrokenPipe.into()),
    }
}
