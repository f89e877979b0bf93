//! All rounds' measurements, and what is asked of them: medians, and ratios within a round.

use std::collections::BTreeMap;

use super::contender::Turn;
use super::measurement::{Measurement, Program};

/// Per turn, one measurement a round.
#[derive(Debug, Default)]
pub(crate) struct Results(BTreeMap<Turn, Vec<Measurement>>);

/// A median and how far the rounds lie apart.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) least: f64,
    pub(crate) most: f64,
}

impl Spread {
    /// `None` of nothing.
    pub(crate) fn of(mut values: Vec<f64>) -> Option<Self> {
        values.sort_by(f64::total_cmp);
        let middle = values.len() / 2;
        let upper = *values.get(middle)?;
        let lower = *values.get(values.len().checked_sub(middle + 1)?)?;
        Some(Self { median: f64::midpoint(lower, upper), least: *values.first()?, most: *values.last()? })
    }
}

impl Results {
    pub(crate) fn add(&mut self, turn: Turn, measurement: Measurement) {
        self.0.entry(turn).or_default().push(measurement);
    }

    /// One number of a turn.
    pub(crate) fn spread(&self, turn: Turn, what: impl Fn(&Measurement) -> Option<f64>) -> Option<Spread> {
        Spread::of(self.of(turn).iter().filter_map(what).collect())
    }

    /// One number of a turn, in relation to the same of another turn in the same round: what changes slowly on the
    /// machine that all this runs on touches both.
    pub(crate) fn ratio(
        &self,
        turn: Turn,
        reference: Turn,
        what: impl Fn(&Measurement) -> f64,
    ) -> Option<Spread> {
        let pairs = self.of(turn).iter().zip(self.of(reference));
        Spread::of(pairs.map(|(one, other)| what(one) / what(other)).filter(|r| r.is_finite()).collect())
    }

    /// A turn's programs in all rounds, the costliest first: name, runs and nanoseconds a connection.
    pub(crate) fn programs(&self, turn: Turn) -> Vec<(String, f64, f64)> {
        let mut rounds: BTreeMap<&str, Vec<(f64, f64)>> = BTreeMap::new();
        for measurement in self.of(turn) {
            let mut sums: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
            for Program { name, runs, ns } in &measurement.programs {
                let sum = sums.entry(name).or_default();
                *sum = (sum.0 + runs, sum.1 + ns);
            }
            for (name, (runs, ns)) in sums {
                rounds
                    .entry(name)
                    .or_default()
                    .push((measurement.per_connection(runs), measurement.per_connection(ns)));
            }
        }
        let median = |values: Vec<f64>| Spread::of(values).map_or(0.0, |spread| spread.median);
        let mut programs: Vec<(String, f64, f64)> = rounds
            .into_iter()
            .map(|(name, rounds)| {
                let (runs, ns) = rounds.into_iter().unzip();
                (name.to_owned(), median(runs), median(ns))
            })
            .collect();
        programs.sort_by(|one, other| other.2.total_cmp(&one.2));
        programs
    }

    /// Whether this turn was run.
    pub(crate) fn has(&self, turn: Turn) -> bool {
        self.0.contains_key(&turn)
    }

    fn of(&self, turn: Turn) -> &[Measurement] {
        self.0.get(&turn).map_or(&[], Vec::as_slice)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::contender::{Contender, FEW};

    const BASE: Turn = Turn { contender: Contender::Base, listeners: FEW };
    const OURS: Turn = Turn { contender: Contender::Tcptrace, listeners: FEW };

    fn measurement(connections_per_s: f64, programs: &[(&str, u64, u64)]) -> Measurement {
        let programs = programs
            .iter()
            .map(|(name, runs, ns)| Program { name: (*name).to_owned(), runs: *runs, ns: *ns })
            .collect();
        Measurement { connections_per_s, connections: 10, programs, interrupts: 0, tracer: None }
    }

    #[test]
    fn medians() {
        assert_eq!(Spread::of(vec![]), None);
        assert_eq!(Spread::of(vec![3.0, 1.0, 2.0]), Some(Spread { median: 2.0, least: 1.0, most: 3.0 }));
        assert_eq!(Spread::of(vec![4.0, 1.0]).unwrap().median, 2.5);
    }

    #[test]
    fn ratios_are_taken_round_by_round() {
        let mut results = Results::default();
        for (base, ours) in [(100.0, 90.0), (50.0, 45.0), (10.0, 8.0)] {
            results.add(BASE, measurement(base, &[]));
            results.add(OURS, measurement(ours, &[]));
        }
        let ratio = results.ratio(OURS, BASE, |measurement| measurement.connections_per_s).unwrap();
        assert_eq!(ratio, Spread { median: 0.9, least: 0.8, most: 0.9 });
        // No base has BPF programs: no ratio rather than an infinite one.
        assert_eq!(results.ratio(OURS, BASE, Measurement::bpf_ns), None);
    }

    #[test]
    fn programs_of_one_name_are_one() {
        let mut results = Results::default();
        results.add(OURS, measurement(1.0, &[("a", 10, 100), ("b", 10, 500), ("a", 10, 300)]));
        assert_eq!(results.programs(OURS), [("b".to_owned(), 1.0, 50.0), ("a".to_owned(), 2.0, 40.0)]);
    }
}
