//! Whether the owners accept: stopped, out of descriptors, stuck, or slow.

use std::time::Duration;

use super::{as_found, name};
use crate::finding::words::count;
use crate::finding::{Confidence, Finding, Remedy};
use crate::identity::state::ProcessState;
use crate::stock::{Listener, Owner};
use crate::why::far_end::{FarEnd, Fate};
use crate::why::{AddressFacts, Facts, Found, Verdict};

pub(in crate::why) fn judge(facts: &Facts, address: &AddressFacts) -> Found {
    let listeners: Vec<_> = facts.listeners_at(address).collect();
    let Some(first) = listeners.first() else { return Found::unknown("no process listens, so none accepts") };
    if let Some(stopped) = listeners.iter().find(|listener| listener.is_stopped()) {
        let pids: Vec<String> =
            stopped.owners.iter().map(|owner| owner.process.who.pid.to_string()).collect();
        let all = listeners.iter().all(|listener| listener.is_stopped());
        let traced = listeners.iter().flat_map(|listener| &listener.owners);
        let traced = traced.filter_map(|owner| owner.process.state.as_ref()).any(ProcessState::is_traced);
        let confidence = if all && !traced { Confidence::Certain } else { Confidence::Likely };
        let how = if traced { "a tracer or debugger, which may be for a moment" } else { "a signal" };
        let text = format!(
            "the process of {} is stopped by {how}: connections are set up by the kernel and never served",
            name(stopped)
        );
        let verdict = Verdict::new("process-stopped", confidence, text);
        return Found::Problem(
            verdict.advise(Remedy::command("continue it", format!("kill -CONT {}", pids.join(" ")))),
        );
    }
    let at_limit = listeners.iter().find_map(|listener| {
        let owner = listener.owners.iter().find(|owner| owner.process.is_at_file_limit())?;
        Some((listener, owner))
    });
    if let Some((listener, owner)) = at_limit {
        let pid = owner.process.who.pid;
        // Another owner may still accept, and a program may give back a descriptor before it accepts the next time.
        let alone = listener.owners.len() == 1;
        let confidence =
            if alone && listener.socket.depth > 0 { Confidence::Certain } else { Confidence::Likely };
        let text =
            format!("pid {pid} of {} is at its limit of open files, so accept() fails", name(listener));
        let verdict = Verdict::new("fd-limit", confidence, text);
        let raise = Remedy::command(
            "raise the limit on open files, then look for connections that are never closed",
            format!("prlimit --pid {pid} --nofile=65536"),
        );
        let restart = Remedy::text(
            "if it does not accept even then, restart it: some programs give up their loop for good after EMFILE",
        );
        return Found::Problem(verdict.advise(raise).advise(restart));
    }
    if let Some(finding) =
        facts.finding(address, &["accept-stall", "accept-failed", "slow-accept", "reuseport-imbalance"])
    {
        return as_found(finding.code, finding);
    }
    if let Some(finding) = facts.finding(address, &["accept-queue-overflow"]).filter(|f| is_by_stall(f)) {
        return as_found(finding.code, finding);
    }
    let waiting: u32 = listeners.iter().map(|listener| listener.socket.depth).sum();
    if let Some(found) = not_accepting(facts, address, &listeners, waiting) {
        return found;
    }
    if first.owners.is_empty() && !first.is_kernel_s() {
        return Found::unknown("which process should accept is not known");
    }
    if let Some(found) = was_at_limit(facts, address) {
        return found;
    }
    let accepted = accepted(&listeners);
    let before: Option<u32> = listeners.iter().map(|listener| facts.depth_before(listener)).sum();
    let seen = match (accepted, before) {
        (Some(accepted), Some(before)) if before > 0 => {
            format!("; {accepted} accepted while this was watched, and {before} had waited before")
        }
        (Some(accepted), _) => format!("; {accepted} accepted while this was watched"),
        (None, _) => String::new(),
    };
    Found::fine(format!("its processes are not stopped and may open files; {waiting} wait{seen}"))
}

/// An owner was at its limit of open files when the watch began, and is not any more.
fn was_at_limit(facts: &Facts, address: &AddressFacts) -> Option<Found> {
    let before = facts.before(address)?;
    let at_limit = before.iter().find_map(|listener| {
        let owner = listener.owners.iter().find(|owner| owner.process.is_at_file_limit())?;
        Some((*listener, owner.process.who.pid))
    });
    let (listener, pid) = at_limit?;
    let text = format!(
        "pid {pid} of {} was at its limit of open files when the watch began, and is not now: while it is, accept() fails, or clients are cut off at once",
        name(listener)
    );
    let raise = Remedy::command(
        "raise the limit on open files, then look for connections that are never closed",
        format!("prlimit --pid {pid} --nofile=65536"),
    );
    Some(Found::Problem(Verdict::new("fd-limit", Confidence::Possible, text).advise(raise)))
}

/// Connections that were accepted while this was watched; `None` where the probes do not show it.
pub(super) fn accepted(listeners: &[&Listener]) -> Option<u64> {
    listeners.iter().map(|listener| listener.traced.as_ref().and_then(|traced| traced.totals.accepted)).sum()
}

/// Whether an overflow is explained by a program that does not accept.
pub(super) fn is_by_stall(finding: &Finding) -> bool {
    finding.code == "accept-queue-overflow" && finding.cause == "accept-stalled"
}

