//! The last words of a run: what was seen, what was found, what was lost, and whether it all adds up.

use std::time::Duration;

use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use crate::correlate::Reconciliation;
use crate::event::Timestamp;
use crate::finding::Engine;

/// What a run came to.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Summary {
    /// When it ended.
    #[serde(serialize_with = "as_text")]
    pub time: Timestamp,
    /// How long it was, from the first event to the last.
    #[serde(rename = "duration_s", serialize_with = "as_seconds")]
    pub duration: Duration,
    /// Events that the kernel side reported, by kind.
    pub events: Counts,
    /// Findings that were opened, by code.
    pub findings: Counts,
    /// Events that were lost, by kind.
    pub lost: Counts,
    /// What was forgotten because there was too much to remember; findings that were not told because there were too many.
    #[serde(skip_serializing_if = "Counts::is_empty")]
    pub forgotten: Counts,
    /// Our counts beside the kernel's.
    pub reconciliation: Vec<Reconciliation>,
}

/// Names and numbers, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts(pub Vec<(String, u64)>);

impl Counts {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// In words: `2 accept-queue-overflow, 1 bind-conflict`.
    pub fn in_words(&self) -> String {
        let words: Vec<String> = self.0.iter().map(|(name, count)| format!("{count} {name}")).collect();
        words.join(", ")
    }
}

impl Serialize for Counts {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, count) in &self.0 {
            map.serialize_entry(name, count)?;
        }
        map.end()
    }
}

fn as_text<S: Serializer>(time: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(time)
}

fn as_seconds<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64((duration.as_secs_f64() * 1000.0).round() / 1000.0)
}

impl Summary {
    /// Of everything that `engine` has taken in.
    pub fn of(engine: &Engine) -> Self {
        let world = engine.world();
        let owned = |(name, count): (&str, u64)| (name.to_owned(), count);
        let mut lost: Vec<(String, u64)> = Vec::new();
        for (what, loss) in world.losses().iter() {
            match lost.last_mut() {
                // The same kind, lost at another place.
                Some((last, count)) if last == what => *count = count.saturating_add(loss.count),
                _ => lost.push((what.to_owned(), loss.count)),
            }
        }
        let untold = engine.untold().map(|(code, count)| (format!("finding-{code}"), count));
        Self {
            time: world.now(),
            duration: world.now().since(world.start()),
            events: Counts(world.events().map(owned).collect()),
            findings: Counts(engine.opened().iter().map(|(code, count)| owned((code, *count))).collect()),
            lost: Counts(lost),
            forgotten: Counts(world.forgotten().into_iter().map(owned).chain(untold).collect()),
            reconciliation: world.reconcile(),
        }
    }
}
