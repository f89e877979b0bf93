//! `tcptrace rehearse`: makes an incident in a private network namespace while tracing it, and explains it.

mod asked;

use std::{collections::BTreeSet, io, ops::ControlFlow, time::Duration};

use super::{
    args::RehearseArgs,
    exit::{Exit, Failure},
    record, trace,
};
use crate::{
    correlate::ReconciliationStatus,
    event::Timestamp,
    finding::contradictions,
    host::netns::Netns,
    live::{
        Live,
        drive::{Ending, drive},
    },
    output::json::{FindingLine, RehearsalLine},
    output::{Output, Selection, Summary, ended, go_on, stdout_lines, stdout_output, zone},
    pipeline::Pipeline,
    rehearse::{self, Claims, GroundTruth, Incident},
};
use asked::Asked;

/// How long the tracer looks on after the incident: the samples and polls of the last second.
const SETTLE: Duration = Duration::from_millis(1500);

pub(super) fn run(args: &RehearseArgs) -> Result<Exit, Failure> {
    let names: Vec<&str> = match args.name.as_str() {
        "list" => {
            ended(list()).map_err(|error| trace::cannot_write(&error))?;
            return Ok(Exit::Done);
        }
        "all" => rehearse::catalogue().iter().map(|entry| entry.name).collect(),
        name => vec![name],
    };
    if args.record.is_some() && names.len() != 1 {
        return Err(Failure::new(Exit::Usage, "--record takes one incident, not all of them"));
    }
    if let Some(path) = &args.record {
        record::check(path)?;
    }
    let runtime = trace::runtime()?;
    let mut exit = Exit::Done;
    for name in names {
        match runtime.block_on(one(name, args))? {
            Told::Diagnosed => {}
            Told::NotDiagnosed => exit = Exit::Found,
            Told::Interrupted => return Ok(Exit::Found),
        }
    }
    Ok(exit)
}

fn list() -> io::Result<()> {
    let mut out = stdout_lines();
    for entry in rehearse::catalogue() {
        let also = if entry.aliases.is_empty() {
            String::new()
        } else {
            format!(" (also {})", entry.aliases.join(", "))
        };
        out.say(format_args!("{:21} {}{also}", entry.name, entry.summary))?;
        for variant in entry.variants {
            out.say(format_args!("    --variant {:18} {}", variant.name, variant.summary))?;
        }
    }
    go_on(out.flush())
}

/// How one rehearsal came out.
enum Told {
    Diagnosed,
    NotDiagnosed,
    /// Before its end.
    Interrupted,
}

