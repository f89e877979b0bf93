//! Ports that somebody wanted and did not get.

use std::net::SocketAddr;
use std::time::Duration;

use crate::event::{
    BindFail, BindStage, Endpoints, Family, Found, Holder, HolderReport, How, Owner, OwnerConfidence,
    ReportedHolder, ReuseState, SocketOptions, SocketState, Task, Timestamp,
};

use super::bind_rule::{self, Side, Verdict};
use super::bounded::BoundedMap;
use super::owner::Owners;

/// How long a conflict waits for sock_diag's report before it is told without one.
const WAIT_FOR_REPORT: Duration = Duration::from_secs(1);

/// How many conflicts are remembered.
const CONFLICTS: usize = 1024;

/// Who is known to have the socket with an inode: what was there before the tracer, and listeners.
pub(super) type OwnersOf<'a> = &'a dyn Fn(u64) -> Option<Owners>;

/// Names a conflict: attempts that are told as one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConflictKey {
    /// Network namespace.
    pub netns: u32,
    /// Requested address and port.
    pub requested: SocketAddr,
    /// Command name of who asked: a service that is restarted with a new pid and fails again is the same conflict.
    pub comm: String,
}

/// A port that somebody wants and does not get.
#[derive(Clone, Debug)]
pub struct Conflict {
    /// How often since the tracer started.
    pub attempts: u64,
    /// First attempt.
    pub first: Timestamp,
    /// Last attempt.
    pub last: Timestamp,
    /// Who asked last.
    pub requester: Task,
    /// What was asked for.
    pub endpoints: Endpoints,
    /// In which call it failed.
    pub stage: BindStage,
    /// errno.
    pub errno: u32,
    /// Options of the requesting socket.
    pub options: SocketOptions,
    /// State of the port's bind bucket, if it was read.
    pub reuse_state: Option<ReuseState>,
    /// Number of sockets met on the port in the kernel, if more than are in `holders`.
    pub holders_met: u32,
    /// Who has the port, the one that is in the way first.
    pub holders: Vec<PortHolder>,
    /// What may be missing from sock_diag's report; `None` if nothing, or if there was no report.
    pub incomplete: Option<String>,
    /// Whether sock_diag's report on the last attempt has come.
    pub reported: bool,
    /// Since when the last attempt waits for that report to say who the holder is.
    waiting: Option<Timestamp>,
}

/// A socket that has a wanted port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortHolder {
    /// Its ends.
    pub endpoints: Endpoints,
    /// Its state.
    pub state: SocketState,
    /// How the port was taken.
    pub how: How,
    /// When, if that was seen.
    pub since: Option<Timestamp>,
    /// Who took it, if that was seen.
    pub taker: Option<Task>,
    /// `taker` was not seen taking it, but had it when the tracer started.
    pub taker_bootstrapped: bool,
    /// Who has it.
    pub owners: Owners,
    /// Every process that had it when that was looked up after the conflict; `None` if it was not, or none was found.
    pub present: Option<Vec<u32>>,
    /// Address in kernel memory; 0 if unknown.
    pub sk: u64,
    /// Inode number of its file; 0 if it has none or it is unknown.
    pub inode: u64,
    /// Its user.
    pub uid: Option<u32>,
    /// Its options, if they could be read.
    pub options: Option<SocketOptions>,
    /// IPV6_V6ONLY, from its options or from sock_diag.
    pub v6only: bool,
    /// What was left of TIME_WAIT, or of FIN-WAIT-2 once its process had closed it, at the time of the report, milliseconds.
    pub time_wait_left_ms: Option<u64>,
    /// How often its last segment had been sent again by then.
    pub retransmits: u32,
    /// How it was found.
    pub found: Found,
    /// What the kernel's rule says.
    pub verdict: Verdict,
}

impl PortHolder {
    /// Whether some process is known for it.
    pub fn is_named(&self) -> bool {
        self.taker.is_some() || !self.owners.is_empty()
    }

    /// Whether it is a listener that the kernel has for itself: root's, and no file leads to it. Whoever made the kernel open it
    /// is its taker, and does not have it.
    pub fn is_listener_without_file(&self) -> bool {
        is_listener_without_file(self.found, self.state, self.inode, self.uid)
    }

    /// Whether it is what is left of a connection that its process has closed: no process has it any more.
    pub fn is_remnant(&self) -> bool {
        is_remnant(self.found, self.state, self.inode) && self.owners.is_empty()
    }

