//! Puts the answer together: sock_diag for each namespace, owners for all of them at once.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::RangeInclusive;
use std::path::Path;

use crate::event::{Family, OpenSocket, PortSet, SocketState, Timestamp};
use crate::host::devices::device;
use crate::host::knobs::Knobs;
use crate::host::netns::{Netns, NetnsError, NetnsTable, in_netns, standpoint};
use crate::host::procfs::Procfs;
use crate::host::sock_diag::{self, Query, SockDiag, SockDiagError, States};
use crate::host::sockstat::SockStat;
use crate::identity::process::Process as Identity;
use crate::identity::sockets::SocketOwners;
use crate::probe::ProbeError;
use crate::stock::{self, Gap};

use super::holder::Taken;
use super::{Answer, Belonging, Holder, Place, Question};

/// Answers `question` now.
///
/// # Errors
/// When not even the caller's own namespace can be opened. All else that fails is a gap in the answer.
pub fn ask(question: &Question) -> Result<Answer, NetnsError> {
    let procfs = Procfs::default();
    let mut answer = Answer { standpoint: standpoint(), ..Answer::default() };
    let only = question.netns.as_ref().map(Netns::id);
    // Side by side: each is a walk through a table of the kernel's.
    let (listed, open) = std::thread::scope(|scope| {
        let open = scope.spawn(|| iterate(&question.ports));
        let listed = namespaces(question, &procfs, &mut answer.gaps).map(|namespaces| {
            let mut gaps = Vec::new();
            let places =
                namespaces.iter().map(|(netns, is_own)| place(netns, *is_own, &question.ports, &mut gaps));
            let places: BTreeMap<u32, Place> = places.map(|place| (place.id, place)).collect();
            (places, gaps, namespaces)
        });
        (listed, open.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    });
    let (mut places, gaps, namespaces) = listed?;
    answer.gaps.extend(gaps);
    match open {
        Ok(sockets) => {
            answer.owners_via = "iter task_file";
            let wanted = sockets.iter().filter(|s| only.is_none_or(|only| only == s.endpoints.netns));
            add(&mut places, wanted);
            whoever_is_not_seen(&mut places);
        }
        Err(error) => {
            answer.owners_via = "procfs";
            log::debug!("owners of sockets: {error}");
            from_procfs(&mut places, &procfs, &mut answer.gaps);
            if sock_diag::lists_bound_only() != Some(true) {
                answer.gaps.push(Gap::new("sockets", format!(
                    "sockets that are bound and nothing else, which this kernel's sock_diag may not list ({error})"
                )));
            }
        }
    }
    describe(&mut places, &procfs);
    name_devices(&mut places, &namespaces);
    let mut places: Vec<Place> = places.into_values().collect();
    for place in &mut places {
        tell_children(place);
        place.holders.sort_by_key(Holder::rank);
    }
    places.sort_by_key(|place| (!place.is_own, place.id));
    if places.iter().flat_map(|place| &place.holders).any(|holder| holder.belongs == Belonging::Hidden)
        && !nix::unistd::Uid::effective().is_root()
    {
        answer.gaps.push(Gap::new("owners", "other users' processes (run with sudo)"));
    }
    answer.places = places;
    Ok(answer)
}

/// The namespaces to look at, and whether each is the one that is meant in the first place.
fn namespaces(
    question: &Question,
    procfs: &Procfs,
    gaps: &mut Vec<Gap>,
) -> Result<Vec<(Netns, bool)>, NetnsError> {
    if let Some(only) = &question.netns {
        return Ok(vec![(only.clone(), true)]);
    }
    let mut table = NetnsTable::new(procfs.clone())?;
    match table.refresh() {
        Ok(refresh) => {
            let sudo = if nix::unistd::Uid::effective().is_root() { "" } else { " (run with sudo)" };
            for (count, what) in [
                (refresh.unreadable, "network namespaces of processes that may not be looked at"),
                (refresh.unopened, "network namespaces that cannot be opened"),
            ] {
                if count > 0 {
                    gaps.push(Gap::new("namespaces", format!("{what}: {count}{sudo}")));
                }
            }
        }
        Err(error) => gaps.push(Gap::new("namespaces", format!("other network namespaces: {error}"))),
    }
    Ok(table.iter().map(|netns| (netns.clone(), netns.id() == table.own())).collect())
}

/// A namespace, with what sock_diag lists in it.
fn place(netns: &Netns, is_own: bool, ports: &PortSet, gaps: &mut Vec<Gap>) -> Place {
    let mut place =
        Place { id: netns.id(), name: netns.name().map(str::to_owned), is_own, ..Place::default() };
    let mut families = vec![Family::V4, Family::V6];
    match in_netns(netns, || (Knobs::read_from(Path::new("/proc/sys")), SockStat::read(Path::new("/proc")))) {
        Ok((knobs, sockets)) => {
            place.knobs = knobs;
            if let Some(sockets) = sockets {
                // Those that are only bound are not counted, and need not be: the iterator shows them, and where there is none,
                // sock_diag is asked all the same.
                families = sockets.families();
            }
        }
        Err(error) => {
            gaps.push(Gap::new("knobs", format!("settings of network namespace {}: {error}", netns.id())));
        }
    }
    match listed(netns, ports, &families) {
        Ok((holders, interrupted)) => {
            place.holders = holders;
            if interrupted {
                gaps.push(Gap::new(
                    "sockets",
                    format!(
                        "some sockets of network namespace {}, whose tables changed while they were listed",
                        netns.id()
                    ),
                ));
            }
        }
        Err(error) => gaps.push(Gap::new("sockets", error.to_string())),
    }
    place
}

fn listed(netns: &Netns, ports: &PortSet, families: &[Family]) -> Result<(Vec<Holder>, bool), SockDiagError> {
    let mut holders = Vec::new();
    let mut interrupted = false;
    if families.is_empty() {
        return Ok((holders, interrupted));
    }
    let mut diag = SockDiag::open(netns)?;
    for range in spans(ports) {
        let found = diag.sockets_of(families, &Query { states: States::ALL, ports: Some(range) })?;
        interrupted |= found.interrupted;
        let wanted = found.sockets.iter().filter(|socket| ports.contains(socket.local.port()));
        holders.extend(wanted.map(|socket| Holder::of_diag(netns.id(), socket)));
    }
    Ok((holders, interrupted))
}

/// Each dump walks the kernel's whole table, whatever it is asked for: many ranges are asked for as one.
const DUMPS: usize = 4;

fn spans(ports: &PortSet) -> Vec<RangeInclusive<u16>> {
    let ranges: Vec<_> = ports.ranges().collect();
    if ranges.len() <= DUMPS { ranges } else { span(ports).into_iter().collect() }
}

/// From the first to the last.
fn span(ports: &PortSet) -> Option<RangeInclusive<u16>> {
    let first = ports.ranges().next()?;
    let last = ports.ranges().last()?;
    Some(*first.start()..=*last.end())
}

fn iterate(ports: &PortSet) -> Result<Vec<OpenSocket>, ProbeError> {
    let mut sockets = Vec::new();
    if let Some(span) = span(ports) {
        stock::iterator(&span, None)?.read(|socket| {
            if ports.contains(socket.endpoints.local.port()) {
                sockets.push(socket);
            }
        })?;
    }
    Ok(sockets)
}

/// Joins sockets that processes have open with what sock_diag said of them. The inode tells them apart; a socket without a
/// file has no owner.
fn add<'a>(places: &mut BTreeMap<u32, Place>, sockets: impl Iterator<Item = &'a OpenSocket>) {
    let mut known: HashMap<(u32, u64), usize> = HashMap::new();
    for place in places.values() {
        let holders = place.holders.iter().enumerate().filter(|(_, holder)| holder.inode != 0);
        known.extend(holders.map(|(index, holder)| ((place.id, holder.inode), index)));
    }
    for socket in sockets {
        let netns = socket.endpoints.netns;
        // A namespace that only the socket itself keeps alive is not in the table.
        let place = places.entry(netns).or_insert_with(|| Place { id: netns, ..Place::default() });
        let index = *known.entry((netns, socket.inode)).or_insert(place.holders.len());
        match place.holders.get_mut(index) {
            Some(holder) => holder.supplement(socket),
            None => place.holders.push(Holder::of_open(socket)),
        }
    }
}