async fn one(name: &str, args: &RehearseArgs) -> Result<Told, Failure> {
    let options = rehearse::Options {
        variant: args.variant.clone(),
        family: args.family,
        abort_on_overflow: args.abort_on_overflow,
        syncookies: args.syncookies,
        older: args.older,
        count: args.count,
        actor_executable: None,
    };
    let mut incident = rehearse::incident(name, &options)?;
    let mut output = stdout_output("rehearse", args.output.json, args.output.counters);
    let what = incident.describe();
    let opening = format!(
        "rehearsing {} ({}), {}: {}",
        incident.name(),
        incident.variant(),
        zone::moment_and_zone(&zone::local(), Timestamp::now()),
        what.lines().collect::<Vec<_>>().join(" ")
    );
    let gone = trace::at_once(&mut output, &opening).map_err(|error| trace::cannot_write(&error))?;
    if gone.is_break() {
        return Ok(Told::Interrupted);
    }
    incident.prepare()?;
    let netns = Netns::from_path(&incident.stage().server().path())
        .map_err(|error| Failure::new(Exit::NotPermitted, error))?;
    let cancel = incident.stage().cancel().clone();
    let filters = trace::Filters { netns: vec![netns.clone()], ..Default::default() };
    let options = trace::options(&args.trace, trace::streams(args.output.all, args.output.syns), filters);
    output.at_home(netns.id());
    let events = args.output.events || args.output.all;
    let mut pipeline = Pipeline::new(output, Selection::default(), events);
    pipeline.live();
    let (live, first) = Live::start(&options)?;
    let mut recorder = args.record.as_deref().map(|path| record::begin(path, &live, &first)).transpose()?;
    let mut claims = Claims::default();
    let mut disagreeing = BTreeSet::new();
    let mut asked = incident.is_asked_why().then(|| Asked::begin(&netns, &first));
    // From here on everything is traced; a reader that is gone must not keep us from cleaning up.
    let started =
        pipeline.feed(&first).and_then(|fed| if fed.is_break() { Ok(fed) } else { pipeline.begun() });

    let (done, played) = tokio::sync::oneshot::channel::<()>();
    let actors = std::thread::spawn(move || {
        let truth = incident.play();
        // Fails when the trace has ended before: then nobody waits.
        let _ = done.send(());
        (incident, truth)
    });
    let over = async {
        // An error is an incident that broke off: then there is nothing to wait for either.
        if played.await.is_ok() {
            tokio::time::sleep(SETTLE).await;
        }
    };
    let ending = match started {
        Ok(ControlFlow::Continue(())) => {
            drive(live, over, |events| {
                if let Some(recorder) = &mut recorder {
                    recorder.record(events)?;
                }
                if let Some(asked) = &mut asked {
                    asked.feed(events);
                }
                pipeline.feed_and_watch(events, |finding, world| {
                    disagreeing.extend(
                        contradictions(finding, world)
                            .into_iter()
                            .map(|what| format!("{} contradicts itself: {what}", finding.code)),
                    );
                    // What is judged is what a program reads.
                    if let Ok(claim) = serde_json::to_value(FindingLine::from(finding)) {
                        claims.note(claim);
                    }
                })
            })
            .await
        }
        Ok(ControlFlow::Break(())) => Ok(Ending::OutputClosed),
        Err(error) => Err(error),
    };
    if !matches!(ending, Ok(Ending::Over)) {
        cancel.cancel();
    }
    if let Some(recorder) = recorder {
        recorder.finish().map_err(|error| record::failed(&error))?;
    }
    let Ok((mut incident, truth)) = actors.join() else {
        return Err(Failure::new(Exit::NotSupported, "the rehearsal itself failed: its thread is gone"));
    };
    let remedied = match &truth {
        Ok(truth) if incident.is_remedied() => remedy(&mut *incident, truth, &claims)?,
        _ => None,
    };
    let answered = match (&truth, &asked) {
        (Ok(truth), Some(asked)) if matches!(ending, Ok(Ending::Over)) => {
            asked.judge(incident.stage(), truth)
        }
        _ => Vec::new(),
    };
    // Ends every process that was started, and the namespace.
    drop(incident);
    let ending = ending.or_else(|error| ended(Err(error)).map(|()| Ending::OutputClosed));
    match ending.map_err(|error| trace::cannot_write(&error))? {
        Ending::OutputClosed => return Ok(Told::Interrupted),
        Ending::Interrupted => {
            let _gone = pipeline.finish().map_err(|error| trace::cannot_write(&error))?;
            return Ok(Told::Interrupted);
        }
        Ending::Over => {}
    }
    let mut truth = truth?;
    let observes = |name: &str| pipeline.engine().world().observes(name);
    truth.settle(observes);
    let mut problems = claims.judge(&truth, observes);
    let not_observable = claims.not_observable(&truth, observes);
    let false_certains = claims.false_certains(&truth);
    problems.extend(false_certains.iter().cloned());
    problems.extend(disagreeing);
    problems.extend(Summary::of(pipeline.engine()).contradictions());
    problems.extend(remedied);
    problems.extend(answered);
    // In a namespace of its own nothing but the incident happens: a count that differs from the kernel's is a broken probe.
    let differing = pipeline.engine().world().reconcile().into_iter();
    problems.extend(differing.filter(|r| r.status == ReconciliationStatus::Mismatch).map(|r| {
        let seen = r.observed.map_or_else(|| "nothing".to_owned(), |seen| seen.to_string());
        format!("the kernel counted {} {}, and {seen} was observed", r.kernel, r.counter)
    }));
    let listeners = pipeline.engine().world().listeners().iter();
    let waits = listeners.filter(|l| l.endpoints.netns == truth.netns).find_map(|l| l.waits.all());
    problems
        .extend(rehearse::judge_waits(&truth, |quantile| waits.and_then(|waits| waits.quantile(quantile))));
    let verdict = Verdict {
        diagnosed: problems.is_empty() && not_observable.is_empty(),
        problems: &problems,
        not_observable: &not_observable,
        false_certains: false_certains.len(),
    };
    let told = tell(&truth, &verdict, pipeline.output());
    ended(told).map_err(|error| trace::cannot_write(&error))?;
    let _gone = pipeline.finish().map_err(|error| trace::cannot_write(&error))?;
    Ok(if problems.is_empty() { Told::Diagnosed } else { Told::NotDiagnosed })
}

