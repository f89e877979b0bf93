//! From events to a report.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::config;
use crate::event::{Coverage, Event, Kind, LossPlace, Lost, ObservationStatus, Timestamp, observation};
use crate::finding::{Engine, Finding};
use crate::output::Summary;

use super::across::Handshakes;
use super::holders::{Holders, Holding, PortQuestion};
use super::listeners::{ListenerReport, Listeners};
use super::networks::{NetworkReport, Networks};
use super::port_use::{PortSpace, PortUses};
use super::ports::{Destination, PortUser, Ports};
use super::verdicts::{Verdict, Verdicts};

/// So many losses are told one by one.
const LOSSES: usize = 1_000;

/// A report on one recording.
#[derive(Debug)]
pub struct Report {
    /// From where to where.
    pub from: Timestamp,
    /// See `from`.
    pub to: Timestamp,
    /// Events in the recording.
    pub events: u64,
    /// What was found.
    pub verdicts: Vec<Verdict>,
    /// Listeners that had anything to do.
    pub listeners: Vec<ListenerReport>,
    /// Who took ports.
    pub users: Vec<PortUser>,
    /// Namespaces whose ephemeral ports were looked at.
    pub port_spaces: Vec<PortSpace>,
    /// Where connections were made to.
    pub destinations: Vec<Destination>,
    /// Whose SYN-ACKs stayed unanswered.
    pub networks: Vec<NetworkReport>,
    /// Who had the port that was asked for.
    pub holdings: Option<(PortQuestion, Vec<Holding>)>,
    /// The host's own network namespace, as far as it is known.
    pub home: Option<u32>,
    /// Names of namespaces, by their inode numbers.
    pub netns_names: BTreeMap<u32, String>,
    /// What is not observed.
    pub gaps: Vec<Gap>,
    /// What was lost.
    pub losses: Vec<LostEvents>,
    /// What was left out because there was too much: its name, and how many.
    pub left_out: Vec<(&'static str, u64)>,
    /// The counts, and whether they add up.
    pub summary: Summary,
    /// What can be put together with other recordings.
    pub handshakes: Handshakes,
}

impl Report {
    /// A finding's sentence, and where it is if that is not the host's own place.
    pub(super) fn headline(&self, finding: &Finding) -> String {
        match finding.place(self.home) {
            Some(place) => format!("{}, in {place}", finding.title),
            None => finding.title.clone(),
        }
    }
}

/// Something that was not observed, or not every time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gap {
    /// What.
    pub name: String,
    /// polled or missing.
    pub status: &'static str,
    /// Why.
    pub reason: Option<String>,
    /// From when on it was so.
    pub since: Timestamp,
}

/// Events that were lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LostEvents {
    /// What.
    pub what: String,
    /// How many.
    pub count: u64,
    /// Where.
    pub place: &'static str,
    /// Not before.
    pub from: Timestamp,
    /// Not after.
    pub to: Timestamp,
}

/// Takes in events, keeps what a report shows.
pub struct Digest {
    engine: Engine,
    from: Option<Timestamp>,
    to: Option<Timestamp>,
    start: Option<Timestamp>,
    end: Timestamp,
    events: u64,
    verdicts: Verdicts,
    listeners: Listeners,
    ports: Ports,
    port_uses: PortUses,
    networks: Networks,
    question: Option<PortQuestion>,
    holders: Option<Holders>,
    home: Option<u32>,
    gaps: Vec<Gap>,
    losses: Vec<LostEvents>,
    losses_untold: u64,
    handshakes: Option<Handshakes>,
}

impl Digest {
    /// For a report on the time from `from` to `to`; what comes before is taken in all the same, so that it is known.
    pub fn new(from: Option<Timestamp>, to: Option<Timestamp>, question: Option<PortQuestion>) -> Self {
        Self {
            engine: Engine::with(config::thresholds()),
            from,
            to,
            start: None,
            end: Timestamp::default(),
            events: 0,
            verdicts: Verdicts::default(),
            listeners: Listeners::default(),
            ports: Ports::default(),
            port_uses: PortUses::default(),
            networks: Networks::default(),
            question,
            holders: question.map(Holders::new),
            home: None,
            gaps: Vec::new(),
            losses: Vec::new(),
            losses_untold: 0,
            handshakes: None,
        }
    }

    /// Keeps what [`join`](super::join) needs, too.
    #[must_use]
    pub fn to_be_joined(mut self) -> Self {
        self.handshakes = Some(Handshakes::default());
        self
    }

