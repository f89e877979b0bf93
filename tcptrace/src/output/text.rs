//! For people: a finding is printed whole once, then in one line what has changed, ever more seldom, and one line when it is over.
//!
//! Every line fits the screen. On a terminal a line about a finding takes the place of the line before it, if that is about the
//! same finding; and the last line shows that the trace goes on.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::Write;
use std::ops::ControlFlow;
use std::time::Duration;

use jiff::tz::TimeZone;

use crate::correlate::Correlator;
use crate::event::{Coverage, Event, Kind, Lost, ObservationStatus, Timestamp};
use crate::finding::words::{count, span};
use crate::finding::{Confidence, Finding, Severity, Value};

use super::account::{self, Row};
use super::course::{AsFor, Cause, Changes, Course, Tale};
use super::escape::escape;
use super::event_line::EventLine;
use super::lines::Lines;
use super::meaning::Meaning;
use super::screen::Screen;
use super::sink::Written;
use super::summary::Summary;
use super::wrap::{cells, fit, wrap};
use super::zone;

/// How text is to look.
#[derive(Clone, Debug)]
pub struct Look {
    /// In which times are told.
    pub zone: TimeZone,
    /// What it is printed on.
    pub screen: Screen,
    /// Whether the summary lists every counter of the kernel.
    pub counters: bool,
}

impl Look {
    /// On no terminal.
    pub fn plain(zone: TimeZone) -> Self {
        Self { zone, screen: Screen::plain(super::screen::COLUMNS), counters: false }
    }
}

/// Writes text.
#[derive(Debug)]
pub struct TextWriter<W: Write> {
    to: Lines<W>,
    look: Look,
    coverage: Option<Coverage>,
    /// The namespace that all is about, which is not named again with each finding.
    home: Option<u32>,
    watching: bool,
    course: Course,
    /// The findings that the last line is about, if that line can be written anew.
    last: Option<Vec<u64>>,
    /// What has changed and is not yet said.
    changes: Vec<Change>,
    /// Whether the cursor is in a heartbeat.
    beating: bool,
}

/// What has changed of a finding, or of several in the same way.
#[derive(Debug)]
struct Change {
    ids: Vec<u64>,
    code: &'static str,
    time: Timestamp,
    /// How long it was open, if it is over.
    closed: Option<Duration>,
    severity: Option<Severity>,
    confidence: Option<Confidence>,
    meaning: Meaning,
    /// The number that changed first.
    first: String,
    /// All numbers that changed.
    numbers: String,
    /// Cause and remedy, if they are others.
    rows: Vec<Row>,
}

impl Change {
    /// What it is now, and was not before: `CRITICAL`, `certain`.
    fn now(&self) -> String {
        let severity = self.severity.map(|severity| severity.name().to_uppercase());
        let confidence = self.confidence.map(|confidence| confidence.name().to_owned());
        severity.into_iter().chain(confidence).collect::<Vec<_>>().join(", ")
    }

    /// `#7, #8`.
    fn who(&self) -> String {
        self.ids.iter().map(|id| format!("#{id}")).collect::<Vec<_>>().join(", ")
    }

    /// `update #7, #8 accept-stall`, `closed #7 accept-stall, 8.6 s`.
    fn what(&self) -> String {
        match self.closed {
            Some(life) => format!("closed {} {}, {}", self.who(), self.code, span(life)),
            None => format!("update {} {}", self.who(), self.code),
        }
    }

    /// Whether the same is to be said of another finding.
    fn says_the_same_as(&self, other: &Self) -> bool {
        let lives = [self.closed, other.closed].map(|life| life.map(span));
        self.code == other.code
            && lives[0] == lives[1]
            && self.now() == other.now()
            && self.numbers == other.numbers
            && self.rows.is_empty()
            && other.rows.is_empty()
    }
}

/// Those of which the same is to be said as one.
fn merged(changes: Vec<Change>) -> Vec<Change> {
    let mut merged: Vec<Change> = Vec::new();
    for change in changes {
        match merged.iter_mut().find(|known| known.says_the_same_as(&change)) {
            Some(known) => known.ids.extend(change.ids),
            None => merged.push(change),
        }
    }
    merged
}

