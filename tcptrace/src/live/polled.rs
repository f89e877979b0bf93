//! What the tracepoint tier polls: listeners, their queues and drops, from sock_diag, joined with what its probes count by
//! port.

use std::collections::{HashMap, HashSet};

use crate::{
    event::{Distribution, Kind, ListenerRef, ListenerSample, ListenerTotals, SampleSource},
    host::sock_diag::Listener,
};

use super::places;
use super::syn_queues::Requests;

/// Counts by namespace and port, from the probes of the tracepoint tier.
pub(super) type ByPort = HashMap<(u32, u16), (ListenerTotals, Option<Distribution>)>;

/// Gives what was counted at ports without a listener to the listener that it belongs to: a rule or program (TPROXY, BPF `sk_lookup`)
/// leads connections to the listener at another port, and the connection has the port that was called. Known by the process that
/// accepts there, one of the listener's owners by `owns`. If that process has several listeners, what each of them accepts is not known.
pub(super) fn give_to_listeners(
    by_port: &mut ByPort,
    listeners: &[(u32, Listener)],
    acceptors: &HashMap<(u32, u16), Vec<(u32, u32)>>,
    owns: impl Fn(u32, u64) -> bool,
) {
    let here: HashSet<(u32, u16)> =
        listeners.iter().map(|(netns, listener)| (*netns, listener.local.port())).collect();
    let strays: Vec<(u32, u16)> = by_port.keys().filter(|place| !here.contains(place)).copied().collect();
    for stray in strays {
        let Some(accept) = acceptors.get(&stray) else { continue };
        let is_led = |(netns, listener): &&(u32, Listener)| {
            *netns == stray.0 && accept.iter().any(|(pid, _)| owns(*pid, listener.inode))
        };
        let led: Vec<(u32, u16)> = listeners
            .iter()
            .filter(is_led)
            .map(|(netns, listener)| (*netns, listener.local.port()))
            .collect();
        match led.as_slice() {
            [] => {}
            [one] => {
                let Some((more, _)) = by_port.remove(&stray) else { continue };
                let (known, _) = by_port.entry(*one).or_default();
                known.add(&more);
                known.raise_to(&ListenerTotals {
                    wait_max_ns: more.wait_max_ns,
                    last_accept: more.last_accept,
                    last_enqueue: more.last_enqueue,
                    last_acceptor: more.last_acceptor,
                    ..ListenerTotals::default()
                });
            }
            several => {
                for place in several {
                    let (known, _) = by_port.entry(*place).or_default();
                    (known.accepted, known.last_accept) = (None, None);
                }
            }
        }
    }
}

/// Listeners as last said.
#[derive(Default)]
pub(super) struct Polled {
    /// By namespace and cookie, and in which look each was last there.
    said: HashMap<(u32, u64), (u64, Box<ListenerSample>)>,
    looks: u64,
    waiting: bool,
}

impl Polled {
    /// Whether connections waited somewhere when it was last looked.
    pub(super) fn has_waiting(&self) -> bool {
        self.waiting
    }

