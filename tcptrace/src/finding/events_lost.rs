//! events-lost: the tracer itself lost events, so what it says may be incomplete.

use std::time::Duration;

use crate::correlate::{Change, Correlator};
use crate::event::LossPlace;

use super::case::{Concern, Description, Diagnosis};
use super::words::count;
use super::{Apart, CauseRule, Confidence, Evidence, FindingKind, Party, Remedy, Severity, keys};

/// The diagnosis.
#[derive(Default)]
pub(super) struct EventsLost;

impl Diagnosis for EventsLost {
    const KIND: FindingKind = FindingKind {
        code: "events-lost",
        opens_when: "the tracer itself lost events",
        page: include_str!("../../../docs/findings/events-lost.md"),
        observations: &[],
        tracepoint_tier: "the same holds; what the kernel skips is counted since 5.12.",
        causes: &[
            CauseRule {
                code: "ring-full",
                means: "events came faster than they were read",
                certain: Some("the kernel side counted what it could not write"),
                likely: None,
                possible: None,
                told_apart: &[Apart {
                    from: "an event that did not happen",
                    by: "it was counted when it was lost",
                }],
            },
            CauseRule {
                code: "table-full",
                means: "a table of the kernel side had no room",
                certain: Some("the kernel side counted what it could not enter"),
                likely: None,
                possible: None,
                told_apart: &[Apart { from: "a lost record", by: "only the entry is missing" }],
            },
            CauseRule {
                code: "probe-missed",
                means: "the kernel skipped a program, because it would have interrupted itself",
                certain: Some("the kernel, or the stand-in, counted the skipped runs"),
                likely: None,
                possible: None,
                told_apart: &[Apart { from: "a full ring buffer", by: "the program did not run at all" }],
            },
            CauseRule {
                code: "undecodable",
                means: "records of the kernel side could not be decoded",
                certain: Some("the decoder counted what it refused"),
                likely: None,
                possible: None,
                told_apart: &[Apart { from: "a full ring buffer", by: "the records arrived" }],
            },
            CauseRule {
                code: "slow-output",
                means: "what reads the output, or the disk, was too slow",
                certain: Some("the events that were dropped before the output were counted"),
                likely: None,
                possible: None,
                told_apart: &[Apart {
                    from: "a loss in the kernel",
                    by: "they had been read from the ring buffer",
                }],
            },
            CauseRule {
                code: "damaged-recording",
                means: "part of a recording could not be read",
                certain: Some("the reader counted what it passed over"),
                likely: None,
                possible: None,
                told_apart: &[Apart {
                    from: "a loss while recording",
                    by: "that is another loss, recorded as such",
                }],
            },
        ],
        evidence: &[
            keys::time("from", "not before this"),
            keys::texts("kinds", "what was lost, with its number"),
            keys::number("lost", "events lost"),
            keys::text("place", "where events were lost"),
            keys::time("to", "not after this"),
        ],
    };
    const QUIET: Duration = Duration::from_secs(10);

    /// By the place's name: places are not ordered.
    type Key = &'static str;
    /// The place.
    type Memory = Option<LossPlace>;

    fn concern(&self, change: &Change, _world: &Correlator) -> Option<Concern<Self::Key>> {
        match change {
            // A few accepts or ports in a million, on preemptible kernels; said in the `lost` lines, and no drop is among them.
            Change::EventsLost { place: LossPlace::Preempted } => None,
            Change::EventsLost { place } => Some(Concern::Happened(place.name())),
            _ => None,
        }
    }

    fn begin(&mut self, _key: &Self::Key, _world: &Correlator) -> Self::Memory {
        None
    }

    fn observe(&mut self, _key: &Self::Key, memory: &mut Self::Memory, change: &Change, _world: &Correlator) {
        if let Change::EventsLost { place } = change {
            *memory = Some(*place);
        }
    }

    fn describe(&self, _key: &Self::Key, memory: &Self::Memory, world: &Correlator) -> Option<Description> {
        let place = (*memory)?;
        let losses: Vec<_> = world.losses().iter().filter(|(_, loss)| loss.place == place).collect();
        let total = losses.iter().fold(0_u64, |sum, (_, loss)| sum.saturating_add(loss.count));
        let kinds: Vec<String> = losses.iter().map(|(what, loss)| format!("{} {what}", loss.count)).collect();
        let (cause, explanation, remedy) = account(place);
        Some(Description {
            severity: Severity::Warning,
            confidence: Confidence::Certain,
            title: format!("tcptrace lost {}: its report may be incomplete", count(total, "event", "events")),
            subject: Party { kind: "tracer", ..Party::default() },
            cause,
            explanation: explanation.to_owned(),
            numbers: vec![format!("lost: {}; drop counts of listeners stay exact", kinds.join(", "))],
            evidence: Evidence::new()
                .with("lost", total)
                .with("place", place.name())
                .with("kinds", kinds)
                .with_some(
                    "from",
                    losses.iter().map(|(_, loss)| loss.from).min().map(|time| time.to_string()),
                )
                .with_some("to", losses.iter().map(|(_, loss)| loss.to).max().map(|time| time.to_string())),
            remedy: vec![Remedy::text(remedy)],
        })
    }
}

fn account(place: LossPlace) -> (&'static str, &'static str, &'static str) {
    match place {
        LossPlace::RingBuffer => (
            "ring-full",
            "the buffer between kernel and tcptrace was full: events came faster than they were taken out",
            "filter (--port, --netns), or give tcptrace more CPU time; without --all far fewer events are sent",
        ),
        LossPlace::KernelTable => (
            "table-full",
            "a table in the kernel was full, so that something could not be remembered there",
            "filter (--port, --netns): fewer listeners and ports then need a place",
        ),
        LossPlace::Probe | LossPlace::Preempted => (
            "probe-missed",
            "the kernel skipped a probe: it was busy in one already, or out of slots for return probes",
            "use a higher tier where the host allows it (tcptrace probes says which)",
        ),
        LossPlace::Decode => (
            "undecodable",
            "records of the kernel side could not be decoded",
            "this is a defect of tcptrace: please report it with the output of tcptrace probes",
        ),
        LossPlace::UserTable => (
            "table-full",
            "there were more things to remember than tcptrace has room for, and old ones were forgotten",
            "filter (--port, --netns)",
        ),
        LossPlace::Output => (
            "slow-output",
            "what reads tcptrace's output, or the disk it writes to, was too slow",
            "write to a file on a faster disk, or ask for less (without --events and --all)",
        ),
        LossPlace::Recording => (
            "damaged-recording",
            "part of the recording is damaged, and what happened then cannot be read",
            "nothing brings it back; look at the disk or the transfer that damaged the file",
        ),
    }
}
