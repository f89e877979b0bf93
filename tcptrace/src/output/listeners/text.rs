//! Listeners as a table for people: a line each, and under it what is wrong with it and what a trace saw.

use std::time::Duration;

use crate::finding::at_device;
use crate::finding::words::{count, rate};
use crate::output::table::{Column, Table, wrap};
use crate::stock::{Gap, LimitedBy, Listener, MarkKind, Owner, Traced};

/// The table, what it does not show, and how to read it. `all` is how many listeners there are, `namespaces` where.
pub fn lines(
    listeners: &[Listener],
    all: usize,
    namespaces: usize,
    missing: &[Gap],
    width: Option<usize>,
) -> Vec<String> {
    let mut lines = Vec::new();
    if !listeners.is_empty() {
        lines.extend(table(listeners).lines(width));
        lines.push(String::new());
    }
    let troubled = listeners.iter().filter(|l| l.marks().iter().any(|mark| mark.kind.is_trouble())).count();
    let shown = if listeners.len() == all { String::new() } else { format!("{} of ", listeners.len()) };
    let mut total = format!(
        "{shown}{} in {}",
        count(wide(all), "listener", "listeners"),
        count(wide(namespaces), "network namespace", "network namespaces")
    );
    if troubled > 0 {
        total.push_str(&format!("; {troubled} in trouble"));
    }
    lines.extend(wrap(&total, "", width));
    let mut notes: Vec<String> = Vec::new();
    if listeners.iter().any(|listener| listener.limit.limited_by() == LimitedBy::ProbablySomaxconn) {
        notes.push(
            "BY somaxconn?: the limit is exactly somaxconn, which probably cut the program's argument"
                .to_owned(),
        );
    }
    if listeners.iter().any(|listener| listener.socket.drops.unwrap_or(0) > 0) {
        notes.push(
            "DROPS: the socket's own count since it was made, which says nothing of the reason: a SYN at a full queue (1 each), a final \
             ACK at a full accept queue (2 each), one that TCP_DEFER_ACCEPT puts aside or the reset of a half-open request (1 each), \
             what a filter or a signature check refuses"
                .to_owned(),
        );
    }
    if listeners
        .iter()
        .any(|listener| listener.half_open.is_some_and(|found| found.shared && found.requests > 0))
    {
        notes.push("HALF with *: of the whole SO_REUSEPORT group".to_owned());
    }
    for note in notes {
        lines.extend(wrap(&note, "  ", width));
    }
    for gap in missing {
        let text = format!("missing: {}: {}", gap.what, crate::output::escape(&gap.why));
        lines.extend(wrap(&text, "  ", width));
    }
    lines
}

fn wide(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

fn table(listeners: &[Listener]) -> Table {
    let column = |title, right| Column { title, right };
    let mut columns = vec![
        column("QUEUE", true),
        column("LIMIT", true),
        column("BY", false),
        column("HALF", true),
        column("DROPS", true),
        column("ADDRESS", false),
    ];
    // A column that says the same everywhere says nothing.
    let namespaces = listeners.iter().any(|listener| !listener.own_netns);
    if namespaces {
        columns.push(column("NETNS", false));
    }
    columns.push(column("OWNER", false));
    let mut table = Table::new(columns);
    for listener in listeners {
        let unknown = || "?".to_owned();
        let mut cells = vec![
            listener.socket.depth.to_string(),
            listener.socket.limit.to_string(),
            limited_by(listener.limit.limited_by()).to_owned(),
            listener.half_open.map_or_else(unknown, |found| {
                let star = if found.shared && found.requests > 0 { "*" } else { "" };
                format!("{}{star}", found.requests)
            }),
            listener.socket.drops.map_or_else(unknown, |drops| drops.to_string()),
            address(listener),
        ];
        if namespaces {
            cells.push(match (&listener.netns_name, listener.own_netns) {
                (Some(name), _) => name.to_string(),
                (None, true) => "own".to_owned(),
                (None, false) => listener.netns.to_string(),
            });
        }
        cells.push(owned_by(listener));
        table.row(cells, below(listener));
    }
    table
}

fn limited_by(by: LimitedBy) -> &'static str {
    match by {
        LimitedBy::Argument { .. } => "argument",
        LimitedBy::Somaxconn => "somaxconn",
        LimitedBy::ProbablySomaxconn => "somaxconn?",
        LimitedBy::Unknown => "?",
    }
}