/// More changes than this at the same moment are said together.
const TOGETHER: usize = 3;

/// Nothing more is in the way.
const GO_ON: Written = Ok(ControlFlow::Continue(()));

/// How far a text that begins with a time stands in where it continues.
const BELOW: &str = "    ";

impl<W: Write> TextWriter<W> {
    /// Writes to `to`.
    pub fn new(to: W, look: Look) -> Self {
        Self {
            to: Lines::new(to, look.screen.colour),
            look,
            coverage: None,
            home: None,
            watching: false,
            course: Course::default(),
            last: None,
            changes: Vec::new(),
            beating: false,
        }
    }

    /// The first line: what is about to happen.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn opening(&mut self, text: &str) -> Written {
        self.paragraph(None, text)
    }

    /// A line of another kind, for which there is no more to do than to go on.
    ///
    /// # Errors
    /// When it cannot be written, or is not read.
    pub fn say(&mut self, text: std::fmt::Arguments<'_>) -> std::io::Result<()> {
        let _gone = self.settle()?;
        self.to.say(text)
    }

    /// A paragraph of another kind.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn note(&mut self, text: &str) -> Written {
        self.paragraph(None, text)
    }

    /// Everything is about this network namespace.
    pub(super) fn at_home(&mut self, netns: u32) {
        self.home = Some(netns);
    }

    /// A verdict: as it should be, or not.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(super) fn verdict(&mut self, good: bool, text: &str) -> Written {
        self.paragraph(Some(if good { Meaning::Good } else { Meaning::Critical }), text)
    }

    /// What is observed: said once it is known of how much.
    pub(super) fn coverage(&mut self, coverage: &Coverage) {
        self.coverage = Some(coverage.clone());
        self.watching = false;
    }

    /// What is watched, and how.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(super) fn watching(&mut self, world: Option<&Correlator>, live: bool) -> Written {
        let Some(coverage) = self.coverage.as_ref().filter(|_| !self.watching) else { return GO_ON };
        self.watching = true;
        let text = watched(coverage, world, live);
        self.paragraph(Some(Meaning::Faint), &text)
    }

    /// That it goes on. For terminals.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(super) fn heartbeat(&mut self, world: &Correlator) -> Written {
        if !self.look.screen.terminal {
            return GO_ON;
        }
        let _gone = self.say_changes()?;
        let _gone = self.stop_beating()?;
        let lasting = world.now().since(world.start());
        let open = match self.course.open() {
            0 => "nothing is wrong now".to_owned(),
            open => format!(
                "{} open",
                count(u64::try_from(open).unwrap_or(u64::MAX), "finding is", "findings are")
            ),
        };
        let text = format!("{} … watching for {} s; {open}", self.clock(world.now()), lasting.as_secs());
        let text = fit(&text, self.columns().saturating_sub(1)).into_owned();
        self.beating = true;
        self.to.unended(&[(Some(Meaning::Faint), &text)])
    }

    /// A finding: all of it, or what has changed of it.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn finding(&mut self, finding: &Finding) -> Written {
        let mut course = std::mem::take(&mut self.course);
        let written = match course.next(finding) {
            Tale::Nothing => GO_ON,
            Tale::Whole { page, as_for } => self.whole(finding, page, as_for),
            Tale::Changed(changes) => self.changed(finding, &changes),
        };
        self.course = course;
        written
    }

    fn whole(&mut self, finding: &Finding, page: bool, as_for: AsFor) -> Written {
        let _gone = self.settle()?;
        let width = self.columns();
        let severity = finding.severity.name().to_uppercase();
        let time = format!("{} ", self.clock(finding.time));
        let place = self.place(finding);
        let headline = escape(&finding.headline()).into_owned();
        let rest = format!("{} #{}  {headline}{}", finding.code, finding.id, escape(&place));
        let lead = format!("{time}{severity} ");
        let mut lines = wrap(&rest, &lead, BELOW, width).into_iter();
        let first = lines.next().unwrap_or_default();
        let rest = first.strip_prefix(lead.as_str()).unwrap_or_default();
        let meaning = Meaning::from(finding.severity);
        let _gone = self.to.parts(&[(None, &time), (Some(meaning), &severity), (None, " "), (None, rest)])?;
        for line in lines {
            let _gone = self.to.line(&line)?;
        }
        let mut rows = match &finding.explained_by {
            // The rest of its numbers comes with its end.
            Some(_) => account::numbers_in_a_line(finding, width),
            None => account::numbers(finding, width),
        };
        let page = page.then(|| account::page(finding));
        match &finding.explained_by {
            // What explains it was printed above, with what to do.
            Some(by) => {
                let sure = match finding.confidence {
                    Confidence::Certain => "",
                    confidence => &format!(", {}", confidence.name()),
                };
                let related = format!("#{} {} explains it ({}{sure})", by.id, by.code, finding.cause);
                rows.extend(account::labelled("see", [related], width));
            }
            None => {
                rows.extend(account::cause(finding, width));
                rows.extend(account::advice(finding, as_for, width));
                rows.extend(account::labelled("see", page, width));
            }
        }
        self.rows(&rows)
    }

    /// What has changed waits for the end of the batch: what changes at the same moment may be said together.
    fn changed(&mut self, finding: &Finding, changes: &Changes<'_>) -> Written {
        let width = self.columns();
        let mut rows = Vec::new();
        match &changes.cause {
            Some(Cause::Other) => rows.extend(account::cause(finding, width)),
            Some(Cause::More(more)) => {
                rows.extend(account::labelled("cause", [format!("also: {more}")], width));
            }
            None => {}
        }
        let mut numbers = changes.numbers.join("; ");
        let mut first =
            changes.numbers.first().and_then(|clause| clause.split(", ").next()).map(str::to_owned);
        if let Some(by) = finding.explained_by.as_ref().filter(|_| changes.explained) {
            let related = format!("#{} {} explains it", by.id, by.code);
            numbers = if numbers.is_empty() { related.clone() } else { format!("{related}; {numbers}") };
            first = Some(related);
        }
        rows.extend(account::remedies(&changes.remedies, width));
        self.changes.push(Change {
            ids: vec![finding.id],
            code: finding.code,
            time: finding.time,
            closed: changes.closed,
            severity: changes.severity,
            confidence: changes.confidence,
            meaning: Meaning::from(finding.severity),
            first: first.unwrap_or_default(),
            numbers,
            rows,
        });
        GO_ON
    }

    /// Says what has changed: a line each, or, if much has changed in the same way, all together.
    fn say_changes(&mut self) -> Written {
        let mut changes = std::mem::take(&mut self.changes);
        let alone = |change: &Change| !change.rows.is_empty();
        for change in changes.extract_if(.., |change| alone(change)) {
            let _gone = self.change(&change)?;
        }
        let mut changes = merged(changes);
        let together = changes.len() > TOGETHER;
        for closed in [false, true] {
            let of: Vec<Change> =
                changes.extract_if(.., |change| change.closed.is_some() == closed).collect();
            if together && of.len() > 1 {
                let _gone = self.together(&of)?;
            } else {
                for change in &of {
                    let _gone = self.change(change)?;
                }
            }
        }
        GO_ON
    }

    fn change(&mut self, change: &Change) -> Written {
        let what = change.what();
        let severity = change.now();
        let gap = if severity.is_empty() { "" } else { ", now " };
        let time = format!("{} ", self.clock(change.time));
        let colon = if change.numbers.is_empty() { "" } else { ": " };
        let room = self.columns().saturating_sub(cells(&format!("{time}{what}{gap}{severity}{colon}")));
        let numbers = escape(&change.numbers).into_owned();
        let numbers = fit(&numbers, room);
        let _gone = self.stop_beating()?;
        if self.last.as_ref() == Some(&change.ids) && self.look.screen.terminal {
            let _gone = self.to.take_back(1)?;
        }
        let parts = [
            (None, time.as_str()),
            (Some(Meaning::Label), what.as_str()),
            (None, gap),
            (Some(change.meaning), severity.as_str()),
            (None, colon),
            (None, &*numbers),
        ];
        let _gone = self.to.parts(&parts)?;
        self.last = change.rows.is_empty().then(|| change.ids.clone());
        self.rows(&change.rows)
    }

    /// Of each what has changed most, and of several with the same words once: `update: #6, #8 8, #9 7 SYNs from 1 address; #7 …`.
    fn together(&mut self, changes: &[Change]) -> Written {
        let Some(first) = changes.first() else { return GO_ON };
        let what = if first.closed.is_some() { "closed" } else { "update" };
        let mut same: Vec<Alike<'_>> = Vec::new();
        for change in changes {
            let now = Some(change.now()).filter(|now| !now.is_empty());
            let (number, words) = amount(if change.first.is_empty() { "as before" } else { &change.first });
            match same.iter_mut().find(|known| known.now == now && known.words == words) {
                Some(known) => known.add(&change.ids, number),
                None => same.push(Alike { now, numbers: vec![(number, change.ids.clone())], words }),
            }
        }
        let items: Vec<String> = same.iter().map(ToString::to_string).collect();
        let text = format!("{} {what}: {}", self.clock(first.time), items.join("; "));
        self.last = None;
        let _gone = self.stop_beating()?;
        for line in wrap(&escape(&text), "", BELOW, self.columns()) {
            let _gone = self.to.line(&line)?;
        }
        GO_ON
    }

    /// An event that the kernel side reported; others are no lines of output. `world` names containers.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn event(&mut self, event: &Event, world: &Correlator) -> Written {
        if let Kind::Lost(lost) = &event.kind {
            return self.lost(lost);
        }
        let Some(line) = EventLine::of(event, world) else { return GO_ON };
        let mut text = format!("{} {}", self.clock(line.time), line.event);
        if let Some(process) = &line.process {
            let _ = write!(text, " {process}");
        }
        let _ = write!(text, " {}", line.local);
        if let Some(remote) = line.remote {
            let _ = write!(text, " <-> {remote}");
        }
        for (name, value) in line.facts.iter() {
            if let Some(value) = value_in_words(value) {
                let _ = write!(text, " {name}={value}");
            }
        }
        self.paragraph(None, &text)
    }

    /// Events that were lost.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn lost(&mut self, lost: &Lost) -> Written {
        let (time, count, what) = (self.clock(lost.to), lost.count, &lost.what);
        let line = format!("{time} lost {count} {what}: {}", lost.place.in_words());
        self.paragraph(Some(Meaning::Warning), &line)
    }

    /// The last words.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn summary(&mut self, summary: &Summary) -> Written {
        for (meaning, text) in summary.in_words(self.look.counters) {
            let _gone = self.paragraph(meaning, &text)?;
        }
        GO_ON
    }

    /// Passes on what was written so far.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn flush(&mut self) -> Written {
        let _gone = self.say_changes()?;
        self.to.flush()
    }

    /// The writer.
    pub fn into_inner(mut self) -> W {
        // A writer that has gone needs to hear no more.
        let _gone = self.say_changes();
        self.to.into_inner()
    }

    /// Time of day: `19:40:12.031`.
    fn clock(&self, time: Timestamp) -> String {
        zone::clock(&self.look.zone, time)
    }

    fn columns(&self) -> usize {
        self.look.screen.columns()
    }

    /// Where a finding is, if that is not the host's own place: ` in docker:4c01db0b339c, netns 4026532943`.
    fn place(&self, finding: &Finding) -> String {
        let host = self.coverage.as_ref().and_then(|coverage| coverage.host_netns.or(coverage.own_netns));
        finding.place(self.home.or(host)).map(|place| format!(" in {place}")).unwrap_or_default()
    }

    /// A text that may hold anything, which continues further in.
    fn paragraph(&mut self, meaning: Option<Meaning>, text: &str) -> Written {
        let _gone = self.settle()?;
        for line in wrap(&escape(text), "", BELOW, self.columns()) {
            if self.to.parts(&[(meaning, &line)])?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        GO_ON
    }

    fn rows(&mut self, rows: &[Row]) -> Written {
        self.to.rows(rows)
    }

    /// What comes now comes below what is there.
    fn settle(&mut self) -> Written {
        let _gone = self.say_changes()?;
        self.last = None;
        self.stop_beating()
    }

    fn stop_beating(&mut self) -> Written {
        if std::mem::take(&mut self.beating) {
            return self.to.take_back(0);
        }
        GO_ON
    }
}

