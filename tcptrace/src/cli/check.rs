//! `tcptrace check`: settings and listeners that will hurt, found without probes.

use std::io;

use super::{
    args::CheckArgs,
    exit::{Exit, Failure},
    netns, trace,
};
use crate::{
    check::{Plan, RULES, Risk, risks},
    event::Timestamp,
    output::json::{Missing, RiskLine, SummaryLine},
    output::{Meaning, columns, ended, escape, go_on, labelled, remedies, stdout_json, stdout_lines, wrap},
    stock::{Gap, Namespace, Scope, Survey, Wanted},
};

pub(super) fn run(args: &CheckArgs) -> Result<Exit, Failure> {
    let codes: Vec<&str> = RULES.iter().map(|rule| rule.code()).collect();
    if let Some(unknown) = args.ignore.iter().find(|code| !codes.contains(&code.as_str())) {
        let message = format!("--ignore {unknown}: there is no such risk; there are {}", codes.join(", "));
        return Err(Failure::new(Exit::Usage, message));
    }
    let only = netns::find_all(&args.netns)?;
    let scope = Scope { netns: only, ..Scope::default() };
    let survey = Survey::take(&scope, &[Wanted::LISTENERS])
        .map_err(|error| Failure::new(Exit::NotPermitted, error))?;
    if survey.namespaces.is_empty() {
        return Err(Failure::new(Exit::NotPermitted, Gap::reasons(&survey.gaps).join("; ")));
    }
    let plan = Plan { servers: args.servers.clone().unwrap_or_default() };
    let found: Vec<(&Namespace, Risk)> = survey
        .namespaces
        .iter()
        .flat_map(|namespace| risks(namespace, &plan).into_iter().map(move |risk| (namespace, risk)))
        .filter(|(_, risk)| !args.ignore.iter().any(|code| code == risk.code))
        .collect();
    let written = if args.json { json(&survey, &found) } else { text(&survey, &found) };
    ended(written).map_err(|error| trace::cannot_write(&error))?;
    Ok(if found.is_empty() { Exit::Done } else { Exit::Found })
}

fn json(survey: &Survey, found: &[(&Namespace, Risk)]) -> io::Result<()> {
    let (mut out, now) = (stdout_json("check"), Timestamp::now());
    for (namespace, risk) in found {
        go_on(out.write(now, &RiskLine::of(namespace, risk).into()))?;
    }
    let count = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
    let line = SummaryLine {
        command: "check",
        counts: SummaryLine::counts([
            ("namespaces", count(survey.namespaces.len())),
            ("risks", count(found.len())),
        ]),
        missing: survey.gaps.iter().map(Missing::from).collect(),
        ..SummaryLine::default()
    };
    go_on(out.write(now, &line.into()))?;
    go_on(out.flush())
}

fn text(survey: &Survey, found: &[(&Namespace, Risk)]) -> io::Result<()> {
    let (mut out, width) = (stdout_lines(), columns());
    for (namespace, risk) in found {
        let place = if namespace.is_own { String::new() } else { format!("in namespace {namespace}: ") };
        let severity = risk.severity.name().to_uppercase();
        let headline = format!("{severity} {}  {}", risk.code, escape(&format!("{place}{}", risk.title)));
        for line in wrap(&headline, "", "    ", width) {
            go_on(out.marked(Meaning::from(risk.severity), &line))?;
        }
        go_on(out.rows(&labelled("why", [risk.why.clone()], width)))?;
        go_on(out.rows(&remedies(&risk.remedy.iter().collect::<Vec<_>>(), width)))?;
    }
    if found.iter().any(|(_, risk)| risk.remedy.iter().any(|remedy| remedy.command.is_some())) {
        out.say(format_args!(
            "sysctl -w lasts until the next boot: to keep a setting, put it into /etc/sysctl.d"
        ))?;
    }
    let (listeners, namespaces) = (
        survey.namespaces.iter().map(|namespace| namespace.sockets.len()).sum::<usize>(),
        survey.namespaces.len(),
    );
    out.say(format_args!(
        "{} risk{} at {listeners} listener{} in {namespaces} network namespace{}",
        found.len(),
        if found.len() == 1 { "" } else { "s" },
        if listeners == 1 { "" } else { "s" },
        if namespaces == 1 { "" } else { "s" }
    ))?;
    for gap in &survey.gaps {
        out.say(format_args!("not looked at: {}", escape(&gap.why)))?;
    }
    go_on(out.flush())
}
