//! The section of docs/measurements.md that a run writes.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};

use super::budget::{Limit, Verdict};
use super::contender::{Contender, FEW, MANY, Turn};
use super::guest::server::Close;
use super::measurement::{Measurement, Tracer};
use super::results::{Results, Spread};
use super::table::Table;
use super::{Args, Clock};
use crate::{paths, tool};

const HEAD: &str =
    "# Measurements\n\nWritten by `cargo xtask bench`; other text may stand between its sections.\n";
const TRACERS: [Contender; 4] =
    [Contender::Tcptrace, Contender::Tcpconnlat, Contender::TcptraceAll, Contender::Tcpstates];

/// What tells this run's section from those of other settings.
fn key(args: &Args) -> String {
    let Args { kernel, clock, close, attach, .. } = args;
    format!("bench {} {} {} {attach}", kernel.name(), clock.name(), close.name())
}

/// The whole section.
pub(crate) fn section(args: &Args, release: &str, results: &Results, verdicts: &[Verdict]) -> String {
    let mut text = String::new();
    let mut part = |title: &str, body: &str| {
        if body.is_empty() {
            return;
        }
        let _infallible = write!(text, "{title}\n\n{body}\n");
    };
    let title = format!(
        "## Cost of tracing: kernel {}, clock: {}, close by {}, `--attach {}`",
        args.kernel.name(),
        args.clock.name(),
        args.close.name().to_uppercase(),
        args.attach
    );
    part(&title, &preamble(args, release));
    part("### Budgets", &budgets(verdicts).to_string());
    part("### Contenders", &contenders(results).to_string());
    part("### Listeners", &listeners(results).to_string());
    part("### Memory and idle processor time", &idle(results).to_string());
    part("### BPF programs", &programs(results).to_string());
    text.trim_end().to_owned()
}

/// Puts a section into the file, in the place of its former self.
pub(crate) fn write(file: &Path, args: &Args, section: &str) -> Result<()> {
    let old = match fs::read_to_string(file) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => HEAD.to_owned(),
        other => other.with_context(|| format!("reading {}", file.display()))?,
    };
    if let Some(directory) = file.parent() {
        fs::create_dir_all(directory).with_context(|| format!("creating {}", directory.display()))?;
    }
    fs::write(file, replace(&old, &key(args), section)).with_context(|| format!("writing {}", file.display()))
}

fn replace(text: &str, key: &str, section: &str) -> String {
    let (begin, end) = (format!("<!-- begin {key} -->\n"), format!("<!-- end {key} -->\n"));
    let (before, rest) = text.split_once(&begin).unwrap_or((text, ""));
    let after = rest.split_once(&end).map_or("", |(_, after)| after);
    let gap = if after.is_empty() && rest.is_empty() { "\n" } else { "" };
    format!("{before}{gap}{begin}{section}\n{end}{after}")
}

fn preamble(args: &Args, release: &str) -> String {
    let version = match &args.program {
        // Nobody knows what it was built from.
        Some(_) => "as given".to_owned(),
        None => paths::workspace()
            .and_then(|workspace| {
                tool::capture_text(
                    Command::new("git").current_dir(workspace).args(["describe", "--always", "--dirty"]),
                )
            })
            .unwrap_or_else(|_| "of an unknown commit".to_owned()),
    };
    let (clock, place) = match args.clock {
        Clock::Instructions => (
            "**A nanosecond is one emulated instruction**: the same whatever else this machine does, and blind to what \
             makes one instruction costlier than another on hardware (cache misses, locks, interrupts; of the latter the \
             wake-ups are counted beside it). All runs on one processor, so that the rate of connections carries the \
             tracer's user space, too.",
            "on the guest's one processor",
        ),
        Clock::Host => (
            "A nanosecond is one of the host's, in which emulation is slow, and slowest at interrupts; what else this \
             machine does is in it, too.",
            "on one of the guest's two processors, the tracer on the other",
        ),
    };
    format!(
        "tcptrace {}, kernel {release}, {} rounds of all contenders in turn in one boot, {} connections a load. Each \
         number is the median of the rounds, ratios are taken within a round; in brackets the least and the most.\n\n\
         The guest is emulated (QEMU without KVM): **only the ratios mean anything.** {clock} Load: one client and one \
         server {place}, over 127.0.0.1, one connection at a time, {}. Tracers' output goes to /dev/null. Connections \
         per second are measured with `kernel.bpf_stats_enabled=0`, BPF time with 1.\n",
        version.trim(),
        args.rounds,
        args.connections,
        match args.close {
            Close::Rst =>
                "ended by the server's RST (so that the peers have the fewest changes of state to see)",
            Close::Fin => "ended in order, by the server first",
        },
    )
}

fn budgets(verdicts: &[Verdict]) -> Table {
    let mut table = Table::new(&["budget", "limit", "measured", "verdict"]);
    for verdict in verdicts {
        let limit = match verdict.limit {
            Limit::AtMost(most) => format!("≤ {most}"),
            Limit::AtLeast(least) => format!("≥ {least}"),
        };
        let word = if verdict.is_met() { "met" } else { "**MISSED**" };
        table.row(vec![verdict.what.into(), limit, spread(verdict.measured, 2), word.into()]);
    }
    table
}

