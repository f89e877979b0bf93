//! What the host shows of the things that can be behind a drop, read when a packet is dropped.
//!
//! Everything is remembered for a second or more, and what costs much is not read for every packet: a flood of drops must not
//! make the tracer busy.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::event::{
    CgroupFacts, ConntrackFacts, DropFacts, HandshakeDrop, NeighbourFacts, NetfilterQueue, Packet, RuleDeed,
    RuleFacts, Timestamp,
};
use crate::host::devices;
use crate::host::neighbours::NeighbourTable;
use crate::host::netfilter::{self, ConntrackReader, Hook, RulePacket, Rules, queues};
use crate::host::netns::Netns;
use crate::host::procfs::Procfs;
use crate::host::route::{Route, route};
use crate::identity::cgroup_programs::{self, Direction};
use crate::identity::cgroup_tree::CgroupTree;

use super::grown::GrownCounter;
use super::places::Places;

/// What was read so long ago is as good as new.
const FRESH: Duration = Duration::from_secs(1);
/// The same for rules, whose dump may be long.
const RULES_FRESH: Duration = Duration::from_secs(5);
/// Namespaces whose connection tracking is followed from the start, so that its first drop is known. Others from their first
/// drop on.
const FOLLOWED: usize = 8;
/// Routes that are asked for in a second.
const ROUTES: usize = 32;
/// Namespaces, routes, groups that are remembered.
const REMEMBERED: usize = 1024;

/// Connection tracking of a namespace.
struct Tracking {
    reader: ConntrackReader,
    dropped: GrownCounter,
    invalid: GrownCounter,
    /// Its counter when it was first read.
    base: u64,
}

/// A device and a neighbour that packets to some address go to.
#[derive(Clone, Default)]
struct Way {
    device: Option<String>,
    next_hop: Option<IpAddr>,
}

/// What was read of the host.
pub(super) struct Surroundings {
    procfs: Procfs,
    tracking: BTreeMap<u32, Option<Tracking>>,
    queues: HashMap<u32, (Instant, Option<Vec<NetfilterQueue>>)>,
    rules: HashMap<u32, (Instant, Rules)>,
    ways: HashMap<(u32, IpAddr), (Instant, Way)>,
    names: HashMap<(u32, u32), (Instant, Option<String>)>,
    asked_ways: usize,
    tables: [Option<(Instant, NeighbourTable, GrownCounter)>; 2],
    cgroups: Option<CgroupTree>,
    cgroups_read: Option<Instant>,
    listener_groups: HashMap<(u32, u16), (Instant, Option<u64>)>,
    filters: HashMap<(u64, bool), (Instant, Option<CgroupFacts>)>,
}

impl Surroundings {
    pub(super) fn new(procfs: Procfs, places: &Places) -> Self {
        let mut surroundings = Self {
            cgroups: CgroupTree::mounted(&procfs),
            procfs,
            tracking: BTreeMap::new(),
            queues: HashMap::new(),
            rules: HashMap::new(),
            ways: HashMap::new(),
            names: HashMap::new(),
            asked_ways: 0,
            tables: [None, None],
            cgroups_read: None,
            listener_groups: HashMap::new(),
            filters: HashMap::new(),
        };
        surroundings.second(Timestamp::default(), places);
        for ipv6 in [false, true] {
            surroundings.neighbour_table(Timestamp::default(), ipv6);
        }
        surroundings
    }

    /// A second has passed: counters are read whose growth will tell which drops they counted.
    pub(super) fn second(&mut self, now: Timestamp, places: &Places) {
        self.asked_ways = 0;
        let ids = places.ids();
        self.tracking.retain(|netns, _| ids.contains(netns));
        for netns in ids.into_iter().take(FOLLOWED) {
            if let Some(place) = places.netns(netns) {
                self.follow(place);
            }
        }
        for tracking in self.tracking.values_mut().flatten() {
            tracking.read(now);
        }
        forget_old(&mut self.queues, FRESH);
        forget_old(&mut self.rules, RULES_FRESH);
        forget_old(&mut self.ways, RULES_FRESH);
        forget_old(&mut self.names, RULES_FRESH);
        forget_old(&mut self.listener_groups, RULES_FRESH);
        forget_old(&mut self.filters, RULES_FRESH);
    }

