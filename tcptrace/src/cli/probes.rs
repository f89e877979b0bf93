//! `tcptrace probes`: what this kernel allows, what is attached, what is not and why; with `--self-test`, what fires.

use std::{collections::BTreeMap, io};

use super::{
    args::ProbesArgs,
    exit::{Exit, Failure},
    trace,
};
use crate::{
    event::{AddressKey, ClockOffset, Family, Timestamp, decode_record},
    host::netns::Netns,
    output::json::{Missing, ProbeLine, RecordLine, SummaryLine, WrongLine},
    output::{Output, go_on, stdout_output},
    probe::{self, BackEnd, Tracer},
    rehearse::{Expected, Stage, Wrong, drill, ipv6_is_off},
};

/// What the self-test came to.
struct SelfTest {
    runs: BTreeMap<&'static str, u64>,
    /// Why nothing was tried over IPv6.
    no_ipv6: Option<String>,
    records: Vec<Compared>,
}

/// A record of which everything is known: `None` if it did not come, else what is wrong in it.
struct Compared {
    expected: Expected,
    family: Family,
    wrong: Option<Vec<Wrong>>,
}

impl Compared {
    fn is_right(&self) -> bool {
        self.wrong.as_ref().is_some_and(Vec::is_empty)
    }
}

pub(super) fn run(args: &ProbesArgs) -> Result<Exit, Failure> {
    let stage = if args.self_test { Some(Stage::new()?) } else { None };
    let mut filters = trace::Filters::default();
    if let Some(stage) = &stage {
        let netns = Netns::from_path(&stage.server().path());
        filters.netns.push(netns.map_err(|error| Failure::new(Exit::NotPermitted, error))?);
    }
    // The records that are compared must be told one by one.
    let options = trace::options(&args.trace, trace::streams(args.self_test, false), filters);
    let mut tracer = Tracer::start(&options.probe).map_err(crate::live::Error::from)?;
    let tested = stage.as_ref().map(|stage| self_test(&mut tracer, stage)).transpose()?;
    let silent = match print(&tracer, tested.as_ref(), args.json) {
        Ok(silent) => silent,
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => 0,
        Err(error) => return Err(trace::cannot_write(&error)),
    };
    let Some(tested) = tested else { return Ok(Exit::Done) };
    let mut problems = Vec::new();
    if silent > 0 {
        problems.push(format!("{silent} attached probes did not fire"));
    }
    let mut wrong: Vec<String> = tested
        .records
        .iter()
        .filter(|of| !of.is_right())
        .map(|of| format!("{} (by {})", of.expected.observation, via(&tracer, of.expected.observation)))
        .collect();
    // Over IPv4 and IPv6.
    wrong.sort();
    wrong.dedup();
    if !wrong.is_empty() {
        problems.push(format!("what was observed is not what was done: {}", wrong.join(", ")));
    }
    let twice = tracer.done_twice();
    if !twice.is_empty() {
        problems.push(format!("what {} sees is counted twice", twice.join(", ")));
    }
    if problems.is_empty() {
        return Ok(Exit::Done);
    }
    let message = format!("{}: this is not to be relied on with this kernel", problems.join("; "));
    Err(Failure::new(Exit::NotSupported, message))
}

/// How often each program ran during the drill, and whether its records say what was done.
fn self_test(tracer: &mut Tracer, stage: &Stage) -> Result<SelfTest, Failure> {
    // The kernel counts runs while somebody holds this open (5.8).
    let _counting = aya::sys::enable_stats(aya::sys::Stats::RunTime).map_err(|error| {
        Failure::new(Exit::NotPermitted, format!("counting the runs of BPF programs: {error}"))
    })?;
    let before = tracer.run_counts();
    let mut records = compare(tracer, drill(stage, false)?, Family::V4);
    let v4 = tracer.run_counts();
    let no_ipv6 = ipv6_is_off(stage)?;
    if no_ipv6.is_none() {
        records.extend(compare(tracer, drill(stage, true)?, Family::V6));
    }
    let after = tracer.run_counts();
    log::debug!("after IPv4: {v4:?}");
    let runs = |(name, runs): (_, u64)| (name, runs - before.get(name).copied().unwrap_or(0));
    Ok(SelfTest { runs: after.into_iter().map(runs).collect(), no_ipv6, records })
}

/// Compares what is known of a drill with the records that came since the last one.
fn compare(tracer: &mut Tracer, known: Vec<Expected>, family: Family) -> Vec<Compared> {
    let (mut events, addresses) = (Vec::new(), AddressKey::default());
    tracer.drain(|bytes| match decode_record(bytes, ClockOffset::default()) {
        Ok(mut event) => {
            event.kind.hide_addresses(&addresses);
            events.push(event);
        }
        Err(error) => log::error!("a record of the kernel side cannot be decoded: {error}"),
    });
    for event in &events {
        log::debug!("{event:?}");
    }
    let coverage = tracer.coverage();
    let attached =
        known.into_iter().filter_map(|expected| Some((coverage.back_end(expected.observation)?, expected)));
    attached
        .map(|(back_end, expected)| {
            let wrong = expected.compare(&events, back_end < BackEnd::Tracepoint);
            Compared { expected, family, wrong }
        })
        .collect()
}

