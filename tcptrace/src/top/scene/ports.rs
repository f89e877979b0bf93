//! Ephemeral ports: the range of each namespace, and who has how many of it, for how long that can go on.

use std::cmp::Ordering;
use std::net::{IpAddr, SocketAddr};

use crate::event::{KnobSample, PortRange, PortSurvey, Timestamp};
use crate::output::zone;
use crate::output::{Meaning, Row as Line};

use super::super::filter::{Filter, Subject};
use super::super::format::{age, or_dash, short_rate};
use super::super::model::Model;
use super::findings::{blank, heading, plain};
use super::{Cell, Column, Cx, Row, RowKey, facts, most, number};

/// The range of a namespace, one of its processes, or a destination that is called from it.
#[derive(Clone, Debug)]
pub(crate) struct PortRow {
    netns: u32,
    what: What,
    /// Ports that it has, if that is known.
    held: Option<u64>,
    /// Of so many.
    of: Option<u64>,
    time_wait: Option<u64>,
    per_s: Option<f64>,
    refused: u64,
    /// Seconds until there is none left: the least, the likely, the most.
    left: Option<Left>,
    /// When the ports of its namespace were last looked at.
    looked: Option<Timestamp>,
    /// Where it comes: a range, what belongs to it, the next range.
    place: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum What {
    Range { range: Option<PortRange>, owners: Vec<String>, incomplete: Option<String> },
    Process { pid: u32, comm: String, container: Option<String>, counts: String },
    Destination { source: IpAddr, remote: SocketAddr, owner: Option<(u32, String)> },
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Left {
    least: f64,
    likely: f64,
    most: Option<f64>,
}

/// Each namespace's range, below it its processes, and the destinations that were looked at.
pub(super) fn rows(model: &Model) -> Vec<PortRow> {
    let world = model.world();
    let mut spaces: Vec<Vec<PortRow>> = Vec::new();
    for &netns in &model.port_spaces {
        let mut rows = Vec::new();
        let space = world.ports().space(netns);
        let survey = space.and_then(|space| space.survey.as_ref());
        let knobs = world.namespace(netns).map(|namespace| &namespace.knobs);
        let capacity = survey
            .map(|(_, survey)| u64::from(survey.capacity))
            .or_else(|| knobs.and_then(KnobSample::ephemeral_ports).map(u64::from));
        let mut users: Vec<PortRow> = Vec::new();
        let (mut held_all, mut refused_all) = (0, 0);
        let mut growth_all: Option<crate::correlate::Growth> = None;
        for (pid, ports) in world.ports().users(netns) {
            let latest = &ports.latest;
            let growth = ports.growth();
            held_all += latest.held();
            refused_all += latest.refused;
            growth_all = match (growth_all, growth) {
                (Some(all), Some(growth)) => Some(all.and(&growth)),
                (all, growth) => all.or(growth),
            };
            if latest.held() == 0 && latest.refused == 0 && growth.is_none() {
                continue;
            }
            let info = world.processes().info(pid);
            users.push(PortRow {
                netns,
                what: What::Process {
                    pid,
                    comm: info.map_or_else(|| latest.comm.clone(), |info| info.comm.clone()),
                    container: info.and_then(|info| info.container.clone()),
                    counts: format!(
                        "took {} ({} by connect, {} by bind to port 0), gave back {}, {} of them left in TIME_WAIT",
                        latest.taken(),
                        latest.by_connect,
                        latest.by_bind,
                        latest.released,
                        latest.time_wait
                    ),
                },
                held: Some(latest.held()),
                of: capacity,
                time_wait: Some(latest.time_wait),
                per_s: growth.map(|growth| growth.per_s),
                refused: latest.refused,
                left: None,
                looked: None,
                place: 0,
            });
        }
        let exhaustion = space.and_then(|space| space.exhaustion.as_ref());
        let free = match survey {
            Some((_, survey)) => Some(u64::from(survey.free())),
            None => capacity.map(|capacity| capacity.saturating_sub(held_all)),
        };
        rows.push(PortRow {
            netns,
            what: What::Range {
                range: survey
                    .map(|(_, survey)| survey.range)
                    .or_else(|| knobs.and_then(|knobs| knobs.local_port_range)),
                owners: survey.map(|(_, survey)| owners(survey)).unwrap_or_default(),
                incomplete: survey.and_then(|(_, survey)| survey.incomplete.clone()),
            },
            held: survey.map(|(_, survey)| u64::from(survey.in_use)),
            of: capacity,
            time_wait: survey.map(|(_, survey)| u64::from(survey.time_wait)),
            per_s: growth_all.map(|growth| growth.per_s),
            refused: refused_all.max(exhaustion.map_or(0, |of| of.connects() + of.binds)),
            left: growth_all.zip(free).and_then(|(growth, free)| Left::of(growth.forecast(free)?)),
            looked: survey.map(|(time, _)| *time),
            place: 0,
        });
        users.sort_by(|one, other| most(&one.held, &other.held).then(most(&other.pid(), &one.pid())));
        rows.extend(users);
        let destinations = survey.map(|(_, survey)| survey.destinations.as_slice()).unwrap_or_default();
        rows.extend(destinations.iter().map(|of| PortRow {
            netns,
            what: What::Destination {
                source: of.source,
                remote: of.remote,
                owner: of.owner.as_ref().map(|owner| (owner.pid, owner.comm.clone())),
            },
            held: Some(of.ports.into()),
            of: capacity,
            time_wait: Some(of.time_wait.into()),
            per_s: None,
            refused: exhaustion.and_then(|known| known.destinations.get(&of.remote)).copied().unwrap_or(0),
            left: None,
            looked: survey.map(|(time, _)| *time),
            place: 0,
        }));
        spaces.push(rows);
    }
    // Where ports are refused, and where least is left, comes first.
    let trouble = |rows: &[PortRow]| rows.first().map_or((0, 0.0), |range| (range.refused, range.share()));
    spaces.sort_by(|one, other| most(&trouble(one), &trouble(other)));
    let mut rows: Vec<PortRow> = spaces.into_iter().flatten().collect();
    for (place, row) in rows.iter_mut().enumerate() {
        row.place = place;
    }
    rows
}

fn owners(survey: &PortSurvey) -> Vec<String> {
    survey
        .processes
        .iter()
        .map(|holders| {
            let who = match &holders.owner {
                Some(owner) => format!("{}[{}]", owner.comm, owner.pid),
                None => "no process (TIME_WAIT, or being closed)".to_owned(),
            };
            let most_to = holders.most_to.map(|(remote, ports)| format!(", {ports} of them to {remote}"));
            format!(
                "{who}: {} ports, {} connected, {} in CLOSE_WAIT, {} bound only, {} in TIME_WAIT{}",
                holders.ports,
                holders.established,
                holders.close_wait,
                holders.bound,
                holders.time_wait,
                most_to.unwrap_or_default()
            )
        })
        .collect()
}

impl Left {
    fn of(
        (least, likely, most): (std::time::Duration, std::time::Duration, Option<std::time::Duration>),
    ) -> Option<Self> {
        let seconds = |of: std::time::Duration| of.as_secs_f64();
        // What takes longer than a day is no forecast.
        (seconds(likely) < 86_400.0).then(|| Self {
            least: seconds(least),
            likely: seconds(likely),
            most: most.map(seconds),
        })
    }
}

impl PortRow {
    fn pid(&self) -> u32 {
        match &self.what {
            What::Process { pid, .. } => *pid,
            _ => 0,
        }
    }

    fn name(&self, cx: &Cx<'_>) -> String {
        match &self.what {
            What::Range { range, .. } => {
                let range = range.map_or_else(
                    || "range not read".to_owned(),
                    |range| format!("{}-{}", range.first, range.last),
                );
                format!("{range}{}", cx.elsewhere(self.netns))
            }
            What::Process { pid, comm, container, .. } => {
                let container = container.as_ref().map(|name| format!(" {name}"));
                format!("  {comm}[{pid}]{}", container.unwrap_or_default())
            }
            What::Destination { source, remote, .. } => format!("  {source} to {remote}"),
        }
    }

    fn share(&self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "at most 65536 ports")]
        match (self.held, self.of) {
            (Some(held), Some(of)) if of > 0 => held as f64 / of as f64,
            _ => 0.0,
        }
    }