    fn follow(&mut self, netns: &Netns) {
        let known = self.tracking.get(&netns.id());
        if known.is_some_and(Option::is_some) || (known.is_none() && self.tracking.len() >= REMEMBERED) {
            return;
        }
        // The module may come later, with the first rule that asks for it; then it has counted nothing before.
        let came_later = known.is_some();
        let tracking = self.is_tracked().then(|| Tracking::open(netns, came_later)).flatten();
        self.tracking.insert(netns.id(), tracking);
    }

    /// Whether the module that tracks connections is there at all.
    fn is_tracked(&self) -> bool {
        self.procfs.root().join("sys/net/netfilter/nf_conntrack_max").exists()
    }

    /// What bears on the reason of a drop. `now` is when this is asked.
    pub(super) fn of(
        &mut self,
        drop: &HandshakeDrop,
        dropped: Timestamp,
        now: Timestamp,
        places: &mut Places,
    ) -> Option<Box<DropFacts>> {
        let netns = places.netns(drop.endpoints.netns)?.clone();
        let function = drop.function.as_deref().unwrap_or_default();
        let reason = drop.reason_name.as_deref().unwrap_or_default();
        let is = |words: &[&str], functions: &[&str]| {
            words.contains(&reason)
                || (matches!(reason, "" | "NOT_SPECIFIED")
                    && functions.iter().any(|name| function.starts_with(name)))
        };
        let mut facts = DropFacts::default();
        let way = self.way(drop, &netns);
        facts.device = way.device;
        if is(&["NETFILTER_DROP"], &["nf_hook_slow"]) {
            facts.conntrack = self.conntrack(&netns, dropped, now);
            facts.rules = self.rules(drop, &netns, facts.device.as_deref(), &[RuleDeed::Queue]);
        }
        if is(&[], &["nf_queue", "__nf_queue", "nf_reinject", "nfqnl_"]) {
            facts.queues = self.queues(&netns);
            facts.rules =
                self.rules(drop, &netns, facts.device.as_deref(), &[RuleDeed::Drop, RuleDeed::Policy]);
        }
        let neighbours =
            ["ip_finish_output2", "ip6_finish_output2", "neigh_", "__neigh", "arp_error", "ndisc_error"];
        if reason.starts_with("NEIGH_") || is(&[], &neighbours) {
            facts.next_hop = way.next_hop;
        }
        if is(&["NEIGH_CREATEFAIL"], &["ip_finish_output2", "ip6_finish_output2"]) {
            facts.neighbours = self.neighbours(drop.server().is_ipv6(), dropped, now);
        }
        if is(
            &["SOCKET_FILTER", "BPF_CGROUP_EGRESS", "BPF_CGROUP_INGRESS"],
            &["ip_finish_output", "ip6_finish_output"],
        ) && !function.ends_with("output2")
        {
            facts.cgroup = self.cgroup(drop, places);
        }
        if is(&["CPU_BACKLOG"], &["enqueue_to_backlog"]) {
            let path: PathBuf = self.procfs.root().join("sys/net/core/netdev_max_backlog");
            facts.netdev_max_backlog =
                std::fs::read_to_string(path).ok().and_then(|text| text.trim().parse().ok());
        }
        (facts != DropFacts::default()).then(|| Box::new(facts))
    }

    fn conntrack(&mut self, netns: &Netns, dropped: Timestamp, now: Timestamp) -> Option<ConntrackFacts> {
        let was_followed = self.tracking.contains_key(&netns.id());
        self.follow(netns);
        let tracking = self.tracking.get_mut(&netns.id())?.as_mut()?;
        let read = tracking.read(now)?;
        let counted = read.dropped.is_some() && was_followed;
        let mut facts = ConntrackFacts {
            count: read.count,
            max: read.max,
            dropped: tracking.dropped.meet(dropped),
            invalid: false,
            drops: read.dropped.unwrap_or(0).saturating_sub(tracking.base),
            counted,
        };
        facts.invalid = facts.dropped && tracking.invalid.meet(dropped);
        // Where nothing was counted from the start, a table that is full now tells.
        facts.dropped |= !counted && facts.is_full();
        Some(facts)
    }

