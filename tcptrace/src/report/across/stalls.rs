//! What stalled at clients, summed up by destination and by what a server did.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use crate::event::{Owner, Timestamp};
use crate::finding::{Confidence, Party};
use crate::record::Metadata;
use crate::report::{Report, Verdict};

use super::cause::{self, Deeds, client_steps, deed_words};
use super::clocks::{Offset, fits};
use super::handshakes::{Attempt, Ends, Visit};
use super::hosts::{Table, other_end};

/// Findings of clients that a server may explain.
const AT_CLIENTS: &[&str] = &["syn-unanswered", "connect-refused"];

/// Findings of servers that explain a client's stall even where the connection itself was not recorded there.
const AT_SERVERS: &[&str] = &["accept-queue-overflow", "syn-queue-full", "handshake-dropped", "no-listener"];

/// Clocks of hosts that are not compared are not further apart than this, or nothing is said.
const DRIFT: Duration = Duration::from_secs(2);

/// Connects of one host to one destination that stalled for one reason.
#[derive(Clone, Debug)]
pub struct Stall {
    /// The recording made at the client.
    pub client_recording: String,
    /// The process that connects most often of these: `curl[815]`.
    pub client: String,
    /// The same process.
    pub client_process: Option<Owner>,
    /// Network namespace of the clients.
    pub client_netns: u32,
    /// Its name, if it has one.
    pub client_netns_name: Option<String>,
    /// Where it connects to.
    pub destination: SocketAddr,
    /// What was found at the client about this destination.
    pub client_finding: Option<&'static str>,
    /// Its connects to this destination that stalled or failed, for whatever reason.
    pub stalled: u64,
    /// Of these: those that this server was seen to treat so.
    pub matched: u64,
    /// The recording made at the server.
    pub server_recording: String,
    /// Why, as the code of a finding; lost-on-the-way: the server did not see the SYNs that were sent in vain.
    pub code: &'static str,
    /// How sure that is: certain where the very connection was seen at both ends and their clocks were compared.
    pub confidence: Confidence,
    /// What the server did with them, counted: `25 SYNs dropped`.
    pub deeds: String,
    /// What was found at the server, in one sentence.
    pub server_finding: Option<String>,
    /// The cause that was found there.
    pub server_cause: Option<&'static str>,
    /// How long the longest of them took, ms.
    pub longest_ms: Option<f64>,
    /// What happened to that one at both ends.
    pub course: Vec<Step>,
}

/// A moment of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// When: by the client's clock, unless `own_clock`.
    pub time: Timestamp,
    /// By the recording's own clock, which could not be compared with the client's.
    pub own_clock: bool,
    /// Whose recording says so.
    pub recording: String,
    /// What.
    pub what: String,
}

/// What another host's recording says about a client's finding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Elsewhere {
    /// That recording.
    pub recording: String,
    /// The finding there.
    pub code: &'static str,
    /// Its cause.
    pub cause: Option<&'static str>,
    /// Its sentence, or what was seen.
    pub title: String,
    /// How sure it is that it explains this one.
    pub confidence: Confidence,
}

/// For which recording and which of its verdicts.
pub(super) type Told = (usize, usize, Elsewhere);

type Recordings<'a, 'b> = &'a [(&'b Metadata, &'b mut Report)];

/// A client's host, its namespace, and where it connects to.
type Route = (usize, u32, SocketAddr);

/// Connects that stalled on a route.
#[derive(Default)]
struct Group<'a> {
    stalled: u64,
    people: BTreeMap<(String, u32), u64>,
    /// Those that no server was seen to treat in a way that explains it.
    unexplained: Vec<&'a Attempt>,
    /// By server and what it did.
    matched: BTreeMap<(usize, &'static str), Vec<(&'a Attempt, &'a Visit)>>,
}

/// Every stall, and what it says about the clients' verdicts.
pub(super) fn find(
    recordings: Recordings<'_, '_>,
    names: &[String],
    table: &Table,
) -> (Vec<Stall>, Vec<Told>) {
    let (mut stalls, mut told) = (Vec::new(), Vec::new());
    for (route, group) in groups(recordings, table) {
        let of = Of { recordings, names, table, route, group: &group };
        let explained = group.matched.iter().map(|((server, code), pairs)| of.seen(*server, code, pairs));
        let likely = if group.unexplained.is_empty() { Vec::new() } else { of.likely() };
        for stall in explained.chain(likely) {
            told.extend(of.told(&stall));
            stalls.push(stall);
        }
    }
    stalls.sort_by(|a, b| {
        (b.confidence, b.matched, b.stalled).cmp(&(a.confidence, a.matched, a.stalled)).then_with(|| {
            (&a.client_recording, a.destination, a.code).cmp(&(&b.client_recording, b.destination, b.code))
        })
    });
    (stalls, told)
}