/// Whether its queue is full because no process accepts, which this step reports: workers and a longer queue would be no remedy.
pub(super) fn is_stalled(facts: &Facts, address: &AddressFacts, listeners: &[&Listener]) -> bool {
    let by_finding = facts.finding(address, &["accept-stall", "accept-failed"]).is_some()
        || facts.finding(address, &["accept-queue-overflow"]).is_some_and(is_by_stall);
    // Without a watch a server that accepts slowly looks the same, unless its threads sleep while connections wait.
    let seen = accepted(listeners) == Some(0) || listeners.iter().all(|listener| is_asleep(listener));
    by_finding || (seen && not_accepting(facts, address, listeners, 0).is_some())
}

/// All threads of all owners wait for events, none of them in accept(): an event loop that asked for this listener's would not.
fn is_asleep(listener: &Listener) -> bool {
    let sleeps = |owner: &Owner| {
        let threads = owner.process.state.as_ref().map_or(0, |state| state.threads.len());
        threads > 0 && owner.polling() == Some(threads) && owner.accepting() == Some(0)
    };
    !listener.owners.is_empty() && listener.owners.iter().all(sleeps)
}

/// A connection that waits for longer than this was not just about to be accepted.
const LONG: Duration = Duration::from_secs(1);

/// Connections wait, and no process takes them, though none of the reasons above holds.
fn not_accepting(
    facts: &Facts,
    address: &AddressFacts,
    listeners: &[&Listener],
    waiting: u32,
) -> Option<Found> {
    let far_end = address.far_end();
    if far_end.is_some_and(FarEnd::is_accepted) {
        return None;
    }
    let kept = far_end.filter(|end| end.fate == Fate::Waiting && end.watched >= LONG);
    let long = address.waiting.count > 0 && address.waiting.longest >= LONG;
    // Accepted meanwhile: it is slow at most.
    if kept.is_none() && !long || accepted(listeners).is_some_and(|accepted| accepted > 0) {
        return None;
    }
    let samples = facts.seen.as_ref().map(|seen| &seen.samples);
    let sampled = |listener: &&Listener| samples?.of(listener.netns, listener.socket.inode);
    // Something waited at every look from the first to the last, and the queue never became shorter: nothing was accepted.
    let never_fell = kept.is_some()
        && listeners
            .iter()
            .all(|listener| sampled(listener).is_some_and(|seen| seen.looks > 2 && !seen.has_fallen))
        && listeners.iter().any(|listener| sampled(listener).is_some_and(|seen| seen.shallowest > 0));
    let confidence = if never_fell { Confidence::Certain } else { Confidence::Likely };
    let first = listeners.first()?;
    let ours = kept.map_or_else(String::new, |end| {
        format!(
            "; our own connection, which the kernel set up, was not accepted in {:.1} s",
            end.watched.as_secs_f64()
        )
    });
    let longest = if long {
        format!(", one of them for at least {:.0} s", address.waiting.longest.as_secs_f64())
    } else {
        String::new()
    };
    let does = doing(first);
    let text = format!(
        "{} does not accept: {} in its queue{longest}{ours}. The kernel completes handshakes by itself, so clients connect and get no answer{does}",
        name(first),
        count(u64::from(waiting), "connection waits", "connections wait")
    );
    let blocked = first.owners.iter().find(|owner| owner.process.uninterruptible() > 0);
    if let Some(blocked) = blocked {
        let pid = blocked.process.who.pid;
        let text =
            format!("{text}; threads of pid {pid} are in uninterruptible sleep (disk, network file system)");
        return Some(Found::Problem(
            Verdict::new("process-blocked", Confidence::Likely, text)
                .advise(Remedy::command("see what it waits for", format!("cat /proc/{pid}/task/*/stack"))),
        ));
    }
    let mut verdict = Verdict::new("not-accepting", confidence, text);
    if listeners.iter().all(|listener| is_asleep(listener)) {
        verdict = verdict.advise(Remedy::text(
            "look first at its own limit of connections (maxconn, worker_connections, max_connections or the like), and at connections that it keeps open: neither workers nor a longer queue help there",
        ));
    }
    verdict = verdict.advise(Remedy::text(
        "look into its log for the last accept() that failed (EMFILE, ENFILE): some programs give up their loop for good then; restart it, and raise its limit on open files if that was the cause",
    ));
    let pid = first.owners.first().map(|owner| owner.process.who.pid);
    Some(Found::Problem(match pid {
        Some(pid) => verdict.advise(Remedy::command(
            "see what its threads do, and what its own limit of connections is",
            format!("cat /proc/{pid}/task/*/wchan /proc/{pid}/limits"),
        )),
        None => verdict,
    }))
}

/// What the threads of its owners do, as far as that bears on it.
fn doing(listener: &Listener) -> String {
    let accepting: Option<usize> = listener.owners.iter().map(Owner::accepting).sum();
    let polling: Option<usize> = listener.owners.iter().map(Owner::polling).sum();
    match (accepting, polling) {
        (Some(0), Some(0)) => "; no thread of it sleeps in accept() or waits for events".to_owned(),
        (Some(0), Some(polling)) => format!(
            "; {polling} of its threads wait for events, none in accept(): it does not ask for this listener's events (its own limit of connections, or an error after which it gave up)"
        ),
        _ => String::new(),
    }
}