    fn queues(&mut self, netns: &Netns) -> Option<Vec<NetfilterQueue>> {
        let read = || {
            let read = queues(netns);
            (
                Instant::now(),
                read.inspect_err(|error| log::debug!("netfilter queues: {error}")).ok().flatten(),
            )
        };
        let (read_at, known) = self.queues.entry(netns.id()).or_insert_with(read);
        if read_at.elapsed() >= FRESH {
            (*read_at, *known) = read();
        }
        known.clone()
    }

    /// What the rules say, without those that do what did not happen to this packet.
    fn rules(
        &mut self,
        drop: &HandshakeDrop,
        netns: &Netns,
        device: Option<&str>,
        not: &[RuleDeed],
    ) -> Option<RuleFacts> {
        let read = || (Instant::now(), netfilter::rules(netns));
        let (read_at, known) = self.rules.entry(netns.id()).or_insert_with(read);
        if read_at.elapsed() >= RULES_FRESH {
            (*read_at, *known) = read();
        }
        let mut facts = known.about(&packet(drop, device));
        facts.rule = facts.rule.filter(|rule| !not.contains(&rule.deed));
        facts.candidates.retain(|rule| !not.contains(&rule.deed));
        Some(facts)
    }

    /// The device that a packet came in by, or the device and neighbour that it goes to.
    fn way(&mut self, drop: &HandshakeDrop, netns: &Netns) -> Way {
        if !drop.outgoing {
            let key = (netns.id(), drop.endpoints.device);
            let name = || (Instant::now(), device_name(netns, drop.endpoints.device));
            return Way { device: self.names.entry(key).or_insert_with(name).1.clone(), next_hop: None };
        }
        let Some(to) = drop.endpoints.remote.map(|remote| remote.ip()) else { return Way::default() };
        let key = (netns.id(), to);
        if let Some((_, known)) = self.ways.get(&key) {
            return known.clone();
        }
        if self.asked_ways >= ROUTES || self.ways.len() >= REMEMBERED {
            return Way::default();
        }
        self.asked_ways += 1;
        let way = match route(netns, to) {
            Ok(Route::Unicast { gateway, device, .. }) => {
                Way { device: device_name(netns, device), next_hop: Some(gateway.unwrap_or(to)) }
            }
            Ok(Route::Local) => Way { device: Some("lo".to_owned()), next_hop: None },
            Ok(_) => Way::default(),
            Err(error) => {
                log::debug!("{error}");
                Way::default()
            }
        };
        self.ways.insert(key, (Instant::now(), way.clone()));
        way
    }

    fn neighbour_table(&mut self, now: Timestamp, ipv6: bool) -> Option<NeighbourTable> {
        let place = self.tables.get_mut(usize::from(ipv6))?;
        if let Some((read_at, table, _)) = place
            && read_at.elapsed() < FRESH
        {
            return Some(*table);
        }
        let read = NeighbourTable::read(ipv6)?;
        let mut overflows = place.take().map(|(_, _, overflows)| overflows).unwrap_or_default();
        overflows.note(now, read.overflows.unwrap_or(0));
        *place = Some((Instant::now(), read, overflows));
        Some(read)
    }

    fn neighbours(&mut self, ipv6: bool, dropped: Timestamp, now: Timestamp) -> Option<NeighbourFacts> {
        let table = self.neighbour_table(now, ipv6)?;
        let overflows =
            self.tables.get_mut(usize::from(ipv6))?.as_mut().map(|(_, _, overflows)| overflows)?;
        Some(NeighbourFacts {
            entries: table.entries,
            limit: table.limit,
            overflowed: overflows.meet(dropped),
        })
    }

    /// The control group of the listener, or of the process that sends, and the programs that filter it.
    fn cgroup(&mut self, drop: &HandshakeDrop, places: &mut Places) -> Option<CgroupFacts> {
        let id = match &drop.task {
            Some(task) if drop.outgoing && drop.packet != Packet::SynAck => task.cgroup,
            _ if drop.is_at_server() => self.group_of_listener(drop, places)?,
            _ => return None,
        };
        if let Some((_, known)) = self.filters.get(&(id, drop.outgoing)) {
            return known.clone();
        }
        let found = self.filters_of(id, drop.outgoing);
        self.filters.insert((id, drop.outgoing), (Instant::now(), found.clone()));
        found
    }

