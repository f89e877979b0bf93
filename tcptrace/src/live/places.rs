//! The network namespaces being traced: their counters, knobs and sockets, read beside the probes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::{
    event::{
        BindFail, ClockOffset, CounterSample, Device, Endpoints, Ipv6Off, Kind, KnobSample, SocketState,
        Timestamp, UnusableAddress,
    },
    host::{
        addresses::{addresses, ipv6_obstacles},
        counters::CounterReader,
        devices,
        knobs::Knobs,
        neighbours::link_address,
        netns::{Netns, NetnsError, NetnsTable},
        procfs::Procfs,
        route::{Route, route},
        sock_diag::{DiagSocket, Listener, Query, SockDiag, States},
    },
};

use super::{clock, once::Once, reverse_path::ReversePath};

/// Namespaces whose knobs are read every second; of more, only now and then.
const FEW: usize = 8;

/// Addresses that were read so long ago are as good as new: a service that cannot start tries again and again.
const ADDRESSES_FRESH: Duration = Duration::from_millis(250);

/// How long a device's name is taken for the same: devices are renamed, and indexes used again, but not often.
const DEVICE_FRESH: Duration = Duration::from_secs(5);

/// Knobs that were read so long ago are read again where a finding rests on them.
const KNOBS_FRESH: Duration = Duration::from_millis(200);

/// How long a namespace that could not be found is not looked for again.
const UNFOUND: Duration = Duration::from_secs(2);

/// Time between two looks for namespaces that events name, as a multiple of what the last one took.
const MEETING_FACTOR: u32 = 10;

/// How many devices with IPv6 off are named.
const NAMED: usize = 16;

/// One namespace. Its handles keep it alive: dropped as soon as nobody else refers to it.
struct Place {
    netns: Netns,
    counters: Option<CounterReader>,
    said_counters: Option<CounterSample>,
    said_knobs: Option<KnobSample>,
    /// When they were last read.
    read_knobs: Option<Instant>,
    diag: Option<SockDiag>,
    reverse_path: ReversePath,
}

impl Place {
    /// Its counters, if they have changed since they were last said.
    fn counters(&mut self, netns: u32) -> Option<Kind> {
        let reader = self.counters.as_mut()?;
        let read = reader.read();
        let sample = read.inspect_err(|error| log::debug!("counters of namespace {netns}: {error}")).ok()?;
        if self.said_counters == Some(sample) {
            return None;
        }
        self.said_counters = Some(sample);
        Some(Kind::CounterSample(Box::new(sample)))
    }

    /// Its knobs, if they have changed since they were last said.
    fn knobs(&mut self, netns: u32) -> Option<Kind> {
        self.read_knobs = Some(Instant::now());
        let knobs = Knobs::of(&self.netns)
            .inspect_err(|error| log::debug!("knobs of namespace {netns}: {error}"))
            .ok()?;
        let cookie = self.counters.as_ref().and_then(CounterReader::cookie);
        let name = self.netns.name().map(str::to_owned);
        let sample = KnobSample { cookie, name, ..knob_sample(netns, &knobs) };
        if self.said_knobs.as_ref() == Some(&sample) {
            return None;
        }
        self.said_knobs = Some(sample.clone());
        Some(Kind::KnobSample(Box::new(sample)))
    }
}

/// All namespaces being traced.
pub(super) struct Places {
    table: NetnsTable,
    /// Only those that were asked for.
    only: bool,
    /// Addresses of namespaces, as last read.
    addresses: BTreeMap<u32, (Instant, Vec<IpAddr>)>,
    /// Devices that were introduced, by namespace and index, and when they were last looked at.
    devices: BTreeMap<(u32, u32), (Instant, Option<Device>)>,
    places: BTreeMap<u32, Place>,
    /// Namespaces that went since that was last asked.
    gone: Vec<u32>,
    /// Namespaces that events named and that were not found, and when they were looked for.
    unfound: BTreeMap<u32, Instant>,
    /// When all processes were last looked through, and how long that took.
    looked: Option<(Instant, Duration)>,
    seconds: u64,
    once: Once,
}

impl Places {
    /// # Errors
    /// When this process's own namespace cannot be opened, or the one asked for is not to be found.
    pub(super) fn new(procfs: Procfs, only: &[Netns]) -> Result<Self, NetnsError> {
        let mut places = Self {
            table: NetnsTable::new(procfs)?,
            only: !only.is_empty(),
            addresses: BTreeMap::new(),
            devices: BTreeMap::new(),
            places: BTreeMap::new(),
            gone: Vec::new(),
            unfound: BTreeMap::new(),
            looked: None,
            seconds: 0,
            once: Once::default(),
        };
        if only.is_empty() {
            places.look_around();
        }
        for netns in only {
            places.open(netns);
        }
        Ok(places)
    }

