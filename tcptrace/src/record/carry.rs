//! What a part of a rotated recording begins with, so that it can be read without those before it: who is who, which knobs
//! and listeners there are, what is observed.

use std::collections::BTreeMap;

use crate::correlate::BoundedMap;
use crate::event::{Event, Kind};

/// How many things of each kind are carried over.
const ENTRIES: usize = 16_384;

/// The last words about everything that still stands.
pub(super) struct Carry {
    coverage: Option<Event>,
    knobs: BTreeMap<u32, Event>,
    counters: BTreeMap<u32, Event>,
    /// By namespace and index.
    devices: BoundedMap<(u32, u32), Event>,
    processes: BoundedMap<u32, Event>,
    owners: BoundedMap<u64, Event>,
    /// listen() and the last sample of each listener that is open, by its socket's inode.
    listeners: BoundedMap<u64, (Option<Event>, Option<Event>)>,
}

impl Default for Carry {
    fn default() -> Self {
        Self {
            coverage: None,
            knobs: BTreeMap::new(),
            counters: BTreeMap::new(),
            devices: BoundedMap::new(ENTRIES),
            processes: BoundedMap::new(ENTRIES),
            owners: BoundedMap::new(ENTRIES),
            listeners: BoundedMap::new(ENTRIES),
        }
    }
}

impl Carry {
    /// Remembers what stands.
    pub(super) fn note(&mut self, event: &Event) {
        match &event.kind {
            Kind::Coverage(_) => self.coverage = Some(event.clone()),
            Kind::KnobSample(sample) => {
                self.knobs.insert(sample.netns, event.clone());
            }
            Kind::CounterSample(sample) => {
                self.counters.insert(sample.netns, event.clone());
            }
            Kind::Device(device) => {
                let key = (device.netns, device.index);
                self.devices.remove(&key);
                self.devices.get_or_insert_with(key, || event.clone());
            }
            Kind::ProcessInfo(info) => {
                self.processes.remove(&info.pid);
                self.processes.get_or_insert_with(info.pid, || event.clone());
            }
            Kind::SocketOwner(found) if found.inode != 0 => {
                self.owners.remove(&found.inode);
                self.owners.get_or_insert_with(found.inode, || event.clone());
            }
            Kind::Listen(listen) if listen.listener.inode != 0 => {
                self.listeners.get_or_insert_with(listen.listener.inode, Default::default).0 =
                    Some(event.clone());
            }
            Kind::ListenerSample(sample) if sample.listener.inode != 0 => {
                self.listeners.get_or_insert_with(sample.listener.inode, Default::default).1 =
                    Some(event.clone());
            }
            Kind::ListenerClosed(closed) => {
                self.listeners.remove(&closed.listener.inode);
                self.owners.remove(&closed.listener.inode);
            }
            _ => {}
        }
    }

    /// All of it, in the order in which a trace begins.
    pub(super) fn events(&self) -> impl Iterator<Item = &Event> {
        let listens = self.listeners.iter().filter_map(|(_, (listen, _))| listen.as_ref());
        let samples = self.listeners.iter().filter_map(|(_, (_, sample))| sample.as_ref());
        self.coverage
            .iter()
            .chain(self.knobs.values())
            .chain(self.devices.iter().map(|(_, event)| event))
            .chain(self.processes.iter().map(|(_, event)| event))
            .chain(self.owners.iter().map(|(_, event)| event))
            .chain(listens)
            .chain(samples)
            .chain(self.counters.values())
    }
}