fn groups<'a>(recordings: Recordings<'a, 'a>, table: &Table) -> BTreeMap<Route, Group<'a>> {
    let mut groups: BTreeMap<Route, Group<'a>> = BTreeMap::new();
    for (client, (_, report)) in recordings.iter().enumerate() {
        for (ends, attempts) in report.handshakes.attempts() {
            for attempt in attempts {
                let found = counterpart(recordings, table, client, ends, attempt, attempts.len() == 1);
                let explained = found.and_then(|(server, visit)| {
                    let (_, there) = recordings.get(server)?;
                    Some((server, visit, cause::code(attempt, visit, &there.gaps)?))
                });
                // Both ends are in this recording: its own findings say what happened there.
                let within = report.handshakes.visits_of(ends).is_some();
                if within || (explained.is_none() && !attempt.is_troubled()) {
                    continue;
                }
                let group = groups.entry((client, attempt.netns, ends.server)).or_default();
                group.stalled += 1;
                if attempt.pid != 0 {
                    *group.people.entry((attempt.comm.clone(), attempt.pid)).or_default() += 1;
                }
                match explained {
                    Some((server, visit, code)) => {
                        group.matched.entry((server, code)).or_default().push((attempt, visit));
                    }
                    None => group.unexplained.push(attempt),
                }
            }
        }
    }
    groups
}

/// What another recording saw of an attempt at its server. Where the clocks are not compared, only where there can be no
/// mistake: its port was used once.
fn counterpart<'a>(
    recordings: Recordings<'a, 'a>,
    table: &Table,
    client: usize,
    ends: &Ends,
    attempt: &Attempt,
    only: bool,
) -> Option<(usize, &'a Visit)> {
    (0..recordings.len()).find_map(|server| {
        let visits = other_end(recordings, client, server, ends)?;
        let visit = match table.offset(client, server) {
            Some(offset) => visits.iter().find(|visit| fits(attempt, visit, offset)),
            None => visits.front().filter(|_| only && visits.len() == 1),
        };
        Some((server, visit?))
    })
}

/// A route and what stalled on it.
struct Of<'a> {
    recordings: Recordings<'a, 'a>,
    names: &'a [String],
    table: &'a Table,
    route: Route,
    group: &'a Group<'a>,
}