    fn open(&mut self, netns: &Netns) {
        let id = netns.id();
        let counters = CounterReader::open(netns)
            .inspect_err(|error| log::debug!("counters of namespace {id}: {error}"))
            .ok();
        self.places.entry(id).or_insert_with(|| Place {
            netns: netns.clone(),
            counters,
            said_counters: None,
            said_knobs: None,
            read_knobs: None,
            diag: None,
            reverse_path: ReversePath::default(),
        });
    }

    /// Finds namespaces that came and lets go of those that went.
    fn look_around(&mut self) {
        let begin = Instant::now();
        match self.table.refresh() {
            Ok(refresh) => {
                for gone in &refresh.gone {
                    self.places.remove(gone);
                    self.addresses.remove(gone);
                }
                self.gone.extend(&refresh.gone);
                if !refresh.gone.is_empty() {
                    self.devices.retain(|(netns, _), _| !refresh.gone.contains(netns));
                }
                if refresh.unopened > 0 {
                    log::warn!(
                        "{} network namespaces could not be opened: their counters are not compared",
                        refresh.unopened
                    );
                }
            }
            Err(error) => log::warn!("network namespaces: {error}"),
        }
        let mut new: Vec<Netns> = Vec::new();
        for netns in self.table.iter() {
            match self.places.get_mut(&netns.id()) {
                // It may have been given a name since.
                Some(place) => place.netns = netns.clone(),
                None => new.push(netns.clone()),
            }
        }
        for netns in &new {
            self.open(netns);
        }
        self.looked = Some((Instant::now(), begin.elapsed()));
    }

    /// Namespaces that went since this was last asked: their numbers may be given to others.
    pub(super) fn take_gone(&mut self) -> Vec<u32> {
        std::mem::take(&mut self.gone)
    }

    /// What a namespace begins with that an event names and that is not known: it was made a moment ago, and its number may have
    /// been another one's before.
    pub(super) fn meet(&mut self, netns: u32) -> Vec<Kind> {
        if self.only || self.places.contains_key(&netns) {
            return Vec::new();
        }
        self.unfound.retain(|_, looked| looked.elapsed() < UNFOUND);
        // Where namespaces come and go all the time, looking for them must not be all that is done.
        let too_soon = self.looked.is_some_and(|(looked, took)| looked.elapsed() < took * MEETING_FACTOR);
        if too_soon || self.unfound.contains_key(&netns) {
            return Vec::new();
        }
        self.look_around();
        let Some(place) = self.places.get_mut(&netns) else {
            self.unfound.insert(netns, Instant::now());
            return Vec::new();
        };
        place.counters(netns).into_iter().chain(place.knobs(netns)).collect()
    }

    /// The namespaces, by id.
    pub(super) fn ids(&self) -> Vec<u32> {
        self.places.keys().copied().collect()
    }

    /// A namespace that is traced.
    pub(super) fn netns(&self, netns: u32) -> Option<&Netns> {
        self.places.get(&netns).map(|place| &place.netns)
    }

    /// Once a second: counters and knobs that changed.
    pub(super) fn second(&mut self) -> Vec<Kind> {
        self.seconds += 1;
        if !self.only && self.seconds.is_multiple_of(2) {
            self.look_around();
        }
        let few = self.places.len() <= FEW;
        let mut events = self.counters();
        if few || self.seconds.is_multiple_of(10) {
            events.extend(self.knobs());
        }
        events
    }

    /// Counters of every namespace, where they changed since last said.
    pub(super) fn counters(&mut self) -> Vec<Kind> {
        self.places.iter_mut().filter_map(|(netns, place)| place.counters(*netns)).collect()
    }

    /// Knobs of every namespace, where they changed since last said.
    pub(super) fn knobs(&mut self) -> Vec<Kind> {
        self.places.iter_mut().filter_map(|(netns, place)| place.knobs(*netns)).collect()
    }

    /// Knobs of a namespace if they have changed: for what must not be judged by what was set a second ago.
    pub(super) fn fresh_knobs(&mut self, netns: u32) -> Option<Kind> {
        let place = self.places.get_mut(&netns)?;
        if place.read_knobs.is_some_and(|read| read.elapsed() < KNOBS_FRESH) {
            return None;
        }
        place.knobs(netns)
    }