/// Prints coverage, attachments and, of a self-test, its records; how many should have fired and did not.
fn print(tracer: &Tracer, tested: Option<&SelfTest>, json: bool) -> io::Result<usize> {
    let (mut output, now) = (stdout_output("probes", json, false), Timestamp::now());
    go_on(output.opening(&trace::here()))?;
    go_on(output.coverage(now, &crate::live::coverage(tracer.coverage(), Vec::new(), Vec::new())))?;
    go_on(output.watching(None, false))?;
    if let Output::Text(out) = &mut output {
        for observed in &tracer.coverage().observations {
            let status = match observed.status {
                probe::Status::Attached => "attached",
                probe::Status::Polled => "polled",
                probe::Status::Missing => "missing",
            };
            out.say(format_args!("  {:18} {status:9} {}", observed.name, observed.via))?;
            for reason in observed.reason.iter().flat_map(|reason| reason.split("; ")) {
                out.say(format_args!("  {:28} {reason}", ""))?;
            }
        }
    }
    let mut silent = 0;
    for attached in tracer.attached() {
        let not_tried = tested.and_then(|tested| tested.no_ipv6.as_deref()).filter(|_| attached.is_ipv6);
        let runs = tested.map(|tested| tested.runs.get(attached.program).copied().unwrap_or(0));
        let fired = runs.filter(|_| not_tried.is_none()).map(|runs| runs > 0);
        silent += usize::from(fired == Some(false));
        let line = ProbeLine {
            name: format!("{} {}", attached.kind.name(), attached.target),
            program: attached.program.to_owned(),
            observations: attached.observations.to_vec(),
            attached: true,
            fired,
            not_tried: not_tried.map(str::to_owned),
            runs,
            verified_instructions: tracer.verified_instructions(attached.program),
        };
        match &mut output {
            Output::Json(out) => go_on(out.write(now, &line.into()))?,
            Output::Text(out) => {
                let word = match (fired, not_tried) {
                    (_, Some(_)) => "not tried",
                    (None, None) => "attached",
                    (Some(true), None) => "fired",
                    (Some(false), None) => "SILENT",
                };
                let why = not_tried.map_or_else(String::new, |why| format!(": {why}"));
                let of = line.observations.join(", ");
                out.say(format_args!("  {word:12} {:44} for {of}{why}", line.name))?;
            }
        }
    }
    for compared in tested.into_iter().flat_map(|tested| &tested.records) {
        print_record(tracer, compared, &mut output)?;
    }
    let misses = missed(tracer);
    if let Output::Json(out) = &mut output {
        go_on(out.write(Timestamp::now(), &summary(tracer, tested, silent, misses.as_deref()).into()))?;
    }
    if let Some(misses) = misses {
        log::warn!("{misses}");
    }
    go_on(output.flush())?;
    Ok(silent)
}

/// What makes an observation.
fn via<'a>(tracer: &'a Tracer, observation: &str) -> &'a str {
    let observed = tracer.coverage().observations.iter().find(|of| of.name == observation);
    observed.map_or("", |observed| observed.via.as_str())
}

/// What it comes to.
fn summary(tracer: &Tracer, tested: Option<&SelfTest>, silent: usize, misses: Option<&str>) -> SummaryLine {
    let count = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
    let mut counts = vec![("probes", count(tracer.attached().len()))];
    if let Some(tested) = tested {
        counts.push(("silent", count(silent)));
        counts.push(("records", count(tested.records.len())));
        counts.push(("wrong", count(tested.records.iter().filter(|of| !of.is_right()).count())));
    }
    let no_ipv6 = tested.and_then(|tested| tested.no_ipv6.as_deref()).map(|why| ("ipv6", why));
    let missing = no_ipv6.into_iter().chain(misses.map(|misses| ("runs", misses)));
    SummaryLine {
        command: "probes",
        counts: SummaryLine::counts(counts),
        missing: missing.map(|(what, why)| Missing { what: what.to_owned(), why: why.to_owned() }).collect(),
        ..SummaryLine::default()
    }
}

fn print_record(tracer: &Tracer, compared: &Compared, output: &mut Output<impl io::Write>) -> io::Result<()> {
    let Compared { expected, family, wrong } = compared;
    let via = via(tracer, expected.observation);
    match output {
        Output::Json(out) => {
            let line = RecordLine {
                observation: expected.observation,
                record: expected.in_words(),
                family: *family,
                via: via.to_owned(),
                seen: wrong.is_some(),
                wrong: wrong.iter().flatten().map(WrongLine::from).collect(),
            };
            go_on(out.write(Timestamp::now(), &line.into()))
        }
        Output::Text(out) => {
            let (word, by) = match wrong.as_deref() {
                Some([]) => ("right", String::new()),
                Some(_) => ("WRONG", format!(" (by {via})")),
                None => ("NO RECORD", format!(" (by {via})")),
            };
            let told = |of: &Wrong| {
                let seen = of.seen.map_or_else(|| "nothing".to_owned(), |seen| seen.to_string());
                format!("{} is {seen}, not {}", of.field, of.expected)
            };
            let wrong: Vec<String> = wrong.iter().flatten().map(told).collect();
            let wrong = if wrong.is_empty() { String::new() } else { format!(": {}", wrong.join(", ")) };
            let what = format!("{} over {}", expected.in_words(), family.name());
            out.say(format_args!("  {word:12} {what:44} for {}{wrong}{by}", expected.observation))
        }
    }
}

/// What the kernel says it did not run our programs for.
fn missed(tracer: &Tracer) -> Option<String> {
    let missed: Vec<String> =
        tracer.misses().into_iter().filter(|(_, n)| *n > 0).map(|(name, n)| format!("{name}: {n}")).collect();
    (!missed.is_empty()).then(|| format!("the kernel skipped runs of {}", missed.join(", ")))
}
