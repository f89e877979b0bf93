//! `tcptrace probes`: what this kernel allows, what is attached, what is not and why; with `--self-test`, what fires.

use std::{collections::BTreeMap, io};

use serde::Serialize;

use super::{
    args::ProbesArgs,
    exit::{Exit, Failure},
    trace,
};
use crate::{
    event::Timestamp,
    host::netns::Netns,
    output::{Output, go_on, stdout_output},
    probe::{self, Tracer},
    rehearse::{Stage, drill},
};

/// One attachment, as `--json` prints it.
#[derive(Serialize)]
struct ProbeLine<'a> {
    name: String,
    program: &'a str,
    observations: &'a [&'static str],
    attached: bool,
    /// `None` without the self-test.
    fired: Option<bool>,
    /// How often the program ran; programs with several attachments count them together.
    runs: Option<u64>,
}

pub(super) fn run(args: &ProbesArgs) -> Result<Exit, Failure> {
    let stage = if args.self_test { Some(Stage::new()?) } else { None };
    let mut filters = trace::Filters::default();
    if let Some(stage) = &stage {
        let netns = Netns::from_path(&stage.server().path());
        filters.netns.push(netns.map_err(|error| Failure::new(Exit::NotPermitted, error))?);
    }
    let options = trace::options(&args.trace, 0, filters);
    let tracer = Tracer::start(&options.probe).map_err(crate::live::Error::from)?;
    let runs = stage.as_ref().map(|stage| self_test(&tracer, stage)).transpose()?;
    let silent = print(&tracer, runs.as_ref(), args.json);
    let twice = if runs.is_some() { tracer.done_twice() } else { Vec::new() };
    match silent {
        Ok(0) if twice.is_empty() => Ok(Exit::Done),
        Ok(0) => Err(Failure::new(
            Exit::NotSupported,
            format!(
                "what {} sees is counted twice: it is not to be relied on with this kernel",
                twice.join(", ")
            ),
        )),
        Ok(silent) => Err(Failure::new(
            Exit::NotSupported,
            format!(
                "{silent} attached probes did not fire: what they observe is not to be relied on with this kernel"
            ),
        )),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(Exit::Done),
        Err(error) => Err(trace::cannot_write(&error)),
    }
}

/// How often each program ran during the drill.
fn self_test(tracer: &Tracer, stage: &Stage) -> Result<BTreeMap<&'static str, u64>, Failure> {
    // The kernel counts runs while somebody holds this open (5.8).
    let _counting = aya::sys::enable_stats(aya::sys::Stats::RunTime).map_err(|error| {
        Failure::new(Exit::NotPermitted, format!("counting the runs of BPF programs: {error}"))
    })?;
    let before = tracer.run_counts();
    drill(stage, false)?;
    let v4 = tracer.run_counts();
    // Without IPv6 there is nothing to drill: those probes are not attached then either.
    if std::path::Path::new("/proc/net/if_inet6").exists() {
        drill(stage, true)?;
    }
    let after = tracer.run_counts();
    log::debug!("after IPv4: {v4:?}");
    Ok(after.into_iter().map(|(name, runs)| (name, runs - before.get(name).copied().unwrap_or(0))).collect())
}

/// Prints coverage and attachments; how many should have fired and did not.
fn print(tracer: &Tracer, runs: Option<&BTreeMap<&'static str, u64>>, json: bool) -> io::Result<usize> {
    let now =
        Timestamp::from_nanos(u64::try_from(jiff::Timestamp::now().as_nanosecond()).unwrap_or_default());
    let mut output = stdout_output(json);
    go_on(output.coverage(&crate::live::coverage(tracer.coverage(), Vec::new(), Vec::new()), now))?;
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
        let runs = runs.map(|runs| runs.get(attached.program).copied().unwrap_or(0));
        let fired = runs.map(|runs| runs > 0);
        silent += usize::from(fired == Some(false));
        let line = ProbeLine {
            name: format!("{} {}", attached.kind.name(), attached.target),
            program: attached.program,
            observations: &attached.observations,
            attached: true,
            fired,
            runs,
        };
        match &mut output {
            Output::Json(out) => go_on(out.write("probe", &line))?,
            Output::Text(out) => {
                let word = match fired {
                    None => "attached",
                    Some(true) => "fired",
                    Some(false) => "SILENT",
                };
                out.say(format_args!("  {word:12} {:44} for {}", line.name, line.observations.join(", ")))?;
            }
        }
    }
    if let Some(misses) = missed(tracer) {
        log::warn!("{misses}");
    }
    go_on(output.flush())?;
    Ok(silent)
}

/// What the kernel says it did not run our programs for.
fn missed(tracer: &Tracer) -> Option<String> {
    let missed: Vec<String> =
        tracer.misses().into_iter().filter(|(_, n)| *n > 0).map(|(name, n)| format!("{name}: {n}")).collect();
    (!missed.is_empty()).then(|| format!("the kernel skipped runs of {}", missed.join(", ")))
}