    /// Settings of a namespace, read now.
    pub(super) fn knobs_of(&mut self, netns: u32) -> Option<Knobs> {
        if !self.places.contains_key(&netns) && !self.only {
            self.look_around();
        }
        let place = self.places.get(&netns)?;
        Knobs::of(&place.netns).inspect_err(|error| self.once.warn("knobs", netns, error)).ok()
    }

    /// Addresses of a namespace; `None` if they cannot be read.
    pub(super) fn addresses_of(&mut self, netns: u32) -> Option<Vec<IpAddr>> {
        if let Some((read, known)) = self.addresses.get(&netns)
            && read.elapsed() < ADDRESSES_FRESH
        {
            return Some(known.clone());
        }
        let found = addresses(&self.places.get(&netns)?.netns)
            .inspect_err(|error| self.once.warn("addresses", netns, error))
            .ok()?;
        self.addresses.retain(|_, (read, _)| read.elapsed() < ADDRESSES_FRESH);
        self.addresses.insert(netns, (Instant::now(), found.clone()));
        Some(found)
    }

    /// Says of a bind() that failed with EADDRNOTAVAIL which addresses there are, and what keeps an IPv6 address from being bound.
    pub(super) fn explain_address(&mut self, fail: &mut BindFail) {
        let netns = fail.endpoints.netns;
        fail.addresses = self.addresses_of(netns);
        let IpAddr::V6(wanted) = fail.endpoints.local.ip() else { return };
        let Some(place) = self.places.get(&netns) else { return };
        let (unbindable, off) = match ipv6_obstacles(&place.netns) {
            Ok(found) => found,
            Err(error) => return self.once.warn("IPv6", netns, &error),
        };
        let unusable = unbindable.into_iter().find(|found| found.address == wanted);
        fail.unusable = unusable.map(|found| UnusableAddress {
            device: found.device,
            prefix: found.prefix,
            duplicate: found.duplicate,
        });
        let mut devices = off.devices;
        devices.truncate(NAMED);
        fail.ipv6_off = (!devices.is_empty()).then_some(Ipv6Off { devices, everywhere: off.everywhere });
    }

    /// Says which device `index` is, if that was not said before, or has changed since.
    pub(super) fn introduce_device(&mut self, netns: u32, index: u32) -> Option<Kind> {
        if index == 0 {
            return None;
        }
        let key = (netns, index);
        if self.devices.get(&key).is_some_and(|(looked, _)| looked.elapsed() < DEVICE_FRESH) {
            return None;
        }
        // Listeners of other namespaces than the traced ones are named, too.
        let place = self.places.get(&netns).map(|place| &place.netns);
        let place = place.or_else(|| self.table.iter().find(|known| known.id() == netns))?;
        let found = devices::device(place, index)
            .inspect_err(|error| log::warn!("{error}"))
            .ok()?
            .map(|found| Device { netns, index, name: found.name, kind: found.kind, master: found.master });
        // Of a device that is gone the name that it had is still the best.
        let before = self.devices.remove(&key).and_then(|(_, device)| device);
        let news = found.clone().filter(|found| before.as_ref() != Some(found));
        self.devices.insert(key, (Instant::now(), found.or(before)));
        news.map(|device| Kind::Device(Box::new(device)))
    }

    /// The sock_diag socket of a namespace, opened when first needed.
    pub(super) fn diag(&mut self, netns: u32) -> Option<&mut SockDiag> {
        if !self.places.contains_key(&netns) && !self.only {
            self.look_around();
        }
        let place = self.places.get_mut(&netns)?;
        if place.diag.is_none() {
            place.diag = SockDiag::open(&place.netns)
                .inspect_err(|error| self.once.warn("sockets", netns, error))
                .ok();
        }
        place.diag.as_mut()
    }

    /// The half-open requests of a namespace; `None` if they cannot be read.
    pub(super) fn half_open(&mut self, netns: u32) -> Option<Vec<DiagSocket>> {
        let query = Query { states: States::of(&[SocketState::SynRecv]), ports: None };
        let found = self.diag(netns)?.sockets(&query);
        found
            .inspect_err(|error| log::debug!("half-open requests of namespace {netns}: {error}"))
            .ok()
            .map(|found| found.sockets)
    }