    fn from_kernel(holder: &Holder, owners_of: OwnersOf<'_>) -> Self {
        let mut owners = Owners::default();
        // Whoever had the connection has no longer anything to do with what is left of it; it remains as the taker.
        if !is_remnant(holder.found, holder.state, holder.inode)
            && !is_listener_without_file(holder.found, holder.state, holder.inode, holder.uid)
        {
            match (&holder.taker, owners_of(holder.inode)) {
                (Some(taker), _) if !taker.bootstrapped => owners.observe(&taker.task),
                (_, Some(known)) => owners = known,
                (Some(found), None) => {
                    let owner = Owner { pid: found.task.pid, comm: found.task.comm.to_string() };
                    owners.found(&owner, OwnerConfidence::Bootstrapped);
                }
                (None, None) => {}
            }
        }
        // Whoever had it when the tracer started need not be who took it; of a remnant it is all that is known.
        let taker = holder.taker.as_ref();
        let seen = taker.filter(|taker| !taker.bootstrapped);
        Self {
            endpoints: holder.endpoints,
            state: holder.state,
            how: seen.map_or(How::Unknown, |taker| taker.how),
            since: seen.map(|taker| taker.since),
            taker: seen.or(taker.filter(|_| owners.is_empty())).map(|taker| taker.task.clone()),
            taker_bootstrapped: seen.is_none() && taker.is_some(),
            owners,
            present: None,
            sk: holder.sk,
            inode: holder.inode,
            uid: holder.uid,
            options: holder.options,
            v6only: holder.options.is_some_and(SocketOptions::v6only),
            time_wait_left_ms: None,
            retransmits: 0,
            found: holder.found,
            verdict: Verdict::Unreadable,
        }
    }

    pub(super) fn from_report(netns: u32, reported: &ReportedHolder, owners_of: OwnersOf<'_>) -> Self {
        let family = match reported.local {
            SocketAddr::V4(_) => Family::V4,
            SocketAddr::V6(_) => Family::V6,
        };
        let mut holder = Self {
            endpoints: Endpoints {
                remote: reported.remote,
                device: reported.device,
                ..Endpoints::local_only(netns, family, reported.local)
            },
            state: reported.state,
            how: How::Unknown,
            since: None,
            taker: None,
            taker_bootstrapped: false,
            owners: owners_of(reported.inode).unwrap_or_default(),
            present: None,
            sk: 0,
            inode: reported.inode,
            uid: reported.uid,
            options: None,
            v6only: false,
            time_wait_left_ms: None,
            retransmits: 0,
            found: Found::SockDiag,
            verdict: Verdict::Unreadable,
        };
        holder.supplement(reported);
        holder
    }

    fn is(&self, reported: &ReportedHolder) -> bool {
        if self.inode != 0 && reported.inode != 0 {
            return self.inode == reported.inode;
        }
        self.endpoints.local == reported.local && self.endpoints.remote == reported.remote
    }

    fn supplement(&mut self, reported: &ReportedHolder) {
        for owner in &reported.owners {
            // Found in that process a moment later: it had it then, too, unless it was just handed over.
            self.owners.found(owner, OwnerConfidence::Likely);
        }
        if !reported.owners.is_empty() {
            self.present = Some(reported.owners.iter().map(|owner| owner.pid).collect());
        }
        // A socket of the kernel's own has an inode and no file, and by its file the kernel side looked it up.
        if self.inode == 0 && self.found != Found::BindHash {
            self.inode = reported.inode;
        }
        // The kernel keeps an orphan in FIN-WAIT-2 as it keeps one in TIME_WAIT, and tells them apart only here.
        if self.state == SocketState::TimeWait && reported.state == SocketState::FinWait2 {
            self.state = SocketState::FinWait2;
        }
        self.retransmits = reported.retransmits;
        self.time_wait_left_ms = reported.time_wait_left_ms.or(self.time_wait_left_ms);
        self.uid = self.uid.or(reported.uid);
        self.v6only |= reported.v6only.unwrap_or(false);
    }

    fn side(&self) -> Side {
        Side {
            local: self.endpoints.local,
            family: self.endpoints.family,
            device: self.endpoints.device,
            state: self.state,
            options: self.options,
            v6only: self.v6only,
            uid: self.uid,
        }
    }