impl Of<'_> {
    fn name(&self, recording: usize) -> String {
        self.names.get(recording).cloned().unwrap_or_default()
    }

    fn offset(&self, server: usize) -> Option<Offset> {
        self.table.offset(self.route.0, server)
    }

    /// A verdict of the client about this destination, and its place among the verdicts.
    fn verdict_at_client(&self) -> Option<(usize, &Verdict)> {
        let (client, netns, destination) = self.route;
        let (_, report) = self.recordings.get(client)?;
        report.verdicts.iter().enumerate().find(|(_, verdict)| {
            let of = &verdict.finding;
            AT_CLIENTS.contains(&of.code)
                && of.subject.address == Some(destination)
                && of.subject.netns.is_none_or(|of| of == netns)
        })
    }

    fn stall(&self, server: usize, code: &'static str, confidence: Confidence) -> Stall {
        let (client, netns, destination) = self.route;
        let most = self.group.people.iter().max_by_key(|(_, count)| **count);
        Stall {
            client_recording: self.name(client),
            client: most
                .map_or_else(|| "unknown process".to_owned(), |((comm, pid), _)| format!("{comm}[{pid}]")),
            client_process: most.map(|((comm, pid), _)| Owner { pid: *pid, comm: comm.clone() }),
            client_netns: netns,
            client_netns_name: self
                .recordings
                .get(client)
                .and_then(|(_, of)| of.netns_names.get(&netns).cloned()),
            destination,
            client_finding: self.verdict_at_client().map(|(_, verdict)| verdict.finding.code),
            stalled: self.group.stalled,
            matched: 0,
            server_recording: self.name(server),
            code,
            confidence,
            deeds: String::new(),
            server_finding: None,
            server_cause: None,
            longest_ms: None,
            course: Vec::new(),
        }
    }

    /// Connections that were seen at both ends.
    fn seen(&self, server: usize, code: &'static str, pairs: &[(&Attempt, &Visit)]) -> Stall {
        let offset = self.offset(server);
        let confidence = if offset.is_some() { Confidence::Certain } else { Confidence::Likely };
        let mut stall = self.stall(server, code, confidence);
        stall.matched = u64::try_from(pairs.len()).unwrap_or(u64::MAX);
        let mut deeds = Deeds::default();
        pairs.iter().for_each(|(_, visit)| deeds.add(visit));
        stall.deeds = deeds.words();
        let took = |attempt: &Attempt| Some(attempt.last()?.since(attempt.first()?));
        // Of equals the earliest, so that it is always the same one.
        let longest =
            pairs.iter().max_by_key(|(attempt, _)| (took(attempt), std::cmp::Reverse(attempt.first())));
        if let Some((attempt, visit)) = longest {
            stall.longest_ms = took(attempt).map(|time| (time.as_secs_f64() * 1e6).round() / 1e3);
            stall.course = self.course(server, attempt, visit, offset);
        }
        let netns = pairs.first().map(|(_, visit)| visit.netns);
        if let Some(verdict) = self.verdict_at(server, code, netns, |_| true) {
            stall.server_finding = Some(verdict.finding.title.clone());
            stall.server_cause = Some(verdict.finding.cause);
        }
        stall
    }

    /// Servers that were in trouble at the time, though the connections themselves are not in their recordings.
    fn likely(&self) -> Vec<Stall> {
        let (client, _, destination) = self.route;
        let times =
            || self.group.unexplained.iter().filter_map(|attempt| Some((attempt.first()?, attempt.last()?)));
        let Some((first, last)) = times().reduce(|(first, last), (from, to)| (first.min(from), last.max(to)))
        else {
            return Vec::new();
        };
        let mut stalls = Vec::new();
        for (server, (_, report)) in
            self.recordings.iter().enumerate().filter(|(server, _)| *server != client)
        {
            // It is that server if somebody was seen to call it by this address.
            let Some(netns) = report.handshakes.called_at(destination) else { continue };
            let Some(offset) = self.offset(server) else { continue };
            let overlaps = |verdict: &Verdict| {
                offset.undo(verdict.opened) <= last.after(DRIFT)
                    && offset.undo(verdict.until).after(DRIFT) >= first
            };
            for code in AT_SERVERS {
                if let Some(verdict) = self.verdict_at(server, code, Some(netns), overlaps) {
                    let mut stall = self.stall(server, code, Confidence::Likely);
                    stall.server_finding = Some(verdict.finding.title.clone());
                    stall.server_cause = Some(verdict.finding.cause);
                    stalls.push(stall);
                    break;
                }
            }
        }
        // What was seen of other connections of this route says more.
        stalls.retain(|stall| {
            !self
                .group
                .matched
                .keys()
                .any(|(server, code)| self.name(*server) == stall.server_recording && *code == stall.code)
        });
        stalls
    }

    fn verdict_at(
        &self,
        server: usize,
        code: &str,
        netns: Option<u32>,
        also: impl Fn(&Verdict) -> bool,
    ) -> Option<&Verdict> {
        let (_, report) = self.recordings.get(server)?;
        report.verdicts.iter().find(|verdict| {
            let subject = &verdict.finding.subject;
            verdict.finding.code == code
                && (netns.is_none() || subject.netns.is_none() || subject.netns == netns)
                && is_at(subject, self.route.2)
                && also(verdict)
        })
    }

    fn course(&self, server: usize, attempt: &Attempt, visit: &Visit, offset: Option<Offset>) -> Vec<Step> {
        let step = |time, recording, what, own_clock| Step {
            time,
            own_clock,
            recording: self.name(recording),
            what,
        };
        let at_client =
            client_steps(attempt).into_iter().map(|(time, what)| step(time, self.route.0, what, false));
        let at_server = visit.deeds.iter().map(|(time, deed)| {
            let own = offset.map_or(*time, |offset| offset.undo(*time));
            step(own, server, deed_words(deed), offset.is_none())
        });
        let mut course: Vec<Step> = at_client.chain(at_server).collect();
        course.sort_by_key(|step| (step.own_clock, step.time));
        course
    }

    /// What the client's verdict learns by this.
    fn told(&self, stall: &Stall) -> Option<Told> {
        let (place, _) = self.verdict_at_client()?;
        let seen = || match stall.code {
            cause::LOST_ON_THE_WAY => {
                format!("the SYNs that were sent in vain never reached {}", self.route.2)
            }
            _ => stall.deeds.clone(),
        };
        let elsewhere = Elsewhere {
            recording: stall.server_recording.clone(),
            code: stall.code,
            cause: stall.server_cause,
            title: stall.server_finding.clone().unwrap_or_else(seen),
            confidence: stall.confidence,
        };
        Some((self.route.0, place, elsewhere))
    }
}

/// Whether a server's finding is about connections to `destination`.
fn is_at(subject: &Party, destination: SocketAddr) -> bool {
    let address = |of: SocketAddr| {
        of.port() == destination.port() && (of.ip() == destination.ip() || of.ip().is_unspecified())
    };
    match (subject.address, subject.port) {
        (Some(of), _) => address(of),
        (None, Some(port)) => port == destination.port(),
        (None, None) => true,
    }
}