/// Changes in the same words, of findings that have the same number in front of them, or each its own.
struct Alike<'a> {
    now: Option<String>,
    numbers: Vec<(&'a str, Vec<u64>)>,
    words: &'a str,
}

impl<'a> Alike<'a> {
    fn add(&mut self, ids: &[u64], number: &'a str) {
        match self.numbers.iter_mut().find(|(known, _)| *known == number) {
            Some((_, of)) => of.extend(ids),
            None => self.numbers.push((number, ids.to_vec())),
        }
    }
}

impl std::fmt::Display for Alike<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let now = self.now.as_ref().map_or_else(String::new, |now| format!(" now {now}:"));
        let of = |(number, ids): &(&str, Vec<u64>)| {
            let ids: Vec<String> = ids.iter().map(|id| format!("#{id}")).collect();
            format!("{}{now}{}{number}", ids.join(", "), if number.is_empty() { "" } else { " " })
        };
        write!(f, "{} {}", self.numbers.iter().map(of).collect::<Vec<_>>().join(", "), self.words)
    }
}

/// The number that a text begins with, and the rest.
fn amount(text: &str) -> (&str, &str) {
    match text.split_once(' ') {
        Some((number, rest)) if number.bytes().all(|byte| byte.is_ascii_digit()) => (number, rest),
        _ => ("", text),
    }
}

