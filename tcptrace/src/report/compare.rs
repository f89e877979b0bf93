//! Two recordings side by side: what changed between before and after, and whether it is more than chance.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::SocketAddr;

use schemars::JsonSchema;
use serde::Serialize;

use crate::event::Distribution;
use crate::output::Meaning;

use super::sheet::Sheet;
use super::{ListenerReport, Report, Verdict};

/// So improbable by chance must a change of times be to count.
const SIGNIFICANT: f64 = 0.001;

/// What changed.
#[derive(Clone, Debug)]
pub struct Comparison {
    /// Length of the first, seconds.
    pub before_s: f64,
    /// Length of the second.
    pub after_s: f64,
    /// Listeners that had anything to do in either.
    pub listeners: Vec<ListenerChange>,
    /// Findings that only the second has.
    pub appeared: Vec<Told>,
    /// Findings that only the first has.
    pub went: Vec<Told>,
    /// Findings that both have.
    pub stayed: Vec<Told>,
}

/// A finding, without what differs between two runs of the same program.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Told {
    /// Its code.
    pub code: &'static str,
    /// Its cause.
    pub cause: &'static str,
    /// Name of its process.
    pub comm: Option<String>,
    /// Its address.
    pub address: Option<SocketAddr>,
    /// Its port, where it is about no address.
    pub port: Option<u16>,
}

/// What changed at a listener.
#[derive(Clone, Debug)]
pub struct ListenerChange {
    /// Its address.
    pub address: SocketAddr,
    /// Name of the process that has it.
    pub comm: Option<String>,
    /// Which recording has it.
    pub present: Present,
    /// Connections accepted a second.
    pub accepted_per_s: Pair,
    /// Connections dropped a second.
    pub drops_per_s: Pair,
    /// Deepest accept queue.
    pub queue_max: Pair,
    /// Limit of the accept queue.
    pub queue_limit: Pair,
    /// Accept waits.
    pub waits: Option<TimesChange>,
    /// Handshake times.
    pub handshakes: Option<TimesChange>,
}

/// Which recording has something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Present {
    /// Only the first.
    Before,
    /// Only the second.
    After,
    /// Both.
    Both,
}

/// A number in both recordings.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Pair {
    /// In the first.
    pub before: f64,
    /// In the second.
    pub after: f64,
}

/// What changed between two distributions of times.
#[derive(Clone, Debug, PartialEq)]
pub struct TimesChange {
    /// Half were not longer, ms.
    pub p50_ms: Pair,
    /// 99 % were not longer, ms.
    pub p99_ms: Pair,
    /// Chance that one of the second is longer than one of the first, ties counted half; 0.5: alike.
    pub longer: f64,
    /// How probable so large a difference would be by chance alone (Mann-Whitney U test, two-sided, corrected for ties: times
    /// in one bucket of the histogram count as equal).
    pub p: f64,
    /// How many times in each.
    pub count: (u64, u64),
}

/// Listeners of one address and process name, in both recordings.
type Both<'a> = (Vec<&'a ListenerReport>, Vec<&'a ListenerReport>);

impl Comparison {
    /// Of two reports.
    pub fn of(before: &Report, after: &Report) -> Self {
        let seconds = |of: &Report| of.to.since(of.from).as_secs_f64().max(0.001);
        let lengths = (seconds(before), seconds(after));
        // Process ids differ between two runs of the same program; names and addresses mostly do not.
        let mut by_name: BTreeMap<(SocketAddr, Option<String>), Both<'_>> = BTreeMap::new();
        for of in &before.listeners {
            by_name.entry((of.address, of.comm.clone())).or_default().0.push(of);
        }
        for of in &after.listeners {
            by_name.entry((of.address, of.comm.clone())).or_default().1.push(of);
        }
        let listeners = by_name
            .into_iter()
            .map(|((address, comm), both)| ListenerChange::new(address, comm, &both, lengths))
            .filter(ListenerChange::is_busy)
            .collect();
        let names = |report: &Report| report.verdicts.iter().map(Told::of).collect::<BTreeSet<Told>>();
        let (found_before, found_after) = (names(before), names(after));
        Self {
            before_s: lengths.0,
            after_s: lengths.1,
            listeners,
            appeared: found_after.difference(&found_before).cloned().collect(),
            went: found_before.difference(&found_after).cloned().collect(),
            stayed: found_after.intersection(&found_before).cloned().collect(),
        }
    }

