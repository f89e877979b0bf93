//! What live text says of a finding in the course of its life: all of it once, then only what has changed, ever more seldom.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::event::Timestamp;
use crate::finding::{Confidence, Finding, Remedy, Severity, State};

/// When in its life a finding's numbers are said again, seconds.
const SCHEDULE: [u64; 5] = [1, 5, 30, 300, 1800];
/// After that: every hour.
const LATER: u64 = 3600;

/// With more findings open than this, numbers that only went on changing are said together: this long after the last ones, and
/// of many after a time in which two a second could have been said.
const CROWD: usize = 3;
const CROWD_PACE: Duration = Duration::from_secs(5);
const CROWD_PACE_EACH: Duration = Duration::from_millis(500);
/// What a poll brings at once arrives within this time.
const AT_ONCE: Duration = Duration::from_millis(100);

/// Several kinds of findings that begin together name one page: how to read on about the others is the same command.
const BURST: Duration = Duration::from_secs(60);
/// Advice that was given this long ago is given in full again: it is far up.
const FAR_UP: Duration = Duration::from_secs(600);

/// What has been said of the findings that are open.
#[derive(Debug, Default)]
pub(crate) struct Course {
    open: BTreeMap<u64, Said>,
    /// Kinds of findings whose page has been named.
    pages: BTreeSet<&'static str>,
    /// When a page was named last.
    named: Option<Timestamp>,
    /// When numbers were said last that are not urgent.
    numbers: Option<Timestamp>,
    /// The advice that was given in full, by kind of finding and cause.
    advice: BTreeMap<Topic, Given>,
}

/// Kind of finding, cause, and whether it is what not to do.
type Topic = (&'static str, &'static str, bool);

/// Advice that was given in full.
#[derive(Debug)]
struct Given {
    with: u64,
    time: Timestamp,
    words: Vec<String>,
}

/// The findings with which the same was said in full, if it was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct AsFor {
    /// What to do.
    pub(crate) what: Option<u64>,
    /// What not to do.
    pub(crate) not: Option<u64>,
}

/// What is to be said of a report of a finding.
#[derive(Debug, PartialEq)]
pub(crate) enum Tale<'a> {
    /// All of it; its page, unless that was named before; and the finding with which the same advice was given, if it was.
    Whole { page: bool, as_for: AsFor },
    /// Nothing: it was said lately, or is as it was.
    Nothing,
    /// What has changed.
    Changed(Changes<'a>),
}

/// What has changed since it was said.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Changes<'a> {
    /// Of a finding that is over: how long it was open.
    pub(crate) closed: Option<Duration>,
    /// The severity, if it is another.
    pub(crate) severity: Option<Severity>,
    /// The numbers that are others, a clause each.
    pub(crate) numbers: Vec<&'a str>,
    /// The confidence in the cause, if it is another and the cause is the same.
    pub(crate) confidence: Option<Confidence>,
    /// The cause, if it is another or more is known of it.
    pub(crate) cause: Option<Cause<'a>>,
    /// Remedies that are new; all of them if one is no longer right.
    pub(crate) remedies: Vec<&'a Remedy>,
    /// The finding that explains it, if none did before.
    pub(crate) explained: bool,
}

/// A cause that has changed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Cause<'a> {
    /// It is another.
    Other,
    /// More is known of it: what has been added.
    More(&'a str),
}

#[derive(Debug)]
struct Said {
    opened: Timestamp,
    /// How many times of [`SCHEDULE`] are past.
    past: usize,
    severity: Severity,
    confidence: Confidence,
    cause: &'static str,
    explanation: String,
    /// The numbers as they were when all was said.
    first: Vec<String>,
    /// The numbers as they were said last.
    numbers: Vec<String>,
    remedies: Vec<Remedy>,
    explained: bool,
}