/// `watching 12 listeners in 3 namespaces, tier fexit, 22 of 22; Ctrl-C ends`.
fn watched(coverage: &Coverage, world: Option<&Correlator>, live: bool) -> String {
    let with = |status: ObservationStatus| -> Vec<&str> {
        let of = coverage.observations.iter().filter(|observation| observation.status == status);
        of.map(|observation| observation.name.as_str()).collect()
    };
    let of_what = match world {
        Some(world) => format!("{} {}", if live { "watching" } else { "watched:" }, listeners(world)),
        None => "observed".to_owned(),
    };
    let mut text = format!(
        "{of_what}, tier {}, {} of {}",
        coverage.tier.name(),
        with(ObservationStatus::Attached).len(),
        coverage.observations.len()
    );
    for (words, names) in
        [("polled", with(ObservationStatus::Polled)), ("missing", with(ObservationStatus::Missing))]
    {
        if !names.is_empty() {
            let _ = write!(text, "; {words}: {}", names.join(", "));
        }
    }
    for hindrance in &coverage.hindrances {
        let _ = write!(text, "; {hindrance}");
    }
    let only: Vec<&str> = coverage.scope.iter().chain(&coverage.filters).map(String::as_str).collect();
    if !only.is_empty() {
        let _ = write!(text, "; only {}", only.join(" "));
    }
    if live {
        text.push_str("; Ctrl-C ends");
    }
    text
}