    /// What became worse by more than `percent`, in words: new findings, more drops, and longer times where that is not
    /// chance.
    pub fn worse(&self, percent: f64) -> Vec<String> {
        let factor = 1.0 + percent / 100.0;
        let mut worse: Vec<String> = self.appeared.iter().map(|finding| format!("new: {finding}")).collect();
        for of in self.listeners.iter().filter(|of| of.present == Present::Both) {
            let Pair { before, after } = of.drops_per_s;
            if after > before * factor {
                worse.push(format!("{}: {after:.2} drops/s instead of {before:.2}", of.address));
            }
            for (what, times) in [("accept wait", &of.waits), ("handshake", &of.handshakes)] {
                let significant = |of: &&TimesChange| of.p < SIGNIFICANT && of.longer > 0.5;
                let Some(times) = times.as_ref().filter(significant) else { continue };
                for (name, Pair { before, after }) in [("p50", times.p50_ms), ("p99", times.p99_ms)] {
                    if after > before * factor {
                        let p = times.p;
                        worse.push(format!(
                            "{}: {what} {name} {after:.3} ms instead of {before:.3} (p = {p:.1e})",
                            of.address
                        ));
                    }
                }
            }
        }
        worse
    }

    /// For people; `worse` as [`Self::worse`] gives it.
    pub fn text(&self, worse: &[String]) -> Sheet {
        let mut out = Sheet::default();
        out.line(format_args!("before {:.1} s, after {:.1} s", self.before_s, self.after_s));
        for (word, meaning, findings) in [
            ("APPEARED", Meaning::Critical, &self.appeared),
            ("WENT", Meaning::Good, &self.went),
            ("STAYED", Meaning::Warning, &self.stayed),
        ] {
            for finding in findings {
                out.marked(meaning, format_args!("{word:9} {finding}"));
            }
        }
        self.listeners.iter().for_each(|of| of.text(&mut out));
        out.gap();
        if worse.is_empty() {
            out.marked(Meaning::Good, format_args!("nothing is worse beyond the threshold"));
        }
        for line in worse {
            out.marked(Meaning::Critical, format_args!("WORSE     {line}"));
        }
        out
    }
}

impl Told {
    fn of(verdict: &Verdict) -> Self {
        let subject = &verdict.finding.subject;
        Self {
            code: verdict.finding.code,
            cause: verdict.finding.cause,
            comm: subject.process.as_ref().and_then(|process| process.comm.clone()),
            address: subject.address,
            port: subject.port.filter(|_| subject.address.is_none()),
        }
    }
}

/// `accept-queue-overflow (backlog-argument) nginx 0.0.0.0:80`.
impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.code, self.cause)?;
        self.comm.iter().try_for_each(|comm| write!(f, " {comm}"))?;
        self.address.iter().try_for_each(|address| write!(f, " {address}"))?;
        self.port.iter().try_for_each(|port| write!(f, " port {port}"))
    }
}

