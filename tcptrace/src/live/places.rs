//! The network namespaces being traced: their counters, knobs and sockets, read beside the probes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::{
    event::{
        self, ClockOffset, CounterSample, Endpoints, Kind, KnobSample, PortRange, PortRanges, SocketState,
        Timestamp,
    },
    host::{
        addresses::addresses,
        counters::{CounterReader, Counters},
        knobs::Knobs,
        netns::{Netns, NetnsError, NetnsTable},
        procfs::Procfs,
        sock_diag::{Family, Listener, SockDiag},
    },
};

use super::{clock, reverse_path::ReversePath};

/// Namespaces whose knobs are read every second; of more, only now and then.
const FEW: usize = 8;

/// Addresses that were read so long ago are as good as new: a service that cannot start tries again and again.
const ADDRESSES_FRESH: Duration = Duration::from_secs(1);

/// One namespace. Its handles keep it alive: dropped as soon as nobody else refers to it.
struct Place {
    netns: Netns,
    counters: Option<CounterReader>,
    said_counters: Option<CounterSample>,
    said_knobs: Option<KnobSample>,
    diag: Option<SockDiag>,
    reverse_path: ReversePath,
}

/// All namespaces being traced.
pub(super) struct Places {
    table: NetnsTable,
    /// Only this one.
    only: Option<u32>,
    /// Addresses of namespaces, as last read.
    addresses: BTreeMap<u32, (Instant, Vec<IpAddr>)>,
    places: BTreeMap<u32, Place>,
    seconds: u64,
}