/// Carries out the remedy as printed, and lets what led to the trouble happen again. What is wrong with it, if anything.
fn remedy(
    incident: &mut dyn Incident,
    truth: &GroundTruth,
    claims: &Claims,
) -> Result<Option<String>, Failure> {
    let Some(expected) = truth.expect.first() else { return Ok(None) };
    let Some(command) = claims.remedy(expected.code) else {
        return Ok(Some(format!("{}: its remedy has no command", expected.code)));
    };
    let output = match std::process::Command::new("/bin/sh").args(["-c", command]).output() {
        Ok(output) => output,
        Err(error) => return Ok(Some(format!("its remedy cannot be carried out: {command}: {error}"))),
    };
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Ok(Some(format!("its remedy fails: {command}: {said}")));
    }
    let came_back = incident.again()?;
    Ok(came_back.then(|| format!("{} came back after its remedy: {command}", expected.code)))
}

/// How the findings compare with what was made.
struct Verdict<'a> {
    /// Whether the findings said what was made, and nothing else.
    diagnosed: bool,
    /// What they got wrong.
    problems: &'a [String],
    /// What was made and cannot be observed here, with the observation that it needs: no problem, and no diagnosis.
    not_observable: &'a [String],
    /// How many findings were claimed as certain, be it for a moment, and are not so.
    false_certains: usize,
}

/// What really happened, and whether the findings said so.
fn tell<W: io::Write>(truth: &GroundTruth, verdict: &Verdict<'_>, output: &mut Output<W>) -> io::Result<()> {
    if let Output::Json(out) = output {
        let line = RehearsalLine {
            diagnosed: Some(verdict.diagnosed),
            problems: verdict.problems.to_vec(),
            not_observable: verdict.not_observable.to_vec(),
            false_certains: verdict.false_certains,
            ..RehearsalLine::from(truth)
        };
        go_on(out.write(Timestamp::now(), &line.into()))?;
        return go_on(out.flush());
    }
    let made = made(truth);
    let (headline, details) = match (verdict.problems, verdict.not_observable) {
        ([], []) => (format!("diagnosed, and nothing else claimed: {made}"), [].as_slice()),
        ([], hidden) => (format!("not observable here, and nothing else claimed: {made}"), hidden),
        (problems, _) => (format!("NOT diagnosed: {made}"), problems),
    };
    go_on(output.verdict(verdict.problems.is_empty(), &headline))?;
    for detail in details {
        go_on(output.note(&format!("  {detail}")))?;
    }
    go_on(output.flush())
}

/// What was made: `2 no-listener (never-listened, wrong-address), accept-stall (process-stopped)`.
fn made(truth: &GroundTruth) -> String {
    let mut codes: Vec<(&str, Vec<(&str, usize)>)> = Vec::new();
    for expected in &truth.expect {
        let known = codes.iter_mut().find(|(code, _)| *code == expected.code);
        let causes = match known {
            Some((_, causes)) => causes,
            None => &mut codes.push_mut((expected.code, Vec::new())).1,
        };
        match causes.iter_mut().find(|(cause, _)| *cause == expected.cause) {
            Some((_, count)) => *count += 1,
            None => causes.push((expected.cause, 1)),
        }
    }
    if codes.is_empty() {
        return "nothing wrong".to_owned();
    }
    let times = |count: usize| if count > 1 { format!("{count} ") } else { String::new() };
    let words = codes.iter().map(|(code, causes)| {
        let all = causes.iter().map(|(_, count)| count).sum();
        let causes: Vec<String> =
            causes.iter().map(|(cause, count)| format!("{}{cause}", times(*count))).collect();
        format!("{}{code} ({})", times(all), causes.join(", "))
    });
    words.collect::<Vec<_>>().join(", ")
}