    /// A sample of each listener that changed, and with `waiting_too` of each where connections wait. Where several listeners share a port, what the probes counted by port
    /// belongs to nobody in particular and is left out.
    pub(super) fn samples(
        &mut self,
        listeners: &[(u32, Listener)],
        by_port: &ByPort,
        requests: &Requests,
        waiting_too: bool,
    ) -> Vec<Kind> {
        let mut sharing: HashMap<(u32, u16), u32> = HashMap::new();
        for (netns, listener) in listeners {
            *sharing.entry((*netns, listener.local.port())).or_default() += 1;
        }
        self.looks = self.looks.wrapping_add(1);
        let mut events = Vec::new();
        for (netns, listener) in listeners {
            let port = (*netns, listener.local.port());
            let counted = if sharing.get(&port) == Some(&1) { by_port.get(&port).cloned() } else { None };
            let (counted, waits) = counted.unwrap_or_default();
            // What several listeners share is nobody's in particular.
            let requests = requests.get(&(*netns, listener.cookie)).filter(|requests| !requests.shared);
            let sample = ListenerSample {
                endpoints: places::endpoints(*netns, listener),
                listener: ListenerRef {
                    sk: 0,
                    inode: listener.inode,
                    depth: listener.depth,
                    limit: listener.limit,
                    syn_queue: requests.map_or(0, |requests| requests.requests),
                },
                source: SampleSource::Polled,
                totals: ListenerTotals {
                    socket_drops: listener.drops.map(u64::from),
                    syn_queue_max: requests.map(|requests| requests.requests),
                    deferred: requests.map(|requests| requests.deferred.into()),
                    ..counted
                },
                waits,
                handshakes: None,
            };
            // There may be tens of thousands, nearly all of them as they were.
            let key = (*netns, listener.cookie);
            match self.said.get_mut(&key) {
                Some((look, said)) => {
                    *look = self.looks;
                    let changed = **said != sample;
                    if changed || (waiting_too && listener.depth > 0) {
                        events.push(Kind::ListenerSample(Box::new(sample.clone())));
                    }
                    if changed {
                        **said = sample;
                    }
                }
                None => {
                    events.push(Kind::ListenerSample(Box::new(sample.clone())));
                    self.said.insert(key, (self.looks, Box::new(sample)));
                }
            }
        }
        self.said.retain(|_, (look, _)| *look == self.looks);
        self.waiting = listeners.iter().any(|(_, listener)| listener.depth > 0);
        events
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Acceptor, Timestamp};
    use crate::stock::testing::socket;

    const NETNS: u32 = 1;

    fn counted(accepted: u64, last: u64) -> (ListenerTotals, Option<Distribution>) {
        let totals = ListenerTotals {
            accepted: Some(accepted),
            last_accept: Some(Timestamp::from_nanos(last)),
            last_acceptor: Some(Acceptor { pid: 7, tid: 8 }),
            ..ListenerTotals::default()
        };
        (totals, None)
    }

    #[test]
    fn what_is_led_to_a_listener_at_another_port_is_its_own() {
        let listeners = vec![(NETNS, socket("0.0.0.0:1080"))];
        let acceptors = HashMap::from([((NETNS, 1081), vec![(7, 8)])]);
        let mut by_port = ByPort::from([((NETNS, 1081), counted(5, 20)), ((NETNS, 1080), counted(2, 10))]);
        give_to_listeners(&mut by_port, &listeners, &acceptors, |pid, _| pid == 7);
        let (known, _) = &by_port[&(NETNS, 1080)];
        assert_eq!((known.accepted, known.last_accept), (Some(7), Some(Timestamp::from_nanos(20))));
        assert!(!by_port.contains_key(&(NETNS, 1081)));
        // Of another process, or of a listener in another namespace.
        let mut strange = ByPort::from([((NETNS, 1081), counted(5, 20)), ((2, 1081), counted(5, 20))]);
        give_to_listeners(&mut strange, &listeners, &acceptors, |pid, _| pid == 9);
        assert_eq!(strange.len(), 2);
    }

    #[test]
    fn of_a_process_with_several_listeners_it_is_not_known_which_one_accepts() {
        let listeners = vec![(NETNS, socket("0.0.0.0:1080")), (NETNS, socket("0.0.0.0:1082"))];
        let acceptors = HashMap::from([((NETNS, 1081), vec![(7, 8)])]);
        let mut by_port = ByPort::from([((NETNS, 1081), counted(5, 20)), ((NETNS, 1080), counted(2, 10))]);
        give_to_listeners(&mut by_port, &listeners, &acceptors, |_, _| true);
        assert_eq!(by_port[&(NETNS, 1080)].0.accepted, None);
        assert_eq!(by_port[&(NETNS, 1082)].0.accepted, None);
    }
}