    /// Takes in an event. `false`: it lies behind the report's time, and so does all that follows.
    pub fn note(&mut self, event: &Event) -> bool {
        /// Events of several CPUs come so far out of order.
        const DISORDER: Duration = Duration::from_millis(200);
        let time = event.time;
        if self.to.is_some_and(|to| time > to.after(DISORDER)) {
            return false;
        }
        let start = *self.start.get_or_insert(self.from.map_or(time, |from| from.max(time)));
        self.end = self.end.max(time);
        // What a reader says is missing was not in the recording.
        self.events +=
            u64::from(!matches!(&event.kind, Kind::Lost(lost) if lost.place == LossPlace::Recording));
        let Self { engine, verdicts, .. } = self;
        engine.on_event(event, |finding| verdicts.note(finding));
        if let Some(holders) = &mut self.holders {
            holders.note(event);
        }
        let within = self.from.is_none_or(|from| time >= from) && self.to.is_none_or(|to| time <= to);
        if within && let Some(handshakes) = &mut self.handshakes {
            handshakes.note(event);
        }
        match &event.kind {
            Kind::ListenerSample(sample) => {
                self.listeners.note(time, start, within, sample, self.engine.world());
            }
            Kind::ListenerClosed(closed) => {
                let of = &closed.listener;
                let key = (closed.endpoints.netns, if of.sk != 0 { of.sk } else { of.inode });
                self.listeners.close(time, within, key, closed.last.as_ref());
            }
            Kind::PortTaken(taken) => self.ports.taken(time, start, within, taken),
            Kind::PortReleased(released) => self.ports.released(time, within, released),
            Kind::PortUse(now) => self.port_uses.note(time, start, within, now),
            Kind::PortSurvey(survey) if within => self.port_uses.survey(time, survey),
            Kind::Connect(connect) => self.ports.connected(time, start, within, connect),
            Kind::SynAckRetransmit(again) if within => self.networks.again(time, start, again),
            Kind::RequestEnd(end) if within => self.networks.ended(start, end),
            Kind::Coverage(coverage) => self.covered(time, coverage),
            Kind::Lost(lost) if within => self.lost(lost),
            _ => {}
        }
        true
    }

    fn covered(&mut self, time: Timestamp, coverage: &Coverage) {
        self.home = coverage.host_netns.or(coverage.own_netns);
        self.gaps = coverage
            .observations
            .iter()
            .filter(|of| of.status != ObservationStatus::Attached)
            .map(|of| Gap {
                name: of.name.clone(),
                status: of.status.name(),
                reason: of.reason.clone(),
                since: time,
            })
            .collect();
    }

    fn lost(&mut self, lost: &Lost) {
        if self.losses.len() >= LOSSES {
            self.losses_untold += 1;
            return;
        }
        self.losses.push(LostEvents {
            what: lost.what.clone(),
            count: lost.count,
            place: lost.place.name(),
            from: lost.from,
            to: lost.to,
        });
    }

    /// The report.
    pub fn finish(mut self) -> Report {
        // A time that ends before the recording does ends what is open then, too.
        if self.to.is_some() {
            let end = self.end;
            let Self { engine, verdicts, .. } = &mut self;
            engine.on_event(&Event { time: end, kind: Kind::End }, |finding| verdicts.note(finding));
        }
        let summary = Summary::of(&self.engine);
        let world = self.engine.world();
        let from = self.from.or(self.start).unwrap_or_default();
        let to = self.to.map_or(self.end, |to| to.min(self.end));
        let (verdicts, findings_untold) = self.verdicts.finish(from, to);
        let (listeners, listeners_untold) = self.listeners.finish(world);
        let uses_untold = self.port_uses.untold;
        let (uses, port_spaces) = self.port_uses.finish();
        let (users, destinations, ports_untold) = self.ports.finish(&uses, world.processes());
        let (networks, networks_untold) = self.networks.finish(world.observes(observation::REQUEST_END));
        let left_out = [
            ("findings", findings_untold),
            ("listener samples", listeners_untold),
            ("ports", ports_untold + uses_untold),
            ("unanswered requests", networks_untold),
            ("losses", self.losses_untold),
        ];
        Report {
            from,
            to,
            events: self.events,
            verdicts,
            listeners,
            users,
            port_spaces,
            destinations,
            networks,
            holdings: self.question.zip(self.holders.map(|holders| holders.finish(world))),
            home: self.home,
            netns_names: world.netns_names().map(|(netns, name)| (netns, name.to_owned())).collect(),
            gaps: self.gaps,
            losses: self.losses,
            left_out: left_out.into_iter().filter(|(_, count)| *count > 0).collect(),
            summary,
            handshakes: self.handshakes.unwrap_or_default(),
        }
    }
}
