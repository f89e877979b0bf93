//! `tcptrace why`: why one destination does not answer.

use std::{
    io,
    net::SocketAddr,
    ops::ControlFlow,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use super::{
    args::WhyArgs,
    exit::{Exit, Failure},
    trace,
};
use crate::{
    event::{CounterSample, Event, Timestamp},
    finding::Confidence,
    host::{
        counters,
        netns::{Netns, NetnsTable},
        procfs::Procfs,
    },
    live::{Live, drive::drive},
    output::{
        ended, go_on,
        json::{WhyLine, why_summary},
        stdout_json, stdout_lines, terminal_width,
        why::lines,
    },
    stock::{Gap, Tracing},
    why::{
        Answer, Facts, ProbeOutcome, Scope, Seen, answers, decisive, judge, look, look_after, ports, sample,
        try_one,
    },
};

/// How long is watched if the user does not say, and the verdict is not certain without.
const WATCH: Duration = Duration::from_secs(10);

/// How long is looked without probes, if the user does not say.
const GLANCE: Duration = Duration::from_secs(2);

/// After our own connection: what the probes and counters say of it comes within a second.
const SETTLE: Duration = Duration::from_millis(1200);

pub(super) fn run(args: &WhyArgs) -> Result<Exit, Failure> {
    let permitted = |error: crate::host::netns::NetnsError| Failure::new(Exit::NotPermitted, error);
    let client = match &args.netns {
        Some(name) => super::netns::find(name)?,
        None => Netns::current().map_err(permitted)?,
    };
    let scope = Scope { target: args.target.clone(), client, joined: Vec::new() };
    let mut facts = look(&scope).map_err(permitted)?;
    if watches(args, &facts) {
        facts = watch(args, &scope, &facts).map_err(permitted)?;
    }
    let answers = answers(&facts);
    let decisive = decisive(&answers);
    let exit =
        if decisive.is_some_and(|answer| answer.healthy == Some(true)) { Exit::Done } else { Exit::Found };
    ended(show(args, &facts, &answers, decisive)).map_err(|error| trace::cannot_write(&error))?;
    Ok(exit)
}

/// Watching takes time: not when all is clear without it, unless it is asked for.
fn watches(args: &WhyArgs, facts: &Facts) -> bool {
    let Ok(addresses) = &facts.addresses else { return false };
    if args.probe || args.limit.is_some() {
        return args.probe || args.limit.is_some_and(|limit| !limit.is_zero());
    }
    let clear =
        |answer: Answer| answer.healthy == Some(false) && answer.verdict.confidence == Confidence::Certain;
    !addresses.iter().all(|address| clear(judge(facts, address)))
}

/// Watches, with a connection of our own if it is asked for, and looks again.
fn watch(args: &WhyArgs, scope: &Scope, before: &Facts) -> Result<Facts, crate::host::netns::NetnsError> {
    let servers = servers(scope, before);
    let counters: Vec<(Netns, CounterSample)> =
        servers.into_iter().filter_map(|netns| Some((netns.clone(), counters::read(&netns).ok()?))).collect();
    let targets: Vec<_> = before.addresses.iter().flatten().map(|address| address.to).collect();
    let ports = ports(before);
    let probe = || -> Vec<ProbeOutcome> {
        targets.iter().map(|to| try_one(&scope.client, *to, args.timeout, acceptance(args))).collect()
    };
    let places: Vec<Netns> = counters.iter().map(|(netns, _)| netns.clone()).collect();
    let over = AtomicBool::new(false);
    let (followed, samples) = std::thread::scope(|threads| {
        let sampler = threads.spawn(|| sample(&scope.client, &targets, &places, &ports, &over));
        let followed = follow(args, &ports, &probe);
        // Without probes a connection of our own, and looking again and again, still tell.
        let followed = followed.map_err(|failure| {
            let outcomes = args.probe.then(probe);
            if outcomes.is_none() {
                std::thread::sleep(args.limit.unwrap_or(GLANCE).min(WATCH));
            }
            (failure, outcomes)
        });
        over.store(true, Ordering::Relaxed);
        (followed, sampler.join().unwrap_or_default())
    });
    let (tracing, outcomes, failure) = match followed {
        Ok((tracing, outcomes)) => (Some(tracing), outcomes, None),
        Err((failure, outcomes)) => (None, outcomes, Some(failure)),
    };
    let mut scope = scope.clone();
    scope.joined = joined(&targets, outcomes.as_deref().unwrap_or_default());
    let mut facts = match &tracing {
        Some(tracing) => look_after(&scope, tracing, &counters)?,
        None => {
            let mut facts = look(&scope)?;
            let why = failure.map(|failure| failure.message).unwrap_or_default();
            facts.gaps.push(Gap::new("traced", why.clone()));
            facts.seen = Some(Seen { untraced: Some(why), ..Seen::default() });
            facts
        }
    };
    if let Some(seen) = &mut facts.seen {
        seen.samples = samples;
        seen.before = Some(before.listeners.clone());
    }
    if let (Ok(addresses), Some(outcomes)) = (&mut facts.addresses, outcomes) {
        for (to, outcome) in targets.iter().zip(outcomes) {
            if let Some(address) = addresses.iter_mut().find(|address| address.to == *to) {
                address.probe = Some(outcome);
            }
        }
    }
    Ok(facts)
}

/// How long a connection of our own waits for a program to accept it, if the handshake is completed.
fn acceptance(args: &WhyArgs) -> Duration {
    args.limit.unwrap_or(SETTLE).max(SETTLE)
}

/// Where our own connections were seen to end.
fn joined(targets: &[SocketAddr], outcomes: &[ProbeOutcome]) -> Vec<(SocketAddr, SocketAddr)> {
    let pairs = targets.iter().zip(outcomes);
    let ends = pairs.filter_map(|(to, outcome)| match outcome {
        ProbeOutcome::Connected { end: Some(end), .. } => Some((*to, end.at)),
        _ => None,
    });
    ends.collect()
}

/// The namespaces of this host that have one of the addresses.
fn servers(scope: &Scope, facts: &Facts) -> Vec<Netns> {
    let Ok(mut table) = NetnsTable::new(Procfs::default()) else { return Vec::new() };
    // Those that cannot be found are in the facts' gaps.
    let _ = table.refresh();
    let mut ids: Vec<u32> =
        facts.addresses.iter().flatten().filter_map(|address| Some(address.server.as_ref()?.netns)).collect();
    ids.sort_unstable();
    ids.dedup();
    let of = |id: &u32| {
        if *id == scope.client.id() { Some(scope.client.clone()) } else { table.get(*id).cloned() }
    };
    ids.iter().filter_map(of).collect()
}

/// Traces the port in every namespace: the client may be in one and the server in another.
fn follow(
    args: &WhyArgs,
    ports: &[u16],
    probe: &(impl Fn() -> Vec<ProbeOutcome> + Sync),
) -> Result<(Tracing, Option<Vec<ProbeOutcome>>), Failure> {
    let filters = trace::Filters::of(&[ports.iter().copied().collect()], &[])?;
    let options = trace::options(&args.trace, 0, filters);
    let mut tracing = Tracing::of_one_server();
    let runtime = trace::runtime()?;
    let outcomes = std::thread::scope(|threads| {
        runtime.block_on(async {
            let (live, first) = Live::start(&options)?;
            tracing.feed(&first);
            let (tell, told) = tokio::sync::oneshot::channel();
            let mut outcomes = None;
            if args.probe {
                threads.spawn(move || {
                    // After a signal, nothing waits for it any more.
                    let _ = tell.send(probe());
                });
            }
            let begun = Instant::now();
            let over = async {
                if args.probe {
                    outcomes = told.await.ok();
                    let left = args.limit.unwrap_or_default().saturating_sub(begun.elapsed());
                    tokio::time::sleep(left.max(SETTLE)).await;
                } else {
                    tokio::time::sleep(args.limit.unwrap_or(WATCH)).await;
                }
            };
            let each = |events: &[Event]| {
                tracing.feed(events);
                Ok(ControlFlow::Continue(()))
            };
            drive(live, over, each).await.map_err(|error| trace::cannot_write(&error))?;
            Ok::<_, Failure>(outcomes)
        })
    })?;
    Ok((tracing, outcomes))
}

fn show(args: &WhyArgs, facts: &Facts, answers: &[Answer], decisive: Option<&Answer>) -> io::Result<()> {
    if args.json {
        let (mut out, now) = (stdout_json("why"), Timestamp::now());
        for answer in answers {
            go_on(out.write(now, &WhyLine::of(facts, answer).into()))?;
        }
        go_on(out.write(now, &why_summary(facts, answers, decisive).into()))?;
        return go_on(out.flush());
    }
    let mut out = stdout_lines();
    // Whoever pastes it has a narrow window.
    go_on(out.rows(&lines(facts, answers, decisive, Some(terminal_width().unwrap_or(120)))))?;
    go_on(out.flush())
}