/// The iterator has shown every descriptor of every process: a socket that none of them is for has no process. Whose it is then
/// stays open.
fn whoever_is_not_seen(places: &mut BTreeMap<u32, Place>) {
    for holder in places.values_mut().flat_map(|place| &mut place.holders) {
        if holder.belongs == Belonging::Hidden {
            holder.belongs = Belonging::NoProcess;
        }
    }
}

fn from_procfs(places: &mut BTreeMap<u32, Place>, procfs: &Procfs, gaps: &mut Vec<Gap>) {
    let holders = || places.values().flat_map(|place| &place.holders);
    let inodes: HashSet<u64> = holders().map(|holder| holder.inode).filter(|inode| *inode != 0).collect();
    let owners = match SocketOwners::find(procfs, &inodes) {
        Ok(owners) => owners,
        Err(error) => return gaps.push(Gap::new("owners", format!("the owners of sockets: {error}"))),
    };
    for holder in places.values_mut().flat_map(|place| &mut place.holders) {
        for owner in owners.of(holder.inode) {
            holder.add_owner(owner.pid, owner.fd);
        }
    }
}

/// Says what the devices are called that sockets are bound to.
fn name_devices(places: &mut BTreeMap<u32, Place>, namespaces: &[(Netns, bool)]) {
    for place in places.values_mut() {
        let bound: HashSet<u32> = place.holders.iter().map(|holder| holder.device).collect();
        let Some((netns, _)) = namespaces.iter().find(|(netns, _)| netns.id() == place.id) else { continue };
        place.devices = bound
            .into_iter()
            .filter(|index| *index != 0)
            .filter_map(|index| {
                let found = device(netns, index).inspect_err(|error| log::warn!("{error}")).ok()?;
                Some((index, found?.name))
            })
            .collect();
    }
}

