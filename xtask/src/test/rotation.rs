//! The rotation: which of the cases that no run plays whole are played by this one, where, and what is left out.
//!
//! A run of the suite has the time for a few of them. Turn N plays [`SHARE`] cases that lie [evenly](Turn::cases) in the list,
//! each at one of the [`PLACES`]; turn N + 1 plays the next ones, and when all have been played, each moves on to its next
//! place. A turn is named by its number, which is the number of commits up to the one that is tested: the same commit plays the
//! same cases, and `--turn N` plays them again. `--full` plays every case on every kernel and in every tier.

use std::collections::BTreeMap;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use super::Run;
use super::cases::{ARM64, BOOTS, Boot, Case, ROTATION, SELF_TEST, Tier};
use crate::arch::Arch;
use crate::paths;
use crate::vm::Series;

/// Cases of a turn: they take four minutes, most of them in two guests at a time.
const SHARE: usize = 20;

/// Where a case of the rotation is played in turn: this machine's own kernel, or a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Native,
    Guest(Arch, Series),
}

impl Place {
    /// Whether it need not be able to play everything: the guests of 6.12 must.
    pub(crate) fn may_lack(self) -> bool {
        !matches!(self, Self::Guest(_, Series::V6_12))
    }
}

/// Places and tiers, in the order in which a case comes to them. Only places at which the whole list has been seen to pass: a
/// turn must not fail for what nobody has tried yet. `--full` plays at all the others as well.
const PLACES: [(Place, Tier); 3] = [
    (Place::Guest(Arch::X86_64, Series::V6_12), Tier::Auto),
    (Place::Native, Tier::Tracepoint),
    (Place::Guest(Arch::X86_64, Series::V6_12), Tier::Kprobe),
];

/// A turn of the rotation, by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Turn(pub(crate) u64);

impl Turn {
    /// That of the commit that is tested; of the day, where that cannot be told (no git, or a copy without its history).
    pub(crate) fn of_this_commit() -> Self {
        Self(commits().filter(|commits| *commits > 1).unwrap_or_else(today))
    }

    /// Its cases, and where each is played.
    pub(crate) fn cases(self) -> Vec<(Place, Run)> {
        let turns = ROTATION.len().div_ceil(SHARE);
        let (cycle, slice) = (self.0 / turns as u64, self.0 % turns as u64);
        ROTATION
            .iter()
            .enumerate()
            // Neighbours in the list are of one kind, and are played in different turns.
            .filter(|(number, _)| (*number % turns) as u64 == slice)
            .filter_map(|(number, case)| {
                let places: Vec<_> = places_of(case).collect();
                let step = (number / turns) as u64 + cycle;
                let next = usize::try_from(step % places.len().max(1) as u64).ok()?;
                places.get(next).map(|&(place, tier)| (place, Run { case, tier, may_lack: place.may_lack() }))
            })
            .collect()
    }

    /// The machine unlike the others that it boots.
    pub(crate) fn boot(self) -> Option<&'static Boot> {
        BOOTS.get(usize::try_from(self.0 % BOOTS.len() as u64).ok()?)
    }

    /// What it plays on arm64: on 6.12 and one of the other kernels the self-test and one of the rehearsals each, in one tier. A
    /// guest's boot and the self-test take half a minute each.
    pub(crate) fn arm64(self) -> Vec<(Series, Vec<(&'static Case, Tier)>)> {
        let pick = |from: usize, stride: u64| usize::try_from(self.0 / stride % from as u64).unwrap_or(0);
        let other = if pick(2, 1) == 0 { Series::V6_1 } else { Series::Newest };
        let rehearsal = |ahead: usize| ARM64.get((pick(ARM64.len(), 2) + ahead) % ARM64.len());
        let plays = |series: Series, ahead: usize, stride: u64| {
            let tiers = arm64_tiers(series);
            let tier = tiers.get(pick(tiers.len(), stride)).copied();
            let cases = [Some(&SELF_TEST), rehearsal(ahead)];
            (series, cases.into_iter().flatten().zip(tier.into_iter().cycle()).collect())
        };
        vec![plays(Series::V6_12, 0, 1), plays(other, 1, 4)]
    }

    /// How many cases it plays at each place, as text for people.
    pub(crate) fn played(self) -> String {
        let cases = self.cases();
        let played = PLACES.into_iter().map(|(place, tier)| {
            let count = cases.iter().filter(|(at, run)| (*at, run.tier) == (place, tier)).count();
            match place {
                Place::Native => format!("{count} on this machine"),
                Place::Guest(_, series) => format!("{count} on {} ({})", series.name(), tier.covered_as()),
            }
        });
        played.collect::<Vec<_>>().join(", ")
    }

    /// The variants of the rotation that it leaves out, by rehearsal, as text for people.
    pub(crate) fn left_out(self) -> String {
        let played = self.cases();
        let mut left: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for case in ROTATION.iter().filter(|case| !played.iter().any(|(_, run)| run.case.name == case.name)) {
            if let Some((incident, Some(variant))) = case.rehearsal() {
                left.entry(incident).or_default().push(variant);
            }
        }
        let groups = left.iter().map(|(incident, variants)| format!("{incident} ({})", variants.join(", ")));
        groups.collect::<Vec<_>>().join(", ")
    }
}

