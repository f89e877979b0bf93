//! `tcptrace rehearse`: makes an incident in a private network namespace while tracing it, and explains it.

mod asked;

use std::{collections::BTreeSet, io, ops::ControlFlow, time::Duration};

use serde::Serialize;

use super::{
    args::RehearseArgs,
    exit::{Exit, Failure},
    record, trace,
};
use crate::{
    correlate::ReconciliationStatus,
    finding::contradictions,
    host::netns::Netns,
    live::{
        Live,
        drive::{Ending, drive},
    },
    output::{Selection, Summary, ended, go_on, json_text, stdout_json, stdout_lines, stdout_output},
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
        out.say(format_args!("{:18} {}", entry.name, entry.summary))?;
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
    incident.prepare()?;
    let netns = Netns::from_path(&incident.stage().server().path())
        .map_err(|error| Failure::new(Exit::NotPermitted, error))?;
    let cancel = incident.stage().cancel().clone();
    let filters = trace::Filters { netns: vec![netns.clone()], ..Default::default() };
    let options = trace::options(&args.trace, trace::streams(args.output.all, args.output.syns), filters);
    if !args.output.json {
        let told =
            say(&format!("rehearsing {} ({})\n{}", incident.name(), incident.variant(), incident.describe()));
        ended(told).map_err(|error| trace::cannot_write(&error))?;
    }
    let events = args.output.events || args.output.all;
    let mut pipeline = Pipeline::new(stdout_output(args.output.json), Selection::default(), events);
    let (live, first) = Live::start(&options)?;
    let mut recorder = args.record.as_deref().map(|path| record::begin(path, &live, &first)).transpose()?;
    let mut claims = Claims::default();
    let mut disagreeing = BTreeSet::new();
    let mut asked = incident.is_asked_why().then(|| Asked::begin(&netns, &first));
    // From here on everything is traced; a reader that is gone must not keep us from cleaning up.
    let started = pipeline.feed(&first);

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
                    if let Ok(claim) = serde_json::to_value(finding) {
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
    ended(tell(&truth, &verdict, args.output.json)).map_err(|error| trace::cannot_write(&error))?;
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

fn say(text: &str) -> io::Result<()> {
    let mut out = stdout_lines();
    go_on(out.text(text))?;
    go_on(out.flush())
}

/// The line of a rehearsal in JSON output.
#[derive(Serialize)]
struct Line<'a> {
    #[serde(flatten)]
    truth: &'a GroundTruth,
    #[serde(flatten)]
    verdict: &'a Verdict<'a>,
}

/// How the findings compare with what was made.
#[derive(Serialize)]
struct Verdict<'a> {
    /// Whether the findings said what was made, and nothing else.
    diagnosed: bool,
    /// What they got wrong.
    problems: &'a [String],
    /// What was made and cannot be observed here, with the observation that it needs: no problem, and no diagnosis.
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    not_observable: &'a [String],
    /// How many findings were claimed as certain, be it for a moment, and are not so.
    false_certains: usize,
}

/// What really happened, and whether the findings said so.
fn tell(truth: &GroundTruth, verdict: &Verdict<'_>, json: bool) -> io::Result<()> {
    if json {
        let mut out = stdout_json();
        go_on(out.made(&json_text(&Line { truth, verdict })))?;
        return go_on(out.flush());
    }
    let made: Vec<String> = truth.expect.iter().map(|e| format!("{} ({})", e.code, e.cause)).collect();
    let made = if made.is_empty() { "nothing wrong".to_owned() } else { made.join(", ") };
    if !verdict.problems.is_empty() {
        return say(&format!(
            "rehearsed: {made}; NOT diagnosed as such:\n    {}",
            verdict.problems.join("\n    ")
        ));
    }
    if verdict.not_observable.is_empty() {
        return say(&format!("rehearsed: {made}; diagnosed as such, and nothing else was claimed"));
    }
    say(&format!(
        "rehearsed: {made}; not observable here, and nothing else was claimed:\n    {}",
        verdict.not_observable.join("\n    ")
    ))
}