/// Says who the processes are. One that is gone by now stays as a number.
fn describe(places: &mut BTreeMap<u32, Place>, procfs: &Procfs) {
    let boot = boot();
    let mut known: HashMap<u32, Option<Identity>> = HashMap::new();
    for process in places.values_mut().flat_map(|place| &mut place.holders).flat_map(|h| &mut h.processes) {
        let identity = known.entry(process.pid).or_insert_with(|| Identity::read(procfs, process.pid).ok());
        let Some(identity) = identity else { continue };
        process.comm.clone_from(&identity.comm);
        process.command.clone_from(&identity.command);
        process.container = identity.place();
        process.details = identity.details();
        process.started = boot.map(|boot| boot.after(identity.started()));
    }
    for holder in places.values_mut().flat_map(|place| &mut place.holders) {
        holder.processes.sort_by_key(|process| process.pid);
    }
}

/// When this host was started, by the wall clock.
fn boot() -> Option<Timestamp> {
    use nix::time::{ClockId, clock_gettime};
    let read = |clock| clock_gettime(clock).ok().map(std::time::Duration::from);
    let now = Timestamp::from_nanos(u64::try_from(read(ClockId::CLOCK_REALTIME)?.as_nanos()).ok()?);
    Some(now.before(read(ClockId::CLOCK_BOOTTIME)?))
}

/// A connection whose port nobody asked for by number has it from its listener, or from connect(). A port that the kernel does not
/// choose is a listener's, also if that is gone by now.
fn tell_children(place: &mut Place) {
    let listening: HashSet<u16> = place
        .holders
        .iter()
        .filter(|holder| holder.state == SocketState::Listen)
        .map(|holder| holder.local.port())
        .collect();
    for holder in &mut place.holders {
        // Only where its locks were read is it known that nobody asked for the port.
        if holder.taken.is_none() && holder.state.is_connected() && holder.options.is_some() {
            let port = holder.local.port();
            let chosen = place.knobs.ip_local_port_range.is_none_or(|range| range.contains(port));
            let accepted = listening.contains(&port) || !chosen;
            holder.taken = Some(if accepted { Taken::Accepted } else { Taken::Connect });
        }
    }
}