/// The tiers that a kernel of arm64 has, as nothing is forced and as they are forced. 6.1 has no trampolines.
pub(crate) fn arm64_tiers(series: Series) -> [Tier; 3] {
    match series {
        Series::V6_12 | Series::Newest | Series::Realtime | Series::RealtimeNewest => Tier::ALL,
        Series::V5_10 | Series::V6_1 | Series::RealtimeV6_1 => {
            [Tier::AutoByKprobe, Tier::Kprobe, Tier::Tracepoint]
        }
    }
}

/// Where a case is played in all.
pub(crate) fn places_of(case: &Case) -> impl Iterator<Item = (Place, Tier)> {
    PLACES.into_iter().filter(|(_, tier)| case.tiers.contains(tier))
}

/// How many commits lead to the one that is checked out.
fn commits() -> Option<u64> {
    let workspace = paths::workspace().ok()?;
    let counted =
        Command::new("git").args(["rev-list", "--count", "HEAD"]).current_dir(workspace).output().ok()?;
    String::from_utf8(counted.stdout).ok()?.trim().parse().ok()
}

/// Days since 1970, in UTC.
fn today() -> u64 {
    const DAY: u64 = 24 * 60 * 60;
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() / DAY)
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::super::cases::CASES;
    use super::*;

    fn turns() -> u64 {
        ROTATION.len().div_ceil(SHARE) as u64
    }

    #[test]
    fn every_case_comes_once_in_each_cycle_and_no_turn_is_longer_than_its_share() {
        for first in [0, 434] {
            let first = first / turns() * turns();
            let mut seen = BTreeMap::new();
            for turn in first..first + turns() {
                let cases = Turn(turn).cases();
                assert!(cases.len() <= SHARE, "turn {turn} has {} cases", cases.len());
                for (_, run) in cases {
                    *seen.entry(run.case.name).or_insert(0) += 1;
                }
            }
            assert!(seen.values().all(|times| *times == 1), "{seen:?}");
            assert_eq!(seen.len(), ROTATION.len());
        }
    }

    #[test]
    fn every_case_comes_to_each_of_its_places() {
        let mut been: BTreeMap<&str, Vec<(Place, Tier)>> = BTreeMap::new();
        for turn in 0..turns() * PLACES.len() as u64 {
            for (place, run) in Turn(turn).cases() {
                been.entry(run.case.name).or_default().push((place, run.tier));
            }
        }
        for case in ROTATION {
            let been = &been[case.name];
            assert!(places_of(case).all(|place| been.contains(&place)), "{} {been:?}", case.name);
        }
    }

    #[test]
    fn no_place_has_much_more_than_its_part_of_a_turn() {
        for turn in 0..turns() * 10 {
            let mut places = BTreeMap::new();
            for (place, run) in Turn(turn).cases() {
                *places.entry(format!("{place:?} {:?}", run.tier)).or_insert(0_usize) += 1;
            }
            assert!(
                places.values().all(|cases| *cases <= SHARE / PLACES.len() + 2),
                "turn {turn}: {places:?}"
            );
        }
    }

    #[test]
    fn what_is_played_is_counted_by_tier() {
        let turn = Turn(434);
        let text = turn.played();
        let numbers = text.split(", ").map(|part| part.split(' ').next().unwrap().parse::<usize>().unwrap());
        assert_eq!(numbers.sum::<usize>(), turn.cases().len(), "{text}");
        assert!(["fexit", "kprobe", "this machine"].iter().all(|place| text.contains(place)), "{text}");
    }

    #[test]
    fn what_is_left_out_is_named() {
        let turn = Turn(434);
        let played: BTreeSet<_> = turn.cases().into_iter().map(|(_, run)| run.case.name).collect();
        let text = turn.left_out();
        let (some, none) = (
            ROTATION.iter().find(|case| !played.contains(case.name)).unwrap(),
            ROTATION.iter().filter(|case| played.contains(case.name)),
        );
        assert!(text.contains(some.rehearsal().unwrap().1.unwrap()), "{text}");
        assert_eq!(text.matches(", ").count() + 1 + none.count(), ROTATION.len());
    }

    #[test]
    fn arm64_is_in_every_turn_and_comes_to_each_kernel_tier_and_rehearsal() {
        let mut been = BTreeSet::new();
        for turn in 0..96 {
            let guests = Turn(turn).arm64();
            assert_eq!(guests.len(), 2);
            assert_eq!(guests[0].0, Series::V6_12);
            for (series, runs) in guests {
                assert_eq!(runs.len(), 2);
                assert_eq!(runs[0].0.name, "self-test");
                for (case, tier) in runs {
                    been.insert((series.name(), format!("{tier:?}"), case.name));
                }
            }
        }
        for series in Series::ARM64 {
            for tier in arm64_tiers(series) {
                for case in ARM64.iter().chain([&SELF_TEST]) {
                    let play = (series.name(), format!("{tier:?}"), case.name);
                    assert!(been.contains(&play), "{play:?}");
                }
            }
        }
    }

    #[test]
    fn a_name_is_given_once() {
        let mut names = BTreeSet::new();
        for case in CASES.iter().chain(ROTATION) {
            assert!(names.insert(case.name), "{} is there twice", case.name);
        }
    }
}