fn address(listener: &Listener) -> String {
    let socket = &listener.socket;
    let mut text = at_device(socket.local, listener.device_name().as_deref());
    if socket.v6only == Some(true) && socket.local.ip().is_unspecified() {
        text.push_str(" v6only");
    }
    if let Some(group) = listener.group {
        text.push_str(&format!(" 1/{}", group.members));
    }
    text
}

fn owned_by(listener: &Listener) -> String {
    let Some(first) = listener.owner() else {
        return match (listener.is_kernel_s(), listener.owners_complete) {
            (true, _) | (false, true) => "(no process)".to_owned(),
            (false, false) => format!("? uid {}", listener.socket.uid),
        };
    };
    let who = &first.process.who;
    let mut text = format!("{}[{}]", who.comm, who.pid);
    if listener.owners.len() > 1 {
        text.push_str(&format!(" +{}", listener.owners.len() - 1));
    }
    if let Some(container) = first.process.container() {
        text.push_str(&format!(" ({container})"));
    }
    if let Some(command) = &who.command {
        text.push_str("  ");
        text.push_str(command);
    }
    text
}

fn below(listener: &Listener) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for mark in listener.marks() {
        let sign = if mark.kind.is_trouble() { "!!" } else { "! " };
        lines.push(format!("{sign} {}", mark.text));
    }
    if let Some(found) = listener.half_open.filter(|found| found.deferred > 0 && !found.shared) {
        lines.push(format!(
            "{}{} of {} half-open requests have completed their handshake and wait for data (TCP_DEFER_ACCEPT)",
            // Those whose timer has not run out for the first time yet look as others do.
            if found.deferred < found.requests { "at least " } else { "" },
            found.deferred, found.requests
        ));
    }
    let stopped = listener.marks().iter().any(|mark| mark.kind == MarkKind::ProcessStopped);
    if listener.socket.depth > 0 && !stopped {
        lines.extend(waiting_for(&listener.owners));
    }
    if let Some(traced) = &listener.traced {
        lines.extend(seen(listener, traced));
    }
    lines
}

/// What those do who should accept.
fn waiting_for(owners: &[Owner]) -> Option<String> {
    let states: Vec<_> = owners.iter().filter_map(|owner| owner.process.state.as_ref()).collect();
    if states.is_empty() {
        return None;
    }
    let threads = wide(states.iter().map(|state| state.threads.len() + state.threads_left_out).sum());
    let running = states.iter().map(|state| state.running()).sum::<usize>();
    let mut text = format!("should accept: {}, {running} running", count(threads, "thread", "threads"));
    let accepting: Option<usize> = owners.iter().map(Owner::accepting).sum();
    let polling: Option<usize> = owners.iter().map(Owner::polling).sum();
    match accepting.zip(polling) {
        Some((accepting, polling)) => {
            text.push_str(&format!(
                ", {accepting} in accept() here, {polling} waiting for events (epoll, poll…)"
            ));
        }
        None => text.push_str("; their system calls may not be read"),
    }
    Some(text)
}