    fn meaning(&self) -> Option<Meaning> {
        match self.share() {
            share if share >= 0.9 => Some(Meaning::Critical),
            share if share >= 0.7 => Some(Meaning::Warning),
            _ => None,
        }
    }

    fn none_is_left(&self) -> bool {
        matches!((&self.what, self.held, self.of), (What::Range { .. }, Some(held), Some(of)) if held >= of)
    }

    fn left_in_words(&self) -> String {
        if self.none_is_left() {
            return "none left".to_owned();
        }
        let span = |seconds: f64| age(std::time::Duration::try_from_secs_f64(seconds).unwrap_or_default());
        or_dash(self.left, |left| span(left.likely))
    }
}

impl Row for PortRow {
    const COLUMNS: &'static [Column<Self>] = &[
        Column {
            title: "range / process / destination",
            width: 31,
            grow: 4,
            right: false,
            rank: 0,
            cell: |row, cx| {
                let meaning = matches!(row.what, What::Range { .. }).then_some(Meaning::Label);
                Cell::Text(row.name(cx), meaning)
            },
            order: None,
        },
        Column {
            title: "share",
            width: 10,
            grow: 3,
            right: false,
            rank: 2,
            cell: |row, _| Cell::Bar {
                part: row.held.unwrap_or(0),
                whole: row.of.unwrap_or(0),
                meaning: row.meaning(),
            },
            order: None,
        },
        Column {
            title: "ports",
            width: 6,
            grow: 0,
            right: true,
            rank: 0,
            cell: |row, _| Cell::Text(or_dash(row.held, |held| held.to_string()), row.meaning()),
            order: Some(|one, other| most(&one.held, &other.held)),
        },
        Column {
            title: "of",
            width: 6,
            grow: 0,
            right: true,
            rank: 1,
            cell: |row, _| Cell::plain(or_dash(row.of, |of| of.to_string())),
            order: None,
        },
        Column {
            title: "more",
            width: 7,
            grow: 0,
            right: true,
            rank: 3,
            cell: |row, _| Cell::plain(or_dash(row.per_s, |rate| format!("+{}", short_rate(rate)))),
            order: Some(|one, other| most(&one.per_s, &other.per_s)),
        },
        number!("TIME_WAIT", 9, 4, |row| row.time_wait, Cell::known_count),
        number!("refused", 7, 0, |row| row.refused, Cell::bad_count),
        Column {
            title: "gone in",
            width: 11,
            grow: 0,
            right: true,
            rank: 1,
            cell: |row, _| {
                let soon = row.none_is_left() || row.left.is_some_and(|left| left.least < 600.0);
                Cell::Text(row.left_in_words(), soon.then_some(Meaning::Critical))
            },
            order: None,
        },
    ];

    fn key(&self) -> RowKey {
        match &self.what {
            What::Range { .. } => RowKey::PortRange(self.netns),
            What::Process { pid, .. } => RowKey::PortUser(self.netns, *pid),
            What::Destination { source, remote, .. } => RowKey::PortDestination(self.netns, *source, *remote),
        }
    }

    fn is_wanted(&self, filter: &Filter) -> bool {
        let (processes, container, peer, port) = match &self.what {
            What::Range { .. } => (None, None, None, None),
            What::Process { pid, comm, container, .. } => {
                (Some(vec![(*pid, comm.as_str())]), container.as_deref(), None, None)
            }
            What::Destination { remote, owner, .. } => (
                owner.as_ref().map(|(pid, comm)| vec![(*pid, comm.as_str())]),
                None,
                Some(remote.ip()),
                Some(remote.port()),
            ),
        };
        filter.wants(&Subject { netns: Some(self.netns), ports: [port, None], processes, container, peer })
    }

    fn title(&self, cx: &Cx<'_>) -> String {
        format!("ephemeral ports: {}", self.name(cx).trim())
    }

    fn detail(&self, cx: &Cx<'_>, width: usize) -> Vec<Line> {
        let mut lines = Vec::new();
        let looked = or_dash(self.looked, |looked| {
            format!("at {}, {} ago", zone::second(&cx.clock.zone, looked), age(cx.clock.now.since(looked)))
        });
        match &self.what {
            What::Range { owners, incomplete, .. } => {
                let used = match (self.held, self.of) {
                    (Some(held), Some(of)) => format!("{held} of {of} are in use"),
                    (None, Some(of)) => format!(
                        "{of} ports; how many are in use is looked at only when it matters (see the processes below)"
                    ),
                    _ => "not known".to_owned(),
                };
                lines.extend(facts("ports", vec![used], width));
                lines.extend(facts("looked", vec![looked], width));
                let words = |left: Left| {
                    let span = |seconds: f64| {
                        age(std::time::Duration::try_from_secs_f64(seconds).unwrap_or_default())
                    };
                    format!(
                        "in {} at this rate (at least {}, at most {})",
                        span(left.likely),
                        span(left.least),
                        or_dash(left.most, span)
                    )
                };
                let gone = if self.none_is_left() {
                    "none was left at that look".to_owned()
                } else {
                    or_dash(self.left, words)
                };
                lines.extend(facts("gone", vec![gone], width));
                lines.extend(facts("gap", incomplete.iter().cloned().collect(), width));
                lines.push(blank());
                lines.push(heading("Who had them at that look"));
                let none = || vec!["not looked at yet".to_owned()];
                let owners = if owners.is_empty() { none() } else { owners.clone() };
                for owner in owners {
                    let owner = crate::output::escape(&owner).into_owned();
                    lines.extend(crate::output::wrap(&owner, "  ", "    ", width).into_iter().map(plain));
                }
            }
            What::Process { counts, .. } => {
                lines.extend(facts(
                    "ports",
                    vec![format!("{counts}; {} found no port", self.refused)],
                    width,
                ));
                let more = or_dash(self.per_s, |rate| format!("{} more each second", short_rate(rate)));
                lines.extend(facts("growth", vec![more], width));
            }
            What::Destination { owner, .. } => {
                let of = or_dash(self.held, |held| held.to_string());
                let time_wait = or_dash(self.time_wait, |ports| ports.to_string());
                lines.extend(facts("ports", vec![format!("{of}, of these {time_wait} in TIME_WAIT")], width));
                let owner = owner.as_ref().map(|(pid, comm)| format!("{comm}[{pid}] has most of them"));
                lines.extend(facts("owner", owner.into_iter().collect(), width));
                lines.extend(facts("looked", vec![looked], width));
            }
        }
        lines
    }

    fn natural(&self, other: &Self) -> Ordering {
        self.place.cmp(&other.place)
    }

    fn nothing() -> &'static str {
        "No process has taken an ephemeral port so far (by connect(), or by bind() to port 0)."
    }
}
