//! Whether the owners accept: stopped, out of descriptors, stuck, or slow.

use super::{as_found, name};
use crate::finding::{Confidence, Remedy};
use crate::why::{AddressFacts, Facts, Found, Verdict};

pub(in crate::why) fn judge(facts: &Facts, address: &AddressFacts) -> Found {
    let listeners: Vec<_> = facts.listeners_at(address).collect();
    let Some(first) = listeners.first() else { return Found::unknown("nobody listens, so nobody accepts") };
    if let Some(stopped) = listeners.iter().find(|listener| listener.is_stopped()) {
        let pids: Vec<String> =
            stopped.owners.iter().map(|owner| owner.process.who.pid.to_string()).collect();
        let all = listeners.iter().all(|listener| listener.is_stopped());
        let confidence = if all { Confidence::Certain } else { Confidence::Likely };
        let text = format!(
            "the process of {} is stopped (by a signal or a debugger): connections are set up by the kernel and never served",
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
        let text =
            format!("pid {pid} of {} is at its limit of open files, so accept() fails", name(listener));
        let verdict = Verdict::new("fd-limit", Confidence::Certain, text);
        return Found::Problem(verdict.advise(Remedy::command(
            "raise the limit on open files, then look for connections that are never closed",
            format!("prlimit --pid {pid} --nofile=65536"),
        )));
    }
    if let Some(finding) = facts.finding(address, &["accept-stall", "slow-accept", "reuseport-imbalance"]) {
        return as_found(finding.code, finding);
    }
    let waiting: u32 = listeners.iter().map(|listener| listener.socket.depth).sum();
    let blocked = first.owners.iter().find(|owner| owner.process.uninterruptible() > 0);
    if let Some(blocked) = blocked.filter(|_| waiting > 0) {
        let text = format!(
            "{waiting} connections wait while threads of pid {} are in uninterruptible sleep (disk, network file system)",
            blocked.process.who.pid
        );
        return Found::Problem(Verdict::new("process-blocked", Confidence::Possible, text).advise(
            Remedy::command(
                "see what it waits for",
                format!("cat /proc/{}/task/*/stack", blocked.process.who.pid),
            ),
        ));
    }
    if first.owners.is_empty() && !first.is_kernel_s() {
        return Found::unknown("who should accept is not known");
    }
    let accepted: Option<u64> = listeners
        .iter()
        .map(|listener| listener.traced.as_ref().and_then(|traced| traced.totals.accepted))
        .sum();
    let seen = accepted.map_or_else(String::new, |accepted| format!("; {accepted} accepted while watching"));
    Found::fine(format!("its processes are not stopped and may open files; {waiting} wait{seen}"))
}
