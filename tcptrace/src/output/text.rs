//! For people: one finding is a few lines that can be pasted into an incident channel.

use std::fmt::Write as _;
use std::io::Write;
use std::ops::ControlFlow;

use jiff::tz::TimeZone;

use crate::correlate::Correlator;
use crate::event::{Coverage, Event, Kind, Lost, ObservationStatus, Timestamp};
use crate::finding::{Finding, Severity, State, Value};

use super::escape::escape;
use super::event_line::EventLine;
use super::lines::{BLUE, DIM, Lines, RED, YELLOW};
use super::sink::Written;
use super::summary::Summary;
use super::zone;

/// Writes text.
#[derive(Debug)]
pub struct TextWriter<W: Write> {
    to: Lines<W>,
    zone: TimeZone,
}

impl<W: Write> TextWriter<W> {
    /// Writes to `to`, with times in `zone` and with colours if `colour`.
    pub fn new(to: W, zone: TimeZone, colour: bool) -> Self {
        Self { to: Lines::new(to, colour), zone }
    }

    /// What is observed from `time` on, in one line.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn coverage(&mut self, coverage: &Coverage, time: Timestamp) -> Written {
        let with = |status: ObservationStatus| {
            let names: Vec<&str> = coverage
                .observations
                .iter()
                .filter(|observation| observation.status == status)
                .map(|observation| observation.name.as_str())
                .collect();
            names
        };
        let attached = with(ObservationStatus::Attached);
        let mut line = format!(
            "tcptrace on {}, tier {}: {} of {} observations attached",
            escape(&coverage.kernel),
            coverage.tier.name(),
            attached.len(),
            coverage.observations.len()
        );
        for (words, names) in
            [("polled", with(ObservationStatus::Polled)), ("missing", with(ObservationStatus::Missing))]
        {
            if !names.is_empty() {
                let _ = write!(line, "; {words}: {}", escape(&names.join(", ")));
            }
        }
        for hindrance in &coverage.hindrances {
            let _ = write!(line, "; {}", escape(hindrance));
        }
        let only: Vec<&str> = coverage.scope.iter().chain(&coverage.filters).map(String::as_str).collect();
        if !only.is_empty() {
            let _ = write!(line, "; only {}", escape(&only.join(" ")));
        }
        let _ = write!(line, "; times are {}", zone::in_words(&self.zone, time));
        self.to.parts(&[(Some(DIM), &line)])
    }

    /// A finding.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn finding(&mut self, finding: &Finding) -> Written {
        let severity = finding.severity.name().to_uppercase();
        let colour = match finding.severity {
            Severity::Critical => RED,
            Severity::Warning => YELLOW,
            Severity::Info => BLUE,
        };
        let state = match finding.state {
            State::Opened => String::new(),
            state => format!(" ({})", state.name()),
        };
        let time = format!("{} ", self.clock(finding.time));
        let rest = format!(" {}{state}  {}", finding.code, finding.headline());
        let parts = [(None, time.as_str()), (Some(colour), severity.as_str()), (None, rest.as_str())];
        if self.to.parts(&parts)?.is_break() {
            return Ok(ControlFlow::Break(()));
        }
        self.lines(&account(finding))
    }

    /// An event that the kernel side reported; others are no lines of output. `world` names containers.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn event(&mut self, event: &Event, world: &Correlator) -> Written {
        if let Kind::Lost(lost) = &event.kind {
            return self.lost(lost);
        }
        let Some(line) = EventLine::of(event, world) else { return Ok(ControlFlow::Continue(())) };
        let mut text = format!("{} {}", self.clock(line.time), line.event);
        if let (Some(comm), Some(pid)) = (&line.comm, line.pid) {
            let _ = write!(text, " {}[{pid}]", escape(comm));
        }
        let _ = write!(text, " {}", line.local);
        if let Some(remote) = line.remote {
            let _ = write!(text, " <-> {remote}");
        }
        for (name, value) in line.facts.iter() {
            if let Some(value) = plain(value) {
                let _ = write!(text, " {name}={}", escape(&value));
            }
        }
        self.to.line(&text)
    }

    /// Events that were lost.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn lost(&mut self, lost: &Lost) -> Written {
        let line = format!(
            "{} lost {} {} at the {}",
            self.clock(lost.to),
            lost.count,
            escape(&lost.what),
            lost.place.name()
        );
        self.to.parts(&[(Some(YELLOW), &line)])
    }

    /// The last words.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn summary(&mut self, summary: &Summary) -> Written {
        let or_none =
            |words: String| if words.is_empty() { "none".to_owned() } else { escape(&words).into_owned() };
        let only = if summary.filters.is_empty() {
            String::new()
        } else {
            format!("; only {}", escape(&summary.filters.join(" ")))
        };
        let mut lines = vec![
            format!(
                "{:.1} s traced; findings: {}{only}",
                summary.duration.as_secs_f64(),
                or_none(summary.findings.in_words())
            ),
            format!(
                "  events: {}; lost: {}",
                or_none(summary.events.in_words()),
                or_none(summary.lost.in_words())
            ),
        ];
        if !summary.forgotten.is_empty() {
            lines.push(format!("  forgotten (too many): {}", escape(&summary.forgotten.in_words())));
        }
        for row in &summary.reconciliation {
            // Namespaces where nothing happened, and we agree, are no news.
            if row.kernel == 0 && row.observed.unwrap_or(0) == 0 {
                continue;
            }
            let observed =
                row.observed.map_or_else(|| "not observable".to_owned(), |count| format!("observed {count}"));
            let reason =
                row.reason.as_ref().map_or_else(String::new, |reason| format!(" ({})", escape(reason)));
            lines.push(format!(
                "  kernel {} +{} in netns {}, {observed}: {}{reason}",
                row.counter,
                row.kernel,
                row.netns,
                row.status.name()
            ));
        }
        self.lines(&lines)
    }

    /// A line of another kind.
    ///
    /// # Errors
    /// When it cannot be written, or is not read.
    pub fn say(&mut self, text: std::fmt::Arguments<'_>) -> std::io::Result<()> {
        self.to.say(text)
    }

    /// Passes on what was written.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn flush(&mut self) -> Written {
        self.to.flush()
    }

    /// The writer.
    pub fn into_inner(self) -> W {
        self.to.into_inner()
    }

    /// Time of day: `19:40:12.031`.
    fn clock(&self, time: Timestamp) -> String {
        match jiff::Timestamp::from_nanosecond(i128::from(time.nanos())) {
            Ok(timestamp) => timestamp.to_zoned(self.zone.clone()).strftime("%H:%M:%S.%3f").to_string(),
            Err(_) => time.to_string(),
        }
    }

    fn lines(&mut self, lines: &[String]) -> Written {
        for line in lines {
            if self.to.line(line)?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }
}

