//! `tcptrace listeners`: every listener, owner, queue and limit, now; with `--for`, what a trace adds.

use std::{io, ops::ControlFlow};

use super::{
    args::{ListenersArgs, union},
    exit::{Exit, Failure},
    trace,
};
use crate::{
    event::{Coverage, Event, Kind, Timestamp},
    finding::Finding,
    live::{Live, drive::drive},
    output::{
        Meaning, Selection, ended, go_on,
        json::{ListenerLine, Missing, SummaryLine},
        listeners::lines,
        stdout_json, stdout_lines, stdout_output, terminal_width,
    },
    stock::{Filter, Gap, Scope, Stock, Tracing, take},
};

pub(super) fn run(args: &ListenersArgs) -> Result<Exit, Failure> {
    super::selection::are_there(&args.pid)?;
    let netns = super::netns::find_all(&args.netns)?;
    let ports = union(&args.port);
    let mut traced = None;
    let mut coverage = None;
    let mut untraced = None;
    if args.limit.is_some() {
        match follow(args) {
            Ok((tracing, seen)) => (traced, coverage) = (Some(tracing), seen),
            // What can be seen without probes is still worth having.
            Err(failure) if failure.exit != Exit::Usage => untraced = Some(failure),
            Err(failure) => return Err(failure),
        }
    }
    let ends = ports.ranges().flat_map(|range| [*range.start(), *range.end()]).collect();
    let scope = Scope { netns, ports: ends, ..Scope::default() };
    let mut stock = take(&scope).map_err(|error| Failure::new(Exit::NotPermitted, error))?;
    match (&traced, &untraced) {
        (Some(tracing), _) => {
            tracing.add_to(&mut stock);
            stock.missing.extend(coverage.as_ref().and_then(|(_, coverage)| not_observed(coverage)));
        }
        (None, Some(failure)) => stock.missing.push(Gap::new("traced", failure.message.clone())),
        (None, None) => {}
    }
    let exit = untraced.map_or(Exit::Done, |failure| failure.exit);
    let written = show(args, stock, traced.as_ref(), coverage.as_ref());
    ended(written).map_err(|error| trace::cannot_write(&error))?;
    Ok(exit)
}

/// Traces for the time asked for, or until a signal.
fn follow(args: &ListenersArgs) -> Result<(Tracing, Option<(Timestamp, Coverage)>), Failure> {
    let filters = trace::Filters::of(&args.port, &args.netns)?;
    let options = trace::options(&args.trace, 0, filters);
    let mut tracing = Tracing::default();
    let mut coverage = None;
    trace::runtime()?.block_on(async {
        let (live, first) = Live::start(&options)?;
        coverage = first.iter().find_map(|event| match &event.kind {
            Kind::Coverage(coverage) => Some((event.time, (**coverage).clone())),
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
    coverage: Option<&(Timestamp, Coverage)>,
) -> io::Result<()> {
    let filter = Filter {
        ports: union(&args.port),
        pids: args.pid.clone(),
        comms: args.comm.clone(),
        containers: args.container.clone(),
    };
    let all = stock.listeners.len();
    let mut listeners = std::mem::take(&mut stock.listeners);
    listeners.retain(|listener| filter.wants(listener));
    args.sort.sort(&mut listeners);
    // Ports and namespaces are those of the trace already.
    let parties = Selection {
        pids: args.pid.clone(),
        comms: args.comm.clone(),
        containers: args.container.clone(),
        ..Selection::default()
    };
    let findings = traced.map_or(&[][..], Tracing::findings);
    let findings: Vec<&Finding> = findings.iter().filter(|finding| parties.wants(finding)).collect();
    let mut only: Vec<String> = args.netns.iter().map(|name| format!("--netns {name}")).collect();
    only.extend(Some(&filter.ports).filter(|ports| !ports.is_empty()).map(|ports| format!("--port {ports}")));
    only.extend(parties.words());
    if args.json {
        let (mut out, now) = (stdout_json("listeners"), Timestamp::now());
        if let Some((began, coverage)) = coverage {
            go_on(out.coverage(*began, coverage))?;
        }
        for listener in &listeners {
            go_on(out.write(now, &ListenerLine::of(listener).into()))?;
        }
        for finding in &findings {
            go_on(out.finding(finding))?;
        }
        let count = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
        let summary = SummaryLine {
            command: "listeners",
            counts: SummaryLine::counts([
                ("listeners", count(all)),
                ("shown", count(listeners.len())),
                ("namespaces", count(stock.namespaces)),
                ("findings", count(findings.len())),
            ]),
            filters: only,
            missing: stock.missing.iter().map(Missing::from).collect(),
            duration_s: traced.map(|traced| traced.span().as_secs_f64()),
            ..SummaryLine::default()
        };
        go_on(out.write(now, &summary.into()))?;
        return go_on(out.flush());
    }
    let mut out = stdout_lines();
    if !only.is_empty() {
        out.say(format_args!("only {}", only.join(" ")))?;
    }
    let text = lines(&listeners, all, stock.namespaces, &stock.missing, width());
    let (head, rest) = text.split_at(usize::from(!listeners.is_empty()).min(text.len()));
    for line in head {
        go_on(out.marked(Meaning::Label, line))?;
    }
    for line in rest {
        go_on(out.line(line))?;
    }
    if !findings.is_empty() {
        go_on(out.line(""))?;
    }
    go_on(out.flush())?;
    drop(out);
    let mut output = stdout_output("listeners", false, false);
    for finding in findings {
        go_on(output.finding(finding))?;
    }
    go_on(output.flush())
}

/// Columns of the terminal; a pipe has none, and nothing is cut.
fn width() -> Option<usize> {
    terminal_width().or_else(|| std::env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok()))
}