    /// The lower, the rather this one is to be named: one that the rule convicts before one it cannot judge before one that
    /// happens to be there; then one that would stay before one that passes; then the one that was there first.
    fn rank(&self) -> (u8, u8, Timestamp) {
        let guilt = match self.verdict {
            Verdict::Conflict(_) => 0,
            Verdict::Unreadable => 1,
            Verdict::Compatible => 2,
        };
        let kind = match self.state {
            SocketState::Listen => 0,
            SocketState::Bound => 1,
            _ if self.is_remnant() => 5,
            // Connections: one that took the port itself before one that got it from its listener.
            _ if self.how != How::Unknown => 2,
            _ if self.is_named() => 3,
            _ => 4,
        };
        (guilt, kind, self.since.unwrap_or(Timestamp::from_nanos(u64::MAX)))
    }
}

/// TIME_WAIT, or a connection that is being closed and that no file leads to.
fn is_remnant(found: Found, state: SocketState, inode: u64) -> bool {
    match state {
        SocketState::TimeWait => true,
        SocketState::FinWait1 | SocketState::FinWait2 | SocketState::Closing | SocketState::LastAck => {
            // Our own records do not tell whether there is a file.
            inode == 0 && found != Found::History
        }
        _ => false,
    }
}

fn is_listener_without_file(found: Found, state: SocketState, inode: u64, uid: Option<u32>) -> bool {
    // The kernel side looks the inode up by the socket's file.
    found == Found::BindHash && state == SocketState::Listen && inode == 0 && uid == Some(0)
}

impl Conflict {
    /// The holder that is in the way, as far as can be told.
    pub fn holder(&self) -> Option<&PortHolder> {
        self.holders.first()
    }

    /// Whether all that is going to be known about it is known, or enough to tell it.
    pub fn is_explained(&self) -> bool {
        self.waiting.is_none()
    }

    fn sort_holders(&mut self) {
        let requester = Side {
            local: self.endpoints.local,
            family: self.endpoints.family,
            device: self.endpoints.device,
            state: SocketState::Bound,
            options: Some(self.options),
            v6only: self.options.v6only(),
            uid: Some(self.requester.uid),
        };
        for holder in &mut self.holders {
            holder.verdict = bind_rule::verdict(&requester, &holder.side());
        }
        self.holders.sort_by_key(PortHolder::rank);
    }

    /// Whether there is no need to wait for the report, which alone tells TIME_WAIT from FIN-WAIT-2.
    fn is_clear(&self) -> bool {
        self.holder().is_some_and(|holder| {
            matches!(holder.verdict, Verdict::Conflict(_))
                && holder.state != SocketState::TimeWait
                && (holder.is_named() || holder.how != How::Unknown)
        })
    }
}

/// All conflicts.
#[derive(Debug)]
pub(super) struct Conflicts {
    by_key: BoundedMap<ConflictKey, Conflict>,
}

impl Default for Conflicts {
    fn default() -> Self {
        Self { by_key: BoundedMap::new(CONFLICTS) }
    }
}

impl Conflicts {
    /// Nothing is known any more of this namespace.
    pub(super) fn forget(&mut self, netns: u32) {
        self.by_key.retain(|key, _| key.netns != netns);
    }

    /// The conflict of that name, while it is remembered.
    pub(super) fn get(&self, key: &ConflictKey) -> Option<&Conflict> {
        self.by_key.get(key)
    }

    /// How many were forgotten because there were too many.
    pub(super) fn forgotten(&self) -> u64 {
        self.by_key.forgotten()
    }