    /// Whether it was the reverse-path filter of a namespace that dropped a packet then, and not the want of a route.
    pub(super) fn filters_reverse_path(
        &mut self,
        netns: u32,
        dropped: Timestamp,
        clock: ClockOffset,
    ) -> bool {
        let Some(place) = self.places.get_mut(&netns) else { return false };
        let counted = place.counters.as_mut().and_then(|reader| reader.read().ok()?.rp_filter_drops);
        counted.is_some_and(|counted| place.reverse_path.meet(dropped, counted, clock::now(clock)))
    }

    /// Every listener on one of `ports` in every namespace of the host, also those that are not traced; and whether all could be
    /// looked at.
    pub(super) fn listeners_on(&mut self, ports: &BTreeSet<u16>) -> (Vec<(u32, Listener)>, bool) {
        if let Err(error) = self.table.refresh() {
            log::warn!("network namespaces: {error}");
        }
        let (mut found, mut complete) = (Vec::new(), true);
        for netns in self.table.iter() {
            match SockDiag::open(netns).and_then(|mut diag| diag.listeners()) {
                Ok(listeners) => found.extend(
                    listeners
                        .into_iter()
                        .filter(|listener| ports.contains(&listener.local.port()))
                        .map(|listener| (netns.id(), listener)),
                ),
                Err(error) => {
                    log::debug!("listeners of namespace {}: {error}", netns.id());
                    complete = false;
                }
            }
        }
        (found, complete)
    }

    /// Those of `among` that have this address for `caller`: another host may have it as well, and where the caller has a neighbour
    /// entry for it, its link-layer address tells.
    pub(super) fn holders_of(&self, address: IpAddr, among: &BTreeSet<u32>, caller: u32) -> Vec<u32> {
        let has = |netns: &&Netns| {
            let found = addresses(netns).inspect_err(|error| log::debug!("{error}")).unwrap_or_default();
            found.contains(&address.to_canonical())
        };
        let neighbour = self.netns(caller).and_then(|caller| match route(caller, address) {
            Ok(Route::Unicast { gateway: None, device, .. }) => link_address(caller, device, address),
            _ => None,
        });
        let is_neighbour = |netns: &&Netns| {
            let Some(neighbour) = neighbour.as_ref().filter(|_| netns.id() != caller) else { return true };
            devices::devices(netns).unwrap_or_default().iter().any(|device| device.address == *neighbour)
        };
        let among = self.table.iter().filter(|netns| among.contains(&netns.id()));
        among.filter(has).filter(is_neighbour).map(Netns::id).collect()
    }

    /// Every listener of every namespace.
    pub(super) fn listeners(&mut self) -> Vec<(u32, Listener)> {
        let mut listeners = Vec::new();
        for netns in self.ids() {
            listeners.extend(self.listeners_in(netns).into_iter().map(|listener| (netns, listener)));
        }
        listeners
    }

    /// Every listener of one namespace.
    pub(super) fn listeners_in(&mut self, netns: u32) -> Vec<Listener> {
        let Some(diag) = self.diag(netns) else { return Vec::new() };
        diag.listeners().unwrap_or_else(|error| {
            self.once.warn("listeners", netns, &error);
            Vec::new()
        })
    }
}

fn knob_sample(netns: u32, knobs: &Knobs) -> KnobSample {
    KnobSample {
        netns,
        cookie: None,
        name: None,
        somaxconn: knobs.somaxconn,
        max_syn_backlog: knobs.tcp_max_syn_backlog,
        syncookies: knobs.tcp_syncookies,
        abort_on_overflow: knobs.tcp_abort_on_overflow.map(|value| value != 0),
        synack_retries: knobs.tcp_synack_retries,
        local_port_range: knobs.ip_local_port_range,
        reserved_ports: knobs.ip_local_reserved_ports.clone(),
        tw_reuse: knobs.tcp_tw_reuse,
        unprivileged_port_start: knobs.ip_unprivileged_port_start,
        nonlocal_bind: knobs.ip_nonlocal_bind.map(|value| value != 0),
        nonlocal_bind_v6: knobs.ipv6_nonlocal_bind.map(|value| value != 0),
        fin_timeout: knobs.tcp_fin_timeout,
        orphan_retries: knobs.tcp_orphan_retries,
        timestamps: knobs.tcp_timestamps,
        l3mdev_accept: knobs.tcp_l3mdev_accept.map(|value| value != 0),
        migrate_req: knobs.tcp_migrate_req.map(|value| value != 0),
    }
}

/// A listener's ends, in the terms of events.
pub(super) fn endpoints(netns: u32, listener: &Listener) -> Endpoints {
    let mut endpoints = Endpoints::local_only(netns, listener.family, listener.local);
    endpoints.device = listener.ifindex;
    endpoints
}