impl Places {
    /// # Errors
    /// When this process's own namespace cannot be opened, or the one asked for is not to be found.
    pub(super) fn new(procfs: Procfs, only: Option<Netns>) -> Result<Self, NetnsError> {
        let mut places = Self {
            table: NetnsTable::new(procfs)?,
            only: only.as_ref().map(Netns::id),
            addresses: BTreeMap::new(),
            places: BTreeMap::new(),
            seconds: 0,
        };
        match only {
            Some(netns) => places.open(&netns),
            None => places.look_around(),
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
            diag: None,
            reverse_path: ReversePath::default(),
        });
    }

    /// Finds namespaces that came and lets go of those that went.
    fn look_around(&mut self) {
        match self.table.refresh() {
            Ok(refresh) => {
                for gone in &refresh.gone {
                    self.places.remove(gone);
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
        let new: Vec<Netns> =
            self.table.iter().filter(|netns| !self.places.contains_key(&netns.id())).cloned().collect();
        for netns in &new {
            self.open(netns);
        }
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
        if self.only.is_none() && self.seconds.is_multiple_of(2) {
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
        let mut events = Vec::new();
        for (&netns, place) in &mut self.places {
            let Some(reader) = &mut place.counters else { continue };
            let counters = match reader.read() {
                Ok(counters) => counters,
                Err(error) => {
                    log::debug!("counters of namespace {netns}: {error}");
                    continue;
                }
            };
            let sample = counter_sample(netns, &counters);
            if place.said_counters != Some(sample) {
                place.said_counters = Some(sample);
                events.push(Kind::CounterSample(Box::new(sample)));
            }
        }
        events
    }

    /// Knobs of every namespace, where they changed since last said.
    pub(super) fn knobs(&mut self) -> Vec<Kind> {
        let mut events = Vec::new();
        for (&netns, place) in &mut self.places {
            let knobs = match Knobs::of(&place.netns) {
                Ok(knobs) => knobs,
                Err(error) => {
                    log::debug!("knobs of namespace {netns}: {error}");
                    continue;
                }
            };
            let sample = knob_sample(netns, &knobs);
            if place.said_knobs.as_ref() != Some(&sample) {
                place.said_knobs = Some(sample.clone());
                events.push(Kind::KnobSample(Box::new(sample)));
            }
        }
        events
    }

    /// Settings of a namespace, read now.
    pub(super) fn knobs_of(&mut self, netns: u32) -> Option<Knobs> {
        if !self.places.contains_key(&netns) && self.only.is_none() {
            self.look_around();
        }
        let place = self.places.get(&netns)?;
        Knobs::of(&place.netns).inspect_err(|error| log::warn!("knobs of namespace {netns}: {error}")).ok()
    }

    /// Addresses of a namespace; `None` if they cannot be read.
    pub(super) fn addresses_of(&mut self, netns: u32) -> Option<Vec<IpAddr>> {
        if let Some((read, known)) = self.addresses.get(&netns)
            && read.elapsed() < ADDRESSES_FRESH
        {
            return Some(known.clone());
        }
        let found = addresses(&self.places.get(&netns)?.netns)
            .inspect_err(|error| log::warn!("addresses of namespace {netns}: {error}"))
            .ok()?;
        self.addresses.retain(|_, (read, _)| read.elapsed() < ADDRESSES_FRESH);
        self.addresses.insert(netns, (Instant::now(), found.clone()));
        Some(found)
    }

    /// The sock_diag socket of a namespace, opened when first needed.
    pub(super) fn diag(&mut self, netns: u32) -> Option<&mut SockDiag> {
        if !self.places.contains_key(&netns) && self.only.is_none() {
            self.look_around();
        }
        let place = self.places.get_mut(&netns)?;
        if place.diag.is_none() {
            place.diag = SockDiag::open(&place.netns)
                .inspect_err(|error| log::warn!("sockets of namespace {netns}: {error}"))
                .ok();
        }
        place.diag.as_mut()
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

    /// Those of `among` that have this address.
    pub(super) fn holders_of(&self, address: IpAddr, among: &BTreeSet<u32>) -> Vec<u32> {
        let has = |netns: &&Netns| {
            let found = addresses(netns).inspect_err(|error| log::debug!("{error}")).unwrap_or_default();
            found.contains(&address.to_canonical())
        };
        self.table.iter().filter(|netns| among.contains(&netns.id())).filter(has).map(Netns::id).collect()
    }

    /// Every listener of every namespace.
    pub(super) fn listeners(&mut self) -> Vec<(u32, Listener)> {
        let mut listeners = Vec::new();
        for netns in self.ids() {
            let Some(diag) = self.diag(netns) else { continue };
            match diag.listeners() {
                Ok(found) => listeners.extend(found.into_iter().map(|listener| (netns, listener))),
                Err(error) => log::warn!("listeners of namespace {netns}: {error}"),
            }
        }
        listeners
    }
}

/// Counters, in the terms of events.
fn counter_sample(netns: u32, counters: &Counters) -> CounterSample {
    CounterSample {
        netns,
        listen_overflows: counters.listen_overflows,
        listen_drops: counters.listen_drops,
        req_queue_full_drop: counters.req_queue_full_drop,
        req_queue_full_do_cookies: counters.req_queue_full_do_cookies,
        syncookies_sent: counters.syncookies_sent,
        syncookies_received: counters.syncookies_received,
        syncookies_failed: counters.syncookies_failed,
        syn_retransmits: counters.syn_retransmits,
        retransmit_fails: counters.retransmit_fails,
        embryonic_resets: counters.embryonic_resets,
        defer_accept_drop: counters.defer_accept_drop,
        fastopen_passive: counters.fastopen_passive,
        passive_opens: counters.passive_opens,
        active_opens: counters.active_opens,
        attempt_fails: counters.attempt_fails,
        resets_sent: counters.resets_sent,
    }
}

fn knob_sample(netns: u32, knobs: &Knobs) -> KnobSample {
    KnobSample {
        netns,
        somaxconn: knobs.somaxconn,
        max_syn_backlog: knobs.tcp_max_syn_backlog,
        syncookies: knobs.tcp_syncookies,
        abort_on_overflow: knobs.tcp_abort_on_overflow.map(|value| value != 0),
        synack_retries: knobs.tcp_synack_retries,
        local_port_range: knobs
            .ip_local_port_range
            .map(|range| PortRange { first: range.first, last: range.last }),
        reserved_ports: knobs
            .ip_local_reserved_ports
            .as_ref()
            .map(|set| set.ranges().collect::<PortRanges>()),
        tw_reuse: knobs.tcp_tw_reuse,
        unprivileged_port_start: knobs.ip_unprivileged_port_start,
        nonlocal_bind: knobs.ip_nonlocal_bind.map(|value| value != 0),
        nonlocal_bind_v6: knobs.ipv6_nonlocal_bind.map(|value| value != 0),
    }
}

/// A listener's ends, in the terms of events.
pub(super) fn endpoints(netns: u32, listener: &Listener) -> Endpoints {
    let mut endpoints = Endpoints::local_only(netns, family(listener.family), listener.local);
    endpoints.device = listener.ifindex;
    endpoints
}

pub(super) fn family(family: Family) -> event::Family {
    match family {
        Family::V4 => event::Family::V4,
        Family::V6 => event::Family::V6,
    }
}

/// A socket's state, in the terms of events.
pub(super) fn state(state: crate::host::tcp_state::TcpState) -> SocketState {
    SocketState::from_kernel(state as u8)
}