impl Course {
    /// What is to be said of `finding`, which is then taken for said.
    pub(crate) fn next<'a>(&mut self, finding: &'a Finding) -> Tale<'a> {
        let must_wait = self.must_wait(finding.time);
        let Some(said) = self.open.get_mut(&finding.id) else {
            if finding.state != State::Closed {
                self.open.insert(finding.id, Said::of(finding));
            }
            return Tale::Whole { page: self.page(finding), as_for: self.advised(finding) };
        };
        let life = finding.time.since(said.opened);
        let due = said.is_due(life);
        let changes = said.changes(finding, life);
        if changes.closed.is_some() {
            self.open.remove(&finding.id);
            return Tale::Changed(changes);
        }
        // A finding that another one explains goes on with it.
        let news = !changes.numbers.is_empty() || changes.cause.is_some() || !changes.remedies.is_empty();
        let due = due && !said.explained && news && !must_wait;
        if !changes.is_urgent() && !due {
            return Tale::Nothing;
        }
        if !changes.is_urgent() {
            self.numbers = Some(finding.time);
        }
        said.take_over(finding, life);
        Tale::Changed(changes)
    }

    /// Whether the page of this kind is to be named now.
    fn page(&mut self, finding: &Finding) -> bool {
        let in_a_burst = self.named.is_some_and(|named| finding.time.since(named) < BURST);
        // What explains it is where its page would lead.
        let page = finding.explained_by.is_none() && !in_a_burst && self.pages.insert(finding.code);
        if page {
            self.named = Some(finding.time);
        }
        page
    }

    /// Whether numbers that only went on changing wait for the next time that all are said together.
    fn must_wait(&self, now: Timestamp) -> bool {
        let open = self.open.len();
        let each = CROWD_PACE_EACH.saturating_mul(u32::try_from(open).unwrap_or(u32::MAX));
        let lately = |said: Timestamp| (AT_ONCE..CROWD_PACE.max(each)).contains(&now.since(said));
        open > CROWD && self.numbers.is_some_and(lately)
    }

    /// The findings with which the same advice was given lately, in the same words. Otherwise this is now the one.
    fn advised(&mut self, finding: &Finding) -> AsFor {
        if finding.explained_by.is_some() {
            return AsFor::default();
        }
        AsFor { what: self.given(finding, false), not: self.given(finding, true) }
    }

    fn given(&mut self, finding: &Finding, not: bool) -> Option<u64> {
        let of = finding.remedy.iter().filter(|remedy| remedy.not == not);
        let words: Vec<String> = of.map(|remedy| remedy.text.clone()).collect();
        let topic = (finding.code, finding.cause, not);
        match self.advice.get(&topic) {
            Some(given) if given.words == words && finding.time.since(given.time) < FAR_UP => {
                Some(given.with)
            }
            _ => {
                self.advice.insert(topic, Given { with: finding.id, time: finding.time, words });
                None
            }
        }
    }

    /// How many findings are open.
    pub(crate) fn open(&self) -> usize {
        self.open.len()
    }
}

impl Changes<'_> {
    /// Whether what was said is no longer right. What only adds to it is said with the next numbers.
    fn is_urgent(&self) -> bool {
        self.severity.is_some()
            || self.confidence.is_some()
            || self.cause == Some(Cause::Other)
            || self.explained
    }
}

impl Said {
    fn of(finding: &Finding) -> Self {
        Self {
            opened: finding.time,
            past: 0,
            severity: finding.severity,
            confidence: finding.confidence,
            cause: finding.cause,
            explanation: finding.explanation.clone(),
            first: clauses_of(finding).map(str::to_owned).collect(),
            numbers: clauses_of(finding).map(str::to_owned).collect(),
            remedies: finding.remedy.clone(),
            explained: finding.explained_by.is_some(),
        }
    }

    fn is_due(&self, life: Duration) -> bool {
        // Updates come with the ticks of a second, which may be a little early.
        life + Duration::from_millis(50) >= self.next()
    }

    fn next(&self) -> Duration {
        Duration::from_secs(SCHEDULE.get(self.past).copied().unwrap_or_else(|| {
            let hours = u64::try_from(self.past - SCHEDULE.len()).unwrap_or(u64::MAX);
            hours.saturating_add(1).saturating_mul(LATER)
        }))
    }

    fn take_over(&mut self, finding: &Finding, life: Duration) {
        let mut said = Self { opened: self.opened, past: self.past, ..Self::of(finding) };
        said.first = std::mem::take(&mut self.first);
        // What was held back stands as it was said.
        if self.says_more(finding) {
            said.explanation = std::mem::take(&mut self.explanation);
        }
        if self.new_remedies(finding).is_empty() {
            said.remedies = std::mem::take(&mut self.remedies);
        }
        *self = said;
        while self.is_due(life) {
            self.past += 1;
        }
    }

