//! port-leak: a process takes ephemeral ports and does not give them back. Said before they run out.

use std::time::Duration;

use crate::correlate::{Change, Correlator, Growth, PortUser};
use crate::event::{PortHolders, PortSurvey};

use super::case::{Concern, Description, Diagnosis};
use super::words::{rate, span};
use super::{
    Apart, CauseRule, Confidence, Evidence, FindingKind, Party, ProcessName, Remedy, Severity, keys,
};

/// The diagnosis.
#[derive(Default)]
pub(super) struct PortLeak;

impl Diagnosis for PortLeak {
    const KIND: FindingKind = FindingKind {
        code: "port-leak",
        opens_when: "a process's ephemeral ports only grow: when they run out",
        page: include_str!("../../../docs/findings/port-leak.md"),
        observations: &["port-taken", "port-released"],
        tracepoint_tier: "ports are followed from connect() to close; one that closes while a packet closes another may be missed.",
        causes: &[CauseRule {
            code: "not-closing",
            means: "what a process holds only grows",
            certain: Some(
                "it grew at every look, and half of its sockets were closed by the peer and not by it",
            ),
            likely: Some("it grew at every look, and less than a tenth was given back"),
            possible: None,
            told_apart: &[Apart {
                from: "a pool that is still filling up",
                by: "half of the sockets are in CLOSE_WAIT; otherwise nothing, hence likely",
            }],
        }],
        evidence: &[
            keys::CAPACITY,
            keys::number(
                "close_wait",
                "ports of connections that the peer has closed and the process has not",
            ),
            keys::DESTINATION,
            keys::number("free", "ports that are left"),
            keys::measure("growth_error_per_min", "that may be so much more or less"),
            keys::measure("growth_per_min", "ports more a minute"),
            keys::IN_USE,
            keys::measure("left_max_s", "at most"),
            keys::measure("left_min_s", "at least"),
            keys::LEFT_S,
            keys::number("ports", "ports that the process has"),
            keys::number("released", "ports given back meanwhile"),
            keys::number("taken", "ports taken meanwhile"),
            keys::TIME_WAIT,
            keys::measure("window_s", "the span that the growth is of"),
        ],
    };
    const QUIET: Duration = Duration::from_secs(10);

    type Key = PortUser;
    type Memory = Option<Description>;

    fn concern(&self, change: &Change, _world: &Correlator) -> Option<Concern<PortUser>> {
        match change {
            Change::PortsLeak(user) => Some(Concern::Happened(*user)),
            _ => None,
        }
    }

    fn begin(&mut self, _key: &PortUser, _world: &Correlator) -> Option<Description> {
        None
    }

    fn observe(
        &mut self,
        key: &PortUser,
        memory: &mut Option<Description>,
        _change: &Change,
        world: &Correlator,
    ) {
        if let Some(description) = describe(*key, world) {
            *memory = Some(description);
        }
    }

    fn describe(
        &self,
        _key: &PortUser,
        memory: &Option<Description>,
        _world: &Correlator,
    ) -> Option<Description> {
        memory.clone()
    }
}

fn describe((netns, pid): PortUser, world: &Correlator) -> Option<Description> {
    let ports = world.ports().user((netns, pid))?;
    let growth = ports.growth()?;
    let survey = world.ports().space(netns).and_then(|space| space.fresh_survey(world.now()));
    let seen = survey.and_then(|survey| holders_of(survey, pid));
    let held = growth.held.max(seen.map_or(0, |holders| holders.ports.into()));
    let capacity: u64 = world.namespace(netns)?.knobs.ephemeral_ports()?.into();
    let in_use = survey.map_or(held, |survey| held.max(survey.in_use.into()));
    let free = capacity.saturating_sub(in_use);
    let forecast = growth.forecast(free);
    let process = ProcessName::observed(pid, &ports.latest.comm, world.processes());
    let close_wait = seen.map_or(0, |holders| holders.close_wait);
    let most_to = seen.and_then(|holders| holders.most_to);
    let explanation = format!(
        "in {} it took {} ports and gave back {}{}",
        span(growth.span),
        growth.taken,
        growth.released,
        if close_wait > 0 {
            format!("; the peers of {close_wait} connections have closed, and it has not")
        } else {
            String::new()
        }
    );
    let left = match forecast {
        _ if free == 0 => "none is left".to_owned(),
        Some((least, likely, most)) => format!(
            "none is left in {} ({} to {}) if that goes on",
            span(likely),
            span(least),
            most.map_or_else(|| "much later".to_owned(), span)
        ),
        None => "when none is left cannot be said".to_owned(),
    };
    let title = format!(
        "{process} takes ephemeral ports and does not give them back: {held} of {capacity}, {} more; {left}",
        rate(growth.per_s)
    );
    let mut numbers = vec![
        format!(
            "takes ephemeral ports and does not give them back: {held} of {capacity}, {} more",
            rate(growth.per_s)
        ),
        if free == 0 { left } else { format!("{free} free; {left}") },
    ];
    if let Some((remote, count)) = most_to {
        numbers.push(format!("{count} of them are connections to {remote}"));
    }
    Some(Description {
        severity: Severity::Warning,
        // A pool that fills looks the same until it is full; sockets that the peer has closed do not.
        confidence: if u64::from(close_wait) * 2 >= held { Confidence::Certain } else { Confidence::Likely },
        title,
        subject: Party {
            kind: "process",
            netns: Some(netns),
            process: Some(process.clone()),
            ..Party::default()
        },
        cause: "not-closing",
        numbers,
        evidence: evidence(&growth, survey.filter(|survey| u64::from(survey.in_use) >= held), close_wait)
            .with("ports", held)
            .with("capacity", capacity)
            .with("free", free)
            .with("left_s", forecast.map(|(_, likely, _)| likely.as_secs_f64()))
            .with("left_min_s", forecast.map(|(least, ..)| least.as_secs_f64()))
            .with("left_max_s", forecast.and_then(|(.., most)| most).map(|most| most.as_secs_f64()))
            .with_some("destination", most_to.map(|(remote, _)| remote))
            .with("why", explanation.as_str()),
        remedy: remedy(&process, pid, held, close_wait),
        explanation,
    })
}

/// `survey`: the latest, if it is not older than what was counted since.
fn evidence(growth: &Growth, survey: Option<&PortSurvey>, close_wait: u32) -> Evidence {
    Evidence::new()
        .with("growth_per_min", growth.per_s * 60.0)
        .with("growth_error_per_min", growth.error_per_s * 60.0)
        .with("window_s", growth.span.as_secs_f64())
        .with("taken", growth.taken)
        .with("released", growth.released)
        .with("in_use", survey.map(|survey| survey.in_use))
        .with("time_wait", survey.map(|survey| survey.time_wait))
        .with("close_wait", close_wait)
}

fn remedy(process: &ProcessName, pid: u32, held: u64, close_wait: u32) -> Vec<Remedy> {
    vec![
        Remedy::text(if close_wait > 0 {
            format!("close sockets in {process} when read() says that the peer has closed")
        } else {
            format!("close sockets in {process} that are no longer needed, or limit its pool")
        }),
        Remedy::command(
            format!(
                "until it is mended: restart {process}, before they run out; that gives back its {held} ports"
            ),
            format!("kill {pid}"),
        ),
        Remedy::text("a wider net.ipv4.ip_local_port_range only puts it off"),
    ]
}

fn holders_of(survey: &PortSurvey, pid: u32) -> Option<&PortHolders> {
    survey.processes.iter().find(|holders| holders.owner.as_ref().is_some_and(|owner| owner.pid == pid))
}

#[cfg(test)]
mod tests;