/// What a trace saw, in a sentence or two; nothing if nothing happened.
fn seen(listener: &Listener, traced: &Traced) -> Option<String> {
    let totals = &traced.totals;
    let mut words: Vec<String> = Vec::new();
    let mut happened = false;
    let mut rate_of = |number: Option<u64>, what: &str, words: &mut Vec<String>| {
        if let Some(number) = number {
            happened |= number > 0;
            words.push(format!("{} {what}", rate(traced.per_second(number))));
        }
    };
    rate_of(totals.syns, "arrive", &mut words);
    rate_of(totals.accepted, "accepted", &mut words);
    if let (true, Some(last)) = (totals.accepted.unwrap_or(0) > 0, words.last_mut())
        && traced.acceptors > 0
    {
        last.push_str(&format!(" by {}", count(traced.acceptors, "thread", "threads")));
    }
    let drops = [
        (totals.syn_drops_accept_queue, "SYNs (accept queue full)"),
        (totals.syn_drops_syn_queue, "SYNs (SYN queue full)"),
        (totals.syn_drops_max_syn_backlog, "SYNs (tcp_max_syn_backlog)"),
        (totals.syn_drops_no_route, "SYNs (no route back)"),
        (totals.ack_drops_accept_queue, "final ACKs (accept queue full)"),
        (totals.ack_drops_other, "final ACKs (other reasons)"),
        (Some(traced.inferred_drops), "packets at the full accept queue (by the kernel's counters)"),
    ];
    let drops: Vec<String> = drops
        .iter()
        .filter_map(|(number, what)| {
            number.filter(|number| *number > 0).map(|number| format!("{number} {what}"))
        })
        .collect();
    if !drops.is_empty() {
        happened = true;
        words.push(format!("dropped {}", drops.join(", ")));
    }
    for (number, what) in
        [(totals.cookies_sent, "answered by cookies"), (totals.expired, "half-open requests expired")]
    {
        if let Some(number) = number.filter(|number| *number > 0) {
            happened = true;
            words.push(format!("{number} {what}"));
        }
    }
    if let Some(max) = totals.depth_max.filter(|max| *max > 0) {
        happened = true;
        words.push(format!("deepest {max}"));
    }
    let waits = traced.waits.as_ref().and_then(|waits| waits.quantile(0.5).zip(waits.quantile(0.99)));
    let longest = totals.wait_max_ns.filter(|max| *max > 0).map(Duration::from_nanos);
    match (waits, longest) {
        (Some((half, most)), Some(longest)) => {
            words.push(format!("wait p50 {} p99 {} max {}", time(half), time(most), time(longest)));
        }
        (None, Some(longest)) => words.push(format!("longest wait {}", time(longest))),
        _ => {}
    }
    let handshakes = traced.handshakes.as_ref().and_then(|all| all.quantile(0.5).zip(all.quantile(0.99)));
    if let Some((half, most)) = handshakes {
        words.push(format!("handshake p50 {} p99 {}", time(half), time(most)));
    }
    if let Some(backlog) = listener.limit.backlog {
        happened = true;
        words.push(format!("listen(fd, {})", i32::from_ne_bytes(backlog.to_ne_bytes())));
    }
    happened.then(|| format!("in {:.1} s: {}", traced.span.as_secs_f64(), words.join(", ")))
}