    fn changes<'a>(&self, finding: &'a Finding, life: Duration) -> Changes<'a> {
        let explained = finding.explained_by.is_some();
        let closed = finding.state == State::Closed;
        // The last numbers are said in full.
        let said = if closed { &self.first } else { &self.numbers };
        Changes {
            closed: closed.then_some(life),
            severity: (finding.severity != self.severity).then_some(finding.severity),
            numbers: clauses_of(finding).filter(|clause| !said.iter().any(|said| said == clause)).collect(),
            confidence: (finding.confidence != self.confidence && finding.cause == self.cause)
                .then_some(finding.confidence),
            // What explains it says why, and what to do.
            cause: self.cause(finding, closed).filter(|_| !explained),
            remedies: self.remedies(finding, closed),
            explained: explained && !self.explained,
        }
    }

    /// Whether the same was said, and more: what is not known at the moment (a rate, while nothing happens) often comes back, so
    /// that it is taken back only at the end.
    fn says_more(&self, finding: &Finding) -> bool {
        finding.cause == self.cause
            && self.explanation.len() > finding.explanation.len()
            && self.explanation.starts_with(&finding.explanation)
    }

    fn cause<'a>(&self, finding: &'a Finding, closed: bool) -> Option<Cause<'a>> {
        if finding.cause != self.cause {
            return Some(Cause::Other);
        }
        if alike(&finding.explanation, &self.explanation) || self.says_more(finding) && !closed {
            return None;
        }
        let more = finding.explanation.strip_prefix(self.explanation.as_str());
        let more = more.and_then(|more| more.strip_prefix(". ").or_else(|| more.strip_prefix("; ")));
        Some(more.map_or(Cause::Other, Cause::More))
    }

    fn new_remedies<'a>(&self, finding: &'a Finding) -> Vec<&'a Remedy> {
        let known = |remedy: &Remedy| self.remedies.iter().any(|said| are_the_same(said, remedy));
        finding.remedy.iter().filter(|remedy| !known(remedy)).collect()
    }

    /// Those that are new; all, if one that was said is no longer right.
    fn remedies<'a>(&self, finding: &'a Finding, closed: bool) -> Vec<&'a Remedy> {
        let stands = |said: &Remedy| finding.remedy.iter().any(|remedy| are_the_same(remedy, said));
        let new = self.new_remedies(finding);
        let explained = finding.explained_by.is_some();
        if explained || self.remedies.iter().all(stands) || new.is_empty() && !closed {
            return new;
        }
        finding.remedy.iter().collect()
    }
}

fn are_the_same(one: &Remedy, other: &Remedy) -> bool {
    one.command == other.command && one.not == other.not && alike(&one.text, &other.text)
}

/// The numbers of a finding in clauses, each of which changes by itself.
fn clauses_of(finding: &Finding) -> impl Iterator<Item = &str> {
    finding.numbers.iter().flat_map(|line| clauses(line))
}

/// `line` at its semicolons, but for those within parentheses.
pub(crate) fn clauses(line: &str) -> impl Iterator<Item = &str> {
    let mut left = Some(line);
    std::iter::from_fn(move || {
        let text = left.take()?;
        let mut deep = 0_i32;
        for (at, character) in text.char_indices() {
            match character {
                '(' => deep += 1,
                ')' => deep -= 1,
                ';' if deep <= 0 => {
                    let (clause, rest) = text.split_at(at);
                    left = rest.strip_prefix("; ");
                    // A semicolon that ends nothing belongs to its word.
                    return Some(if left.is_some() { clause } else { text });
                }
                _ => {}
            }
        }
        Some(text)
    })
}

/// Whether two texts say the same but for amounts and times that go on changing. Numbers that belong to a name (a pid, a port, a
/// handle) are compared.
fn alike(one: &str, other: &str) -> bool {
    one == other || without_amounts(one) == without_amounts(other)
}

fn without_amounts(text: &str) -> String {
    let is_amount = |word: &str| {
        let word = word.trim_matches(|c: char| "(),.;:".contains(c));
        let number = word.trim_end_matches("/s").trim_end_matches('%');
        number.starts_with(|c: char| c.is_ascii_digit())
            && number.chars().all(|c| c.is_ascii_digit() || c == '.' || c == ',')
    };
    let is_unit =
        |word: &str| matches!(word.trim_matches(|c: char| "(),.;:".contains(c)), "ms" | "s" | "min");
    let mut plain = String::new();
    let mut amount = false;
    for word in text.split(' ') {
        if is_amount(word) {
            amount = true;
            plain.push_str("# ");
            continue;
        }
        if amount && is_unit(word) {
            continue;
        }
        // One thread, two threads.
        let word = if amount { word.trim_end_matches('s') } else { word };
        amount = false;
        plain.extend([word, " "]);
    }
    plain
}

#[cfg(test)]
mod tests;