fn contenders(results: &Results) -> Table {
    let mut table = Table::new(&[
        "contender",
        "connections/s",
        "of base",
        "BPF ns/connection",
        "of tcpconnlat",
        "of tcpstates",
        "BPF runs/connection",
        "wake-up interrupts",
        "own CPU µs/connection",
        "events lost",
    ]);
    for contender in std::iter::once(Contender::Base).chain(TRACERS) {
        let turn = few(contender);
        if !results.has(turn) {
            continue;
        }
        table.row(vec![
            contender.name().into(),
            median(results.spread(turn, |m| Some(m.connections_per_s)), 0),
            spread(results.ratio(turn, few(Contender::Base), |m| m.connections_per_s), 2),
            median(results.spread(turn, |m| Some(m.bpf_ns())), 0),
            spread(results.ratio(turn, few(Contender::Tcpconnlat), Measurement::bpf_ns), 2),
            spread(results.ratio(turn, few(Contender::Tcpstates), Measurement::bpf_ns), 2),
            median(results.spread(turn, |m| Some(m.bpf_runs())), 2),
            median(results.spread(turn, |m| Some(m.bpf_interrupts())), 2),
            median(of_tracer(results, turn, |t| Some(t.cpu_us_per_connection)), 0),
            median(of_tracer(results, turn, |t| Some(count(t.lost))), 0),
        ]);
    }
    table
}

fn listeners(results: &Results) -> Table {
    let mut table = Table::new(&[
        "listeners on the host",
        "BPF ns/connection",
        "of that with 10",
        "BPF runs/connection",
        "connections/s, of base with as many",
        "idle: user CPU ms/s",
        "system CPU ms/s",
    ]);
    for listeners in [FEW, MANY] {
        let turn = Turn { contender: Contender::Tcptrace, listeners };
        let base = Turn { contender: Contender::Base, listeners };
        if !results.has(turn) {
            continue;
        }
        table.row(vec![
            listeners.to_string(),
            median(results.spread(turn, |m| Some(m.bpf_ns())), 0),
            spread(results.ratio(turn, few(Contender::Tcptrace), Measurement::bpf_ns), 2),
            median(results.spread(turn, |m| Some(m.bpf_runs())), 2),
            spread(results.ratio(turn, base, |m| m.connections_per_s), 2),
            median(of_tracer(results, turn, |t| Some(t.idle?.user_ms)), 1),
            median(of_tracer(results, turn, |t| Some(t.idle?.system_ms)), 1),
        ]);
    }
    table
}

fn idle(results: &Results) -> Table {
    let mut table = Table::new(&[
        "tracer",
        "RSS KiB",
        "of it anonymous",
        "PSS KiB",
        "peak RSS KiB",
        "RSS after the load",
        "BPF maps KiB",
        "user CPU ms/s",
    ]);
    let turns =
        TRACERS.map(few).into_iter().chain([Turn { contender: Contender::Tcptrace, listeners: MANY }]);
    for turn in turns.filter(|turn| results.has(*turn)) {
        let kib =
            |what: fn(&Tracer) -> Option<u64>| median(of_tracer(results, turn, |t| what(t).map(count)), 0);
        table.row(vec![
            turn.name(),
            kib(|t| Some(t.idle?.memory.rss_kib)),
            kib(|t| Some(t.idle?.memory.anonymous_kib)),
            kib(|t| Some(t.idle?.memory.proportional_kib)),
            kib(|t| Some(t.memory.peak_kib)),
            kib(|t| Some(t.memory.rss_kib)),
            kib(|t| Some(t.maps_kib)),
            median(of_tracer(results, turn, |t| Some(t.idle?.user_ms)), 1),
        ]);
    }
    table
}

fn programs(results: &Results) -> Table {
    let mut table = Table::new(&["contender: program", "runs/connection", "ns/run", "ns/connection"]);
    for contender in TRACERS {
        for (name, runs, ns) in results.programs(few(contender)) {
            // What ran a few times in thousands of connections is no cost of a connection.
            if runs >= 0.01 {
                table.row(vec![
                    format!("{}: {name}", contender.name()),
                    format!("{runs:.2}"),
                    format!("{:.0}", ns / runs),
                    format!("{ns:.0}"),
                ]);
            }
        }
    }
    table
}

fn few(contender: Contender) -> Turn {
    Turn { contender, listeners: FEW }
}

fn of_tracer(results: &Results, turn: Turn, what: impl Fn(&Tracer) -> Option<f64>) -> Option<Spread> {
    results.spread(turn, |measurement| what(measurement.tracer.as_ref()?))
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
fn count(number: u64) -> f64 {
    number as f64
}

fn median(spread: Option<Spread>, digits: usize) -> String {
    spread.map_or_else(|| "–".into(), |spread| format!("{:.digits$}", spread.median))
}

fn spread(spread: Option<Spread>, digits: usize) -> String {
    spread.map_or_else(
        || "–".into(),
        |Spread { median, least, most }| format!("{median:.digits$} ({least:.digits$}–{most:.digits$})"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_section_takes_the_place_of_its_former_self() {
        let first = replace("# Head\n", "a", "one");
        assert_eq!(first, "# Head\n\n<!-- begin a -->\none\n<!-- end a -->\n");
        let both = replace(&first, "b", "two");
        assert_eq!(
            replace(&both, "a", "three"),
            "# Head\n\n<!-- begin a -->\nthree\n<!-- end a -->\n\n<!-- begin b -->\ntwo\n<!-- end b -->\n"
        );
    }
}
