//! `tcptrace check`: settings and listeners that will hurt, found without probes.

use std::io;

use serde::Serialize;

use super::{
    args::CheckArgs,
    exit::{Exit, Failure},
    netns, trace,
};
use crate::{
    check::{Plan, RULES, Risk, risks},
    finding::{Evidence, Party, Remedy},
    output::{ended, escape, go_on, stdout_json, stdout_lines},
    stock::{Gap, Namespace, Scope, Survey, Wanted},
};

/// A risk, as `--json` prints it.
#[derive(Serialize)]
struct RiskLine<'a> {
    code: &'a str,
    severity: &'static str,
    netns: u32,
    namespace: Option<&'a str>,
    title: &'a str,
    why: &'a str,
    listeners: &'a [Party],
    evidence: &'a Evidence,
    remedy: &'a [Remedy],
}

/// The last line.
#[derive(Serialize)]
struct SummaryLine<'a> {
    namespaces: usize,
    risks: usize,
    /// What could not be looked at.
    gaps: Vec<&'a str>,
}

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
    let mut out = stdout_json();
    for (namespace, risk) in found {
        let line = RiskLine {
            code: risk.code,
            severity: risk.severity.name(),
            netns: namespace.id,
            namespace: namespace.name.as_deref(),
            title: &risk.title,
            why: &risk.why,
            listeners: &risk.listeners,
            evidence: &risk.evidence,
            remedy: &risk.remedy,
        };
        go_on(out.write("risk", &line))?;
    }
    let line = SummaryLine {
        namespaces: survey.namespaces.len(),
        risks: found.len(),
        gaps: Gap::reasons(&survey.gaps),
    };
    go_on(out.write("summary", &line))?;
    go_on(out.flush())
}

fn text(survey: &Survey, found: &[(&Namespace, Risk)]) -> io::Result<()> {
    let mut out = stdout_lines();
    for (namespace, risk) in found {
        let place = if namespace.is_own { String::new() } else { format!("in namespace {namespace}: ") };
        let severity = risk.severity.name().to_uppercase();
        out.say(format_args!("{severity} {}  {}", risk.code, escape(&format!("{place}{}", risk.title))))?;
        out.say(format_args!("  why    {}", escape(&risk.why)))?;
        for (index, remedy) in risk.remedy.iter().enumerate() {
            out.say(format_args!("  {}     {}", if index == 0 { "do" } else { "  " }, escape(&remedy.text)))?;
            if let Some(command) = &remedy.command {
                out.say(format_args!("           {}", escape(command)))?;
            }
        }
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
