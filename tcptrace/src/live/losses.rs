//! What was lost on the way here.

use super::Live;
use crate::event::{Kind, LossPlace, Lost, Timestamp, decode::record_name};
use crate::probe::plan::{Skip, skip_of};

impl Live {
    /// What was lost since the last second.
    pub(super) fn lost(&mut self, now: Timestamp) -> Vec<Kind> {
        let from = self.last_second;
        let mut events = Vec::new();
        match self.tracer.lost() {
            Ok(lost) => {
                for (kind, (now_lost, said)) in (0_u16..).zip(lost.iter().zip(&mut self.said_lost)) {
                    let count = now_lost.saturating_sub(*said);
                    *said = *now_lost;
                    if count > 0 {
                        let place = if kind == 0 { LossPlace::KernelTable } else { LossPlace::RingBuffer };
                        let what = record_name(kind).to_owned();
                        events.push(Kind::Lost(Box::new(Lost { what, count, place, from, to: now })));
                    }
                }
            }
            Err(error) => log::error!("the loss counters cannot be read: {error}"),
        }
        for (program, now_missed) in self.tracer.misses() {
            let said = self.said_misses.entry(program).or_default();
            let count = now_missed.saturating_sub(*said);
            if count > 0 {
                *said = now_missed;
                let what = format!("runs of {program}");
                events.push(Kind::Lost(Box::new(Lost {
                    what,
                    count,
                    place: if skip_of(program) == Skip::OneCall {
                        LossPlace::Preempted
                    } else {
                        LossPlace::Probe
                    },
                    from,
                    to: now,
                })));
            }
        }
        let undecoded = std::mem::take(&mut self.undecoded);
        if undecoded > 0 {
            let what = "record".to_owned();
            events.push(Kind::Lost(Box::new(Lost {
                what,
                count: undecoded,
                place: LossPlace::Decode,
                from,
                to: now,
            })));
        }
        events
    }
}