    fn filters_of(&mut self, id: u64, outgoing: bool) -> Option<CgroupFacts> {
        let tree = self.cgroups.as_mut()?;
        if tree.path(id).is_none() && self.cgroups_read.is_none_or(|read| read.elapsed() >= FRESH) {
            self.cgroups_read = Some(Instant::now());
            if let Err(error) = tree.refresh() {
                log::debug!("control groups: {error}");
            }
        }
        let path = tree.path(id)?.to_owned();
        let direction = if outgoing { Direction::Egress } else { Direction::Ingress };
        let filters = cgroup_programs::filters(tree.mount(), &path, direction);
        if let Err(error) = &filters {
            log::debug!("programs of the control group {path}: {error}");
        }
        let asked = filters.is_ok();
        let filters = filters.unwrap_or_default();
        Some(CgroupFacts { path, attached_to: filters.attached_to, programs: filters.programs, asked })
    }

    fn group_of_listener(&mut self, drop: &HandshakeDrop, places: &mut Places) -> Option<u64> {
        let server = drop.server();
        let key = (drop.endpoints.netns, server.port());
        if let Some((_, known)) = self.listener_groups.get(&key) {
            return *known;
        }
        let listeners = places.diag(key.0).and_then(|diag| diag.listeners().ok()).unwrap_or_default();
        let mut here = listeners.iter().filter(|listener| listener.local.port() == server.port());
        let group = here.find_map(|listener| listener.cgroup);
        self.listener_groups.insert(key, (Instant::now(), group));
        group
    }
}

impl Tracking {
    /// `new`: what it has counted so far, it has counted since it was last looked for.
    fn open(netns: &Netns, new: bool) -> Option<Self> {
        let reader = ConntrackReader::open(netns)
            .inspect_err(|error| log::debug!("connection tracking of namespace {}: {error}", netns.id()))
            .ok()??;
        let read = reader.read().inspect_err(|error| log::debug!("connection tracking: {error}")).ok()?;
        let base = if new { 0 } else { read.dropped.unwrap_or(0) };
        let mut tracking =
            Self { reader, dropped: GrownCounter::default(), invalid: GrownCounter::default(), base };
        tracking.dropped.note(Timestamp::default(), base);
        tracking.invalid.note(Timestamp::default(), if new { 0 } else { read.invalid.unwrap_or(0) });
        Some(tracking)
    }

    fn read(&mut self, now: Timestamp) -> Option<netfilter::Conntrack> {
        let read =
            self.reader.read().inspect_err(|error| log::debug!("connection tracking: {error}")).ok()?;
        if let Some(dropped) = read.dropped {
            self.dropped.note(now, dropped);
        }
        if let Some(invalid) = read.invalid {
            self.invalid.note(now, invalid);
        }
        Some(read)
    }
}

fn device_name(netns: &Netns, index: u32) -> Option<String> {
    let found = if index == 0 { Ok(None) } else { devices::device(netns, index) };
    found.inspect_err(|error| log::debug!("{error}")).ok().flatten().map(|device| device.name)
}

fn forget_old<K, V>(map: &mut HashMap<K, (Instant, V)>, after: Duration) {
    map.retain(|_, (read, _)| read.elapsed() < after);
}

/// The packet as rules look at it. On the loopback device the route is known from the start: what was dropped in PREROUTING
/// looks as if it was in INPUT.
fn packet(drop: &HandshakeDrop, device: Option<&str>) -> RulePacket {
    let local = drop.endpoints.local;
    let remote = drop.endpoints.remote.unwrap_or(local);
    let (source, destination) = if drop.outgoing { (local, remote) } else { (remote, local) };
    // What comes in is for this namespace, or goes through it, as soon as that is decided.
    let (hooks, is_local): (&[Hook], _) = match (drop.outgoing, drop.input, drop.input_name.as_deref()) {
        (true, ..) => (&[Hook::Output, Hook::Postrouting], None),
        (false, 0, _) => (&[Hook::Prerouting], None),
        (false, _, Some("ip_forward" | "ip6_forward")) => (&[Hook::Forward, Hook::Postrouting], Some(false)),
        (false, ..) => (&[Hook::Prerouting, Hook::Input], Some(true)),
    };
    RulePacket {
        source: Some(source),
        destination,
        is_local,
        packet: drop.packet,
        outgoing: drop.outgoing,
        hooks,
        device: drop.endpoints.device,
        device_name: device.map(str::to_owned),
    }
}