impl ListenerChange {
    fn new(
        address: SocketAddr,
        comm: Option<String>,
        (before, after): &Both<'_>,
        (before_s, after_s): (f64, f64),
    ) -> Self {
        #[expect(clippy::cast_precision_loss, reason = "counts of connections are far below 2^52")]
        let sum = |of: &[&ListenerReport], count: fn(&ListenerReport) -> u64| {
            of.iter().map(|of| count(of)).fold(0, u64::saturating_add) as f64
        };
        let rate = |count: fn(&ListenerReport) -> u64| Pair {
            before: sum(before, count) / before_s,
            after: sum(after, count) / after_s,
        };
        let most = |of: &[&ListenerReport], number: fn(&ListenerReport) -> u32| {
            of.iter().map(|of| number(of)).max().map_or(0.0, f64::from)
        };
        let highest = |number: fn(&ListenerReport) -> u32| Pair {
            before: most(before, number),
            after: most(after, number),
        };
        let all = |of: &[&ListenerReport], which: fn(&ListenerReport) -> &Distribution| {
            of.iter().fold(Distribution::default(), |all, of| all.and(which(of)))
        };
        let times = |which: fn(&ListenerReport) -> &Distribution| {
            compare_times(&all(before, which), &all(after, which))
        };
        Self {
            address,
            comm,
            present: match (before.is_empty(), after.is_empty()) {
                (false, false) => Present::Both,
                (_, true) => Present::Before,
                (true, false) => Present::After,
            },
            accepted_per_s: rate(|of| of.accepted.unwrap_or(0)),
            drops_per_s: rate(ListenerReport::drops),
            queue_max: highest(|of| of.queue_max),
            queue_limit: highest(|of| of.queue_limit),
            waits: times(|of| &of.waits),
            handshakes: times(|of| &of.handshakes),
        }
    }

    fn is_busy(&self) -> bool {
        let any = |of: &Pair| of.before > 0.0 || of.after > 0.0;
        [self.accepted_per_s, self.drops_per_s, self.queue_max].iter().any(any)
    }

    fn text(&self, out: &mut Sheet) {
        let who = self.comm.as_deref().map_or_else(String::new, |comm| format!(" {comm}"));
        let only = match self.present {
            Present::Both => "",
            Present::Before => " (only before)",
            Present::After => " (only after)",
        };
        out.gap();
        out.marked(Meaning::Label, format_args!("{}{who}{only}", self.address));
        let mut line = |name: &str, pair: Pair, digits: usize| {
            let Pair { before, after } = pair;
            let change = match (before > 0.0, after > 0.0) {
                (true, _) => format!("{:+.1} %", 100.0 * (after / before - 1.0)),
                (false, true) => "new".to_owned(),
                (false, false) => String::new(),
            };
            let text = format!("  {name:22} {before:>12.digits$} -> {after:>12.digits$}  {change}");
            out.line(format_args!("{}", text.trim_end()));
        };
        line("accepted/s", self.accepted_per_s, 2);
        line("dropped/s", self.drops_per_s, 2);
        line("deepest accept queue", self.queue_max, 0);
        line("its limit", self.queue_limit, 0);
        for (name, times) in [("accept wait", &self.waits), ("handshake", &self.handshakes)] {
            let Some(times) = times else { continue };
            line(&format!("{name} p50, ms"), times.p50_ms, 3);
            line(&format!("{name} p99, ms"), times.p99_ms, 3);
        }
        for (name, times) in [("accept waits", &self.waits), ("handshakes", &self.handshakes)] {
            let Some(times) = times else { continue };
            out.line(format_args!("  of two {name}, the one after is longer in {:.1} % (alike: 50); by chance with p = {:.1e}; n = {} and {}",
                times.longer * 100.0,
                times.p,
                times.count.0,
                times.count.1));
        }
    }
}

/// Compares two histograms of times; `None` if one is empty.
pub fn compare_times(before: &Distribution, after: &Distribution) -> Option<TimesChange> {
    let (longer, p) = mann_whitney(before, after)?;
    let ms =
        |of: &Distribution, quantile: f64| of.quantile(quantile).map_or(0.0, |time| time.as_secs_f64() * 1e3);
    let pair = |quantile: f64| Pair { before: ms(before, quantile), after: ms(after, quantile) };
    Some(TimesChange {
        p50_ms: pair(0.5),
        p99_ms: pair(0.99),
        longer,
        p,
        count: (before.total(), after.total()),
    })
}