/// A finding in words: its numbers, its cause, what to do about it; harmless to a terminal.
pub fn account(finding: &Finding) -> Vec<String> {
    let mut lines: Vec<String> = finding.numbers.iter().map(|line| format!("    {}", escape(line))).collect();
    let sure = match finding.confidence {
        crate::finding::Confidence::Certain => String::new(),
        confidence => format!("{}: ", confidence.name()),
    };
    lines.push(format!("  cause  {}: {sure}{}", finding.cause, escape(&finding.explanation)));
    if let Some(by) = &finding.explained_by {
        lines.push(format!("  see    {}: {}", by.code, escape(&by.headline)));
    }
    for (index, remedy) in finding.remedy.iter().enumerate() {
        let label = if index == 0 { "do    " } else { "      " };
        lines.push(format!("  {label} {}", escape(&remedy.text)));
        if let Some(command) = &remedy.command {
            lines.push(format!("           {}", escape(command)));
        }
    }
    lines
}

fn plain(value: &Value) -> Option<String> {
    match value {
        Value::Number(number) => Some(number.to_string()),
        Value::Measure(measure) => Some(measure.to_string()),
        Value::Flag(flag) => Some(flag.to_string()),
        Value::Text(text) => Some(text.clone()),
        Value::Unknown(()) | Value::Party(_) | Value::Parties(_) => None,
    }
}

#[cfg(test)]
mod tests;