/// A short time with two or three digits: `85 µs`, `1.2 ms`, `3.1 s`.
fn time(duration: Duration) -> String {
    let micros = duration.as_secs_f64() * 1e6;
    match micros {
        ..999.5 => format!("{micros:.0} µs"),
        ..9_950.0 => format!("{:.1} ms", micros / 1e3),
        ..999_500.0 => format!("{:.0} ms", micros / 1e3),
        _ => format!("{:.1} s", micros / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Distribution, ListenerTotals, SampleSource};
    use crate::identity::state::RunState;
    use crate::stock::HalfOpen;
    use crate::stock::testing::{listener, owner, thread};

    fn shown(listeners: &[Listener], width: usize) -> String {
        lines(listeners, listeners.len(), 2, &[], Some(width)).join("\n")
    }

    #[test]
    fn a_full_listener_at_eighty_columns() {
        let mut full = listener("0.0.0.0:1080");
        (full.socket.depth, full.socket.limit, full.limit.limit, full.socket.drops) = (21, 20, 20, Some(312));
        full.owners = vec![owner(6039, "delegated", &[3], vec![thread(RunState::Running)])];
        let mut other = listener("[::]:443");
        (other.own_netns, other.netns, other.socket.limit, other.limit.limit) =
            (false, 4_026_532_201, 4096, 4096);
        let expected = "\
QUEUE LIMIT BY         HALF DROPS ADDRESS      NETNS      OWNER
   21    20 argument      0   312 0.0.0.0:1080 own        delegated[6039]  /usr…
      !! accept queue full: 21 connections wait, more are dropped; the limit 20
        is the program's listen() argument; somaxconn (4096) allows more
      should accept: 1 thread, 1 running, 0 in accept() here, 0 waiting for
        events (epoll, poll…)
    0  4096 somaxconn?    0     0 [::]:443     4026532201 server[100]  /usr/sbi…

2 listeners in 2 network namespaces; 1 in trouble
  BY somaxconn?: the limit is exactly somaxconn, which probably cut the
    program's argument
  DROPS: the socket's own count since it was made, which says nothing of the
    reason: a SYN at a full queue (1 each), a final ACK at a full accept queue
    (2 each), one that TCP_DEFER_ACCEPT puts aside or the reset of a half-open
    request (1 each), what a filter or a signature check refuses";
        assert_eq!(shown(&[full, other], 80), expected);
    }

    #[test]
    fn what_was_traced_stands_below() {
        let mut busy = listener("0.0.0.0:1080");
        busy.limit.backlog = Some(511);
        busy.traced = Some(Traced {
            span: Duration::from_secs(10),
            accepted_then: None,
            totals: ListenerTotals {
                syns: Some(1560),
                accepted: Some(39),
                syn_drops_accept_queue: Some(876),
                ack_drops_accept_queue: Some(66),
                wait_max_ns: Some(5_210_000_000),
                depth_max: Some(21),
                ..ListenerTotals::ZERO
            },
            source: Some(SampleSource::Observed),
            inferred_drops: 0,
            waits: Some(Distribution::default()),
            handshakes: None,
            acceptors: 1,
            last_acceptor: None,
        });
        let text = shown(&[busy.clone()], 200);
        let expected = "in 10.0 s: 156/s arrive, 3.9/s accepted by 1 thread, dropped 876 SYNs (accept queue full), 66 final ACKs (accept queue full), deepest 21, longest wait 5.2 s, listen(fd, 511)";
        let seen = text
            .lines()
            .filter(|line| line.starts_with("      "))
            .map(str::trim)
            .collect::<Vec<_>>()
            .join(" ");
        assert_eq!(seen, expected);
        // Nothing happened: nothing to say.
        busy.limit.backlog = None;
        busy.traced.as_mut().unwrap().totals = ListenerTotals::ZERO;
        assert!(!shown(&[busy], 200).contains("in 10.0 s"));
    }

    #[test]
    fn requests_that_wait_for_data_are_told_from_handshakes_in_flight() {
        let mut deferring = listener("0.0.0.0:80");
        deferring.half_open = Some(HalfOpen { requests: 33, deferred: 20, ..HalfOpen::default() });
        let text = shown(&[deferring.clone()], 200);
        assert!(text.contains("20 of 33 half-open requests have completed their handshake"), "{text}");
        deferring.half_open = Some(HalfOpen { requests: 33, ..HalfOpen::default() });
        assert!(!shown(&[deferring], 200).contains("TCP_DEFER_ACCEPT"));
    }

    #[test]
    fn nothing_to_show_is_said() {
        let gap = Gap::new("namespaces", "evil\u{1b}[2J");
        let text = lines(&[], 12, 3, &[gap], Some(80)).join("\n");
        assert_eq!(text, "0 of 12 listeners in 3 network namespaces\n  missing: namespaces: evil\\x1b[2J");
    }

    #[test]
    fn times_are_short() {
        let times = [85, 999, 1_200, 48_000, 3_120_000].map(|us| time(Duration::from_micros(us)));
        assert_eq!(times, ["85 µs", "999 µs", "1.2 ms", "48 ms", "3.1 s"]);
    }
}