/// The Mann-Whitney U test over buckets: the chance that one of `b` is longer than one of `a` (ties half), and the two-sided
/// p-value by the normal approximation, corrected for ties and continuity.
#[expect(clippy::cast_precision_loss, reason = "counts of connections are far below 2^52")]
fn mann_whitney(a: &Distribution, b: &Distribution) -> Option<(f64, f64)> {
    let mut buckets: BTreeMap<u64, (f64, f64)> = BTreeMap::new();
    for (start, count) in a.buckets() {
        buckets.entry(start).or_default().0 += count as f64;
    }
    for (start, count) in b.buckets() {
        buckets.entry(start).or_default().1 += count as f64;
    }
    let (of_a, of_b) = (a.total() as f64, b.total() as f64);
    if of_a == 0.0 || of_b == 0.0 {
        return None;
    }
    let (mut u, mut ties, mut shorter) = (0.0, 0.0, 0.0);
    for (in_a, in_b) in buckets.values() {
        u += in_b * (shorter + in_a / 2.0);
        shorter += in_a;
        let tied = in_a + in_b;
        ties += tied * (tied * tied - 1.0);
    }
    let all = of_a + of_b;
    let variance = of_a * of_b / 12.0 * ((all + 1.0) - ties / (all * (all - 1.0)).max(1.0));
    let longer = u / (of_a * of_b);
    if variance <= 0.0 {
        return Some((longer, 1.0));
    }
    let distance = ((u - of_a * of_b / 2.0).abs() - 0.5).max(0.0);
    Some((longer, (2.0 * upper_tail(distance / variance.sqrt())).min(1.0)))
}

/// The share of a normal distribution that lies above `z` (z ≥ 0), to a relative error of 1.2 × 10⁻⁷: the rational Chebyshev
/// fit of erfc that is in the textbooks.
fn upper_tail(z: f64) -> f64 {
    const FACTORS: [f64; 10] = [
        -1.265_512_23,
        1.000_023_68,
        0.374_091_96,
        0.096_784_18,
        -0.186_288_06,
        0.278_868_07,
        -1.135_203_98,
        1.488_515_87,
        -0.822_152_23,
        0.170_872_77,
    ];
    let x = z / std::f64::consts::SQRT_2;
    let t = 1.0 / (1.0 + 0.5 * x);
    let sum = FACTORS.iter().rev().fold(0.0, |sum, factor| sum * t + factor);
    0.5 * t * (sum - x * x).exp()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(times_us: impl IntoIterator<Item = u64>) -> Distribution {
        Distribution::from_buckets(times_us.into_iter().map(|us| (us * 1000, 1)))
    }

    #[test]
    fn the_normal_tail_is_right() {
        let known =
            [(0.0, 0.5), (1.0, 0.158_655_3), (1.959_964, 0.025), (3.290_527, 0.0005), (6.0, 9.865_9e-10)];
        for (z, tail) in known {
            assert!((upper_tail(z) / tail - 1.0).abs() < 1e-4, "{z}");
        }
    }

    #[test]
    fn the_test_is_the_textbook_s() {
        let a = of([1 << 10, 2 << 10, 4 << 10, 8 << 10, 16 << 10]);
        let b = of([2 << 10, 4 << 10, 8 << 10, 16 << 10, 32 << 10]);
        let (longer, p) = mann_whitney(&a, &b).unwrap();
        // Of the 25 pairs the one of b is longer in 15 and as long in 4: U = 17.
        assert!((longer - 17.0 / 25.0).abs() < 1e-9, "{longer}");
        // σ² = 25/12 · (11 − 4·6/90) = 22.361, z = (4.5 − 0.5)/4.7288 = 0.8459.
        assert!((p - 0.3976).abs() < 5e-4, "{p}");
    }

    #[test]
    fn alike_is_not_significant_and_slower_is() {
        let fast = of((0..2000).map(|n| 100 + n % 50));
        let same = of((0..2000).map(|n| 100 + (n * 7) % 50));
        let slow = of((0..2000).map(|n| 120 + n % 50));
        assert!(compare_times(&fast, &same).unwrap().p > 0.05);
        let change = compare_times(&fast, &slow).unwrap();
        assert!(change.p < 1e-6 && change.longer > 0.7);
        let back = compare_times(&slow, &fast).unwrap();
        assert!((change.longer + back.longer - 1.0).abs() < 1e-9);
        assert_eq!(compare_times(&Distribution::default(), &fast), None);
    }
}