    /// An attempt failed.
    pub(super) fn note(&mut self, time: Timestamp, fail: &BindFail, owners_of: OwnersOf<'_>) -> ConflictKey {
        let key = ConflictKey {
            netns: fail.endpoints.netns,
            requested: fail.endpoints.local,
            comm: fail.task.comm.to_string(),
        };
        let fresh = || Conflict {
            attempts: 0,
            first: time,
            last: time,
            requester: fail.task.clone(),
            endpoints: fail.endpoints,
            stage: fail.stage,
            errno: fail.errno,
            options: fail.options,
            reuse_state: fail.reuse_state,
            holders_met: 0,
            holders: Vec::new(),
            incomplete: None,
            reported: false,
            waiting: Some(time),
        };
        let conflict = self.by_key.get_or_insert_with(key.clone(), fresh);
        conflict.attempts += 1;
        if time < conflict.last {
            return key;
        }
        let was_explained = conflict.attempts > 1 && conflict.waiting.is_none();
        let before = std::mem::take(&mut conflict.holders);
        conflict.last = time;
        conflict.requester = fail.task.clone();
        conflict.endpoints = fail.endpoints;
        conflict.stage = fail.stage;
        conflict.errno = fail.errno;
        conflict.options = fail.options;
        conflict.reuse_state = fail.reuse_state;
        conflict.holders_met = fail.holders_met;
        conflict.reported = false;
        conflict.holders = fail
            .holders
            .iter()
            .filter(|holder| holder.sk == 0 || holder.sk != fail.sk)
            .map(|holder| PortHolder::from_kernel(holder, owners_of))
            .collect();
        if conflict.holders.is_empty() && was_explained {
            // A tier that reads no holders in the kernel: those of the last attempt, until the report says otherwise.
            conflict.holders = before;
        } else {
            // What was looked up about the same socket at an earlier attempt still holds.
            for holder in &mut conflict.holders {
                if let Some(known) = before.iter().find(|known| {
                    known.inode != 0 && known.inode == holder.inode && known.endpoints == holder.endpoints
                }) {
                    holder.owners = known.owners.clone();
                    holder.present = known.present.clone();
                }
                let was_fin_wait = |known: &&PortHolder| {
                    known.state == SocketState::FinWait2 && known.endpoints == holder.endpoints
                };
                if holder.state == SocketState::TimeWait && before.iter().any(|known| was_fin_wait(&known)) {
                    holder.state = SocketState::FinWait2;
                }
            }
        }
        conflict.sort_holders();
        if conflict.is_clear() || was_explained {
            conflict.waiting = None;
        } else {
            conflict.waiting = conflict.waiting.or(Some(time));
        }
        key
    }

    /// sock_diag's report came. Returns the conflicts that it is about, and whether they waited for it.
    pub(super) fn note_report(
        &mut self,
        report: &HolderReport,
        owners_of: OwnersOf<'_>,
    ) -> Vec<(ConflictKey, bool)> {
        let mut keys: Vec<ConflictKey> = self
            .by_key
            .iter()
            .filter(|(key, conflict)| {
                key.netns == report.netns
                    && key.requested.port() == report.port
                    && (conflict.requester.pid == report.requester || conflict.waiting.is_some())
            })
            .map(|(key, _)| key.clone())
            .collect();
        keys.sort_unstable();
        let mut told = Vec::new();
        for key in keys {
            let Some(conflict) = self.by_key.get_mut(&key) else { continue };
            let from_kernel = conflict.holders.iter().any(|holder| holder.found != Found::SockDiag);
            if !from_kernel {
                conflict.holders.clear();
            }
            let own = |reported: &ReportedHolder| {
                // At listen() the socket that asks has the port, too.
                conflict.stage == BindStage::Listen
                    && reported.state == SocketState::Bound
                    && !reported.owners.is_empty()
                    && reported.owners.iter().all(|owner| owner.pid == report.requester)
            };
            let others: Vec<&ReportedHolder> =
                report.holders.iter().filter(|reported| !own(reported)).collect();
            for reported in others {
                if let Some(known) = conflict.holders.iter_mut().find(|known| known.is(reported)) {
                    known.supplement(reported);
                } else if !from_kernel {
                    // What the kernel's own list has not was not there at that moment.
                    conflict.holders.push(PortHolder::from_report(report.netns, reported, owners_of));
                }
            }
            conflict.incomplete.clone_from(&report.incomplete);
            conflict.reported = true;
            let was_waiting = conflict.waiting.take().is_some();
            conflict.sort_holders();
            told.push((key, was_waiting));
        }
        told
    }

    /// Ends the waiting for reports that did not come in time (or at all, at the `end`). Returns the conflicts that waited.
    pub(super) fn stop_waiting(&mut self, now: Timestamp, end: bool) -> Vec<ConflictKey> {
        let late = |conflict: &Conflict| {
            conflict.waiting.is_some_and(|since| end || now.since(since) >= WAIT_FOR_REPORT)
        };
        let mut keys: Vec<ConflictKey> =
            self.by_key.iter().filter(|(_, conflict)| late(conflict)).map(|(key, _)| key.clone()).collect();
        keys.sort_unstable();
        for key in &keys {
            if let Some(conflict) = self.by_key.get_mut(key) {
                conflict.waiting = None;
            }
        }
        keys
    }
}
