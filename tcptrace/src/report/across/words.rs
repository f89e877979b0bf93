//! What several recordings say together, in lines for people. Not escaped: whoever prints them does that.

use super::cause::LOST_ON_THE_WAY;
use super::{Clock, Elsewhere, Stall, Step};

/// `web1's clock is 2300.412 ms ahead of client1's, ± 0.210 ms (41 handshakes seen at both ends)`.
pub(in crate::report) fn clock_line(clock: &Clock) -> Option<String> {
    let name = &clock.recording;
    let told = clock.against.as_ref().zip(clock.ahead_ms).map(|(against, ahead)| {
        let (ahead, way) = if ahead < 0.0 { (-ahead, "behind") } else { (ahead, "ahead of") };
        let why = match (clock.handshakes, clock.contradicting) {
            (0, _) => "one boot of one host".to_owned(),
            (1, 0) => "1 handshake seen at both ends".to_owned(),
            (agree, 0) => format!("{agree} handshakes seen at both ends"),
            (agree, not) => format!("{agree} handshakes seen at both ends; {not} more do not fit"),
        };
        format!(
            "{name} is {ahead:.3} ms {way} {against}, ± {:.3} ms ({why})",
            clock.error_ms.unwrap_or_default()
        )
    });
    match (told, clock.untold) {
        (Some(told), None) => Some(told),
        (Some(told), Some(why)) => Some(format!("{told}; not comparable with the first: {why}")),
        (None, Some(why)) => Some(format!("{name} cannot be compared: {why}")),
        (None, None) => None,
    }
}

/// A stall: its headline, and what follows; its course is not among it.
pub(in crate::report) fn stall_lines(stall: &Stall) -> (String, Vec<String>) {
    let waits = match stall.client_finding {
        Some("connect-refused") => "is refused by",
        _ => "waits for",
    };
    let headline = format!("{} at {} {waits} {}", stall.client, stall.client_recording, stall.destination);
    let mut lines = Vec::new();
    let server = &stall.server_recording;
    let sure = stall.confidence.name();
    lines.push(match (&stall.server_finding, stall.code) {
        (Some(title), code) => {
            let cause = stall.server_cause.map(|cause| format!(", cause {cause}")).unwrap_or_default();
            format!("because at {server}: {title} ({code}{cause}; {sure})")
        }
        (None, LOST_ON_THE_WAY) => format!(
            "not because of {server}: of each of these connections one SYN arrived there and was answered; the others were \
             lost on the way ({sure})"
        ),
        (None, code) => format!("because at {server}: {} ({code}; {sure})", stall.deeds),
    });
    let connects = |count: u64| if count == 1 { "connect" } else { "connects" };
    lines.push(match stall.matched {
        0 => format!(
            "{} {} stalled; they are not in {server}'s recording themselves, what was found there was at the same time",
            stall.stalled,
            connects(stall.stalled)
        ),
        matched => {
            let deeds = if stall.deeds.is_empty() { String::new() } else { format!(": {}", stall.deeds) };
            format!("{matched} of {} stalled {} seen at both ends{deeds}", stall.stalled, connects(stall.stalled))
        }
    });
    if let Some(ms) = stall.longest_ms
        && !stall.course.is_empty()
    {
        lines.push(format!("the longest took {ms:.1} ms, by {}'s clock:", stall.client_recording));
    }
    (headline, lines)
}

impl Step {
    /// Whose recording says so.
    pub(in crate::report) fn by(&self) -> String {
        let own = if self.own_clock { " (by its own clock)" } else { "" };
        format!("{}{own}", self.recording)
    }
}

/// What another recording says about a client's finding.
pub(in crate::report) fn told_elsewhere(elsewhere: &Elsewhere) -> String {
    let cause = elsewhere.cause.map(|cause| format!(", cause {cause}")).unwrap_or_default();
    let Elsewhere { recording, code, title, confidence, .. } = elsewhere;
    format!("at {recording}: {title} ({code}{cause}; {})", confidence.name())
}
