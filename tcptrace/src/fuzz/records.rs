//! Records of the ring buffer: what the kernel side writes, in case it is not ours.

use jiff::tz::TimeZone;

use super::dice::changed;
use super::{Paper, Target};
use crate::event::{ClockOffset, decode_record};
use crate::output::{Look, Output, Selection, TextWriter};
use crate::pipeline::Pipeline;

pub(super) fn target() -> Target {
    Target {
        name: "record",
        what: "records of the ring buffer: decoded and shown",
        seeds: seeds(),
        change: changed,
        run,
    }
}

/// One record of every kind there is, found by trying: the header says kind and length, the rest may be anything.
fn seeds() -> Vec<Vec<u8>> {
    let clock = ClockOffset::default();
    let mut seeds = Vec::new();
    for kind in 0..64_u16 {
        for length in (16..2_048_u16).step_by(4) {
            let mut bytes = vec![0x11; usize::from(length)];
            let header = [&[0; 8][..], &kind.to_le_bytes(), &length.to_le_bytes(), &[0; 4]].concat();
            for (to, from) in bytes.iter_mut().zip(header) {
                *to = from;
            }
            if decode_record(&bytes, clock).is_ok() {
                seeds.push(bytes);
                break;
            }
        }
    }
    seeds
}

fn run(bytes: &[u8]) {
    let Ok(event) = decode_record(bytes, ClockOffset::default()) else { return };
    let paper = Paper::default();
    let to_text = Output::Text(TextWriter::new(paper.clone(), Look::plain(TimeZone::UTC)));
    let mut said = Pipeline::new(to_text, Selection::default(), true);
    let _said = said.feed(&[event]);
    let _said = said.finish();
    paper.assert_harmless();
}

#[cfg(test)]
mod tests {
    /// As many as the kernel side writes: a list that stops here would try less than it says.
    #[test]
    fn every_kind_of_record_is_tried() {
        let kinds = (1..u16::MAX).filter(|kind| crate::event::record_name(*kind) != "unknown").count();
        assert_eq!(super::seeds().len(), kinds);
    }
}