/// `12 listeners in 3 namespaces`.
fn listeners(world: &Correlator) -> String {
    let number = |of: usize| u64::try_from(of).unwrap_or(u64::MAX);
    let places: Vec<u32> = world.listeners().iter().map(|listener| listener.endpoints.netns).collect();
    let spaces: BTreeSet<u32> = places.iter().copied().collect();
    if places.is_empty() {
        return "for listeners (there is none yet)".to_owned();
    }
    format!(
        "{} in {}",
        count(number(places.len()), "listener", "listeners"),
        count(number(spaces.len()), "namespace", "namespaces")
    )
}

/// A value that is no party; `None` if it is not known.
pub(crate) fn value_in_words(value: &Value) -> Option<String> {
    match value {
        Value::Number(number) => Some(number.to_string()),
        Value::Measure(measure) => Some(measure.to_string()),
        Value::Flag(flag) => Some(flag.to_string()),
        Value::Text(text) => Some(text.clone()),
        Value::Texts(texts) => Some(texts.join(" ")),
        Value::Range(range) => Some(range.to_string()),
        Value::Ports(ports) => Some(ports.to_string()),
        Value::Options(options) => Some(options.to_string()),
        Value::Endpoint(at) => Some(at.to_string()),
        Value::Unknown(()) | Value::Party(_) | Value::Parties(_) => None,
    }
}

#[cfg(test)]
mod tests;
