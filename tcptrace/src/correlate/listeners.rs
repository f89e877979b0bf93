//! All listeners: finding the one that an event means.
//!
//! The full tiers name a listener by its socket's address in memory; sock_diag names it by inode and local address; the
//! tracepoint tier counts some things by namespace and port alone. All three must come together in one listener, and an
//! address in memory that is used again must not.

use std::collections::VecDeque;
use std::time::Duration;

use ahash::AHashMap;

use crate::event::{Endpoints, ListenerRef, Timestamp};

use super::listener::{Listener, ListenerId};

/// How many listeners are remembered, those that were closed a moment ago included. The kernel side has room for as many.
const LISTENERS: usize = 16_384;

/// How long a closed listener is remembered: late events of other CPUs still mean it, findings close with its numbers.
const REMEMBERED: Duration = Duration::from_secs(30);

/// All listeners.
#[derive(Debug, Default)]
pub struct Listeners {
    /// Boxed: a table of large values is never full, and holds them twice while it grows.
    by_id: AHashMap<ListenerId, Box<Listener>>,
    /// Live ones and closed ones; of several with the same address in memory the latest.
    by_sk: AHashMap<u64, ListenerId>,
    /// Likewise, by inode.
    by_inode: AHashMap<u64, ListenerId>,
    /// Live ones.
    by_port: AHashMap<(u32, u16), Vec<ListenerId>>,
    /// In the order in which they were closed.
    closed: VecDeque<(Timestamp, ListenerId)>,
    last_id: u64,
    forgotten: u64,
}

impl Listeners {
    /// The listener of that name, while it is remembered.
    pub fn get(&self, id: ListenerId) -> Option<&Listener> {
        self.by_id.get(&id).map(Box::as_ref)
    }

    pub(super) fn get_mut(&mut self, id: ListenerId) -> Option<&mut Listener> {
        self.by_id.get_mut(&id).map(Box::as_mut)
    }

    /// Every listener that is remembered, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &Listener> {
        self.by_id.values().map(Box::as_ref)
    }

    /// Live listeners of a port.
    pub fn at_port(&self, netns: u32, port: u16) -> impl Iterator<Item = &Listener> {
        self.by_port
            .get(&(netns, port))
            .into_iter()
            .flatten()
            .filter_map(|id| self.by_id.get(id).map(Box::as_ref))
    }

    /// The live or lately closed listener with this inode.
    pub fn with_inode(&self, inode: u64) -> Option<&Listener> {
        self.by_id.get(self.by_inode.get(&inode)?).map(Box::as_ref)
    }

    /// The live or lately closed listener with this address in kernel memory.
    pub fn with_sk(&self, sk: u64) -> Option<&Listener> {
        self.by_id.get(self.by_sk.get(&sk)?).map(Box::as_ref)
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Listener> {
        self.by_id.values_mut().map(Box::as_mut)
    }

    /// How many were forgotten because there were too many.
    pub fn forgotten(&self) -> u64 {
        self.forgotten
    }

    /// The listener that an event at `time` means; a new one if none is known.
    pub(super) fn resolve(
        &mut self,
        time: Timestamp,
        endpoints: &Endpoints,
        who: &ListenerRef,
    ) -> ListenerId {
        match self.find(time, endpoints, who).or_else(|| self.misplaced(time, endpoints, who)) {
            Some(id) => {
                self.learn(id, who);
                id
            }
            None => self.add(time, *endpoints, who),
        }
    }

    /// The listener that an event of a packet means: `called` is the address that the packet came to, which need not be the
    /// listener's own. A BPF `sk_lookup` program or a TPROXY rule may have chosen it for the packet.
    pub(super) fn resolve_called(
        &mut self,
        time: Timestamp,
        called: &Endpoints,
        who: &ListenerRef,
    ) -> ListenerId {
        if let Some(id) = self.find(time, called, who) {
            self.learn(id, who);
            return id;
        }
        let Some(id) = self.same_socket(time, called, who).map(|known| known.id) else {
            return self.add(time, *called, who);
        };
        self.learn(id, who);
        if let Some(listener) = self.by_id.get_mut(&id).filter(|known| known.place_known) {
            listener.steered_from = Some(called.local);
        }
        id
    }

    /// The listener that was only known by an address that packets came to, and whose own is `endpoints`.
    fn misplaced(&mut self, time: Timestamp, endpoints: &Endpoints, who: &ListenerRef) -> Option<ListenerId> {
        let known = self.same_socket(time, endpoints, who).filter(|known| !known.place_known)?;
        let (id, called) = (known.id, known.endpoints);
        self.drop_from_port((called.netns, called.local.port()), id);
        self.by_port.entry((endpoints.netns, endpoints.local.port())).or_default().push(id);
        let listener = self.by_id.get_mut(&id)?;
        listener.note_place(endpoints);
        listener.steered_from = Some(called.local);
        Some(id)
    }

    /// The listener that has this address in memory, if it lives and nothing says that it is another one.
    fn same_socket(&self, time: Timestamp, endpoints: &Endpoints, who: &ListenerRef) -> Option<&Listener> {
        let known = self.by_id.get(self.by_sk.get(&who.sk).filter(|_| who.sk != 0)?)?;
        let is_it = known.closed.is_none()
            && known.first_seen <= time
            && known.endpoints.netns == endpoints.netns
            && (who.inode == 0 || known.inode == 0 || who.inode == known.inode);
        is_it.then_some(known)
    }

    /// The listener that began to listen at `time`. Never one that was known before that: its address in memory is used
    /// again. But its first drop may have been reported by another CPU before this; and what is read in one go carries the time at which
    /// the reading began, though it shows what began meanwhile: of the same file, and without a listen() so far, it is the same.
    pub(super) fn began(&mut self, time: Timestamp, endpoints: &Endpoints, who: &ListenerRef) -> ListenerId {
        let same = self.find(time, endpoints, who).filter(|id| {
            self.by_id.get(id).is_some_and(|known| {
                let is_later = known.first_seen >= time && known.listen.is_none_or(|call| call.time >= time);
                let is_same_file = who.inode != 0 && known.inode == who.inode && known.listen.is_none();
                known.closed.is_none() && (is_later || is_same_file)
            })
        });
        match same {
            Some(id) => {
                self.learn(id, who);
                id
            }
            None => {
                // Whoever had this identity is gone, even if nobody said so.
                if let Some(old) = self.find(time, endpoints, &ListenerRef { inode: 0, ..*who })
                    && who.sk != 0
                    && self.by_id.get(&old).is_some_and(|known| known.sk == who.sk)
                {
                    self.close(old, time);
                }
                self.add(time, *endpoints, who)
            }
        }
    }

    /// The only live listener of a port; `None` if there are several, or none.
    pub(super) fn only_at_port(&self, netns: u32, port: u16) -> Option<ListenerId> {
        match self.by_port.get(&(netns, port)).map(Vec::as_slice) {
            Some(&[id]) => Some(id),
            _ => None,
        }
    }

    /// Accepts are counted by port, and this port has several listeners now: what each of them accepts is not known any more.
    pub(super) fn forget_accepts_if_shared(&mut self, netns: u32, port: u16) {
        let Some(ids) = self.by_port.get(&(netns, port)).filter(|ids| ids.len() > 1) else { return };
        for id in ids {
            if let Some(listener) = self.by_id.get_mut(id) {
                listener.totals.accepted = None;
                listener.totals.last_accept = None;
            }
        }
    }

    /// Other live members of the reuseport group of a listener: only with SO_REUSEPORT several can listen at one address.
    pub fn group_of<'a>(&'a self, listener: &'a Listener) -> impl Iterator<Item = &'a Listener> {
        let place = &listener.endpoints;
        self.at_port(place.netns, place.local.port()).filter(move |other| {
            other.id != listener.id
                && other.closed.is_none()
                && other.endpoints.local == place.local
                && other.endpoints.device == place.device
        })
    }

    /// Members of reuseport groups that have suffered for some seconds while the others were idle, in a fixed order.
    pub(super) fn imbalanced(&mut self, now: Timestamp) -> Vec<ListenerId> {
        /// A pause of one worker is no imbalance.
        const SECONDS: u32 = 3;
        /// An idle member accepts at once what it is given.
        const IDLE: u32 = 1;
        /// It has accepted at all: one that is given nothing has nothing to accept, and is idle all the same.
        const LATELY: Duration = Duration::from_secs(60);
        let groups = self.by_port.values().filter(|ids| ids.len() > 1).flatten();
        let mut looked: Vec<(ListenerId, bool)> = groups
            .filter_map(|id| self.by_id.get(id))
            .map(|listener| {
                let others_idle = || {
                    let mut at_work = false;
                    let idle = self.group_of(listener).all(|other| {
                        let accepted = other.totals.last_accept.is_some_and(|last| now.since(last) < LATELY);
                        at_work |= accepted && other.depth <= IDLE;
                        !other.suffers(now)
                    });
                    idle && at_work
                };
                (listener.id, listener.suffers(now) && others_idle())
            })
            .collect();
        looked.sort_unstable();
        let mut imbalanced = Vec::new();
        for (id, suffers) in looked {
            let Some(listener) = self.by_id.get_mut(&id) else { continue };
            listener.suffered = if suffers { listener.suffered.saturating_add(1) } else { 0 };
            if listener.suffered >= SECONDS {
                listener.last_imbalance = Some(now);
                imbalanced.push(id);
            }
        }
        imbalanced
    }

    /// Listeners at which nobody has accepted for long though connections wait, in a fixed order.
    pub(super) fn stalled(&mut self, now: Timestamp, after: Duration) -> Vec<ListenerId> {
        let mut stalled = Vec::new();
        for listener in self.by_id.values_mut() {
            if listener.stalled_since().is_some_and(|since| now.since(since) >= after) {
                listener.last_stall = Some(now);
                stalled.push(listener.id);
            }
        }
        stalled.sort_unstable();
        stalled
    }

    /// The listener was closed at `time`.
    pub(super) fn close(&mut self, id: ListenerId, time: Timestamp) {
        let Some(listener) = self.by_id.get_mut(&id) else { return };
        if listener.closed.is_some() {
            return;
        }
        listener.closed = Some(time);
        let key = (listener.endpoints.netns, listener.endpoints.local.port());
        self.closed.push_back((time, id));
        self.drop_from_port(key, id);
    }

    /// Forgets what was closed long ago.
    pub(super) fn expire(&mut self, now: Timestamp) {
        while let Some(&(time, id)) = self.closed.front() {
            if now.since(time) < REMEMBERED {
                break;
            }
            self.closed.pop_front();
            self.forget(id);
        }
    }

    fn find(&self, time: Timestamp, endpoints: &Endpoints, who: &ListenerRef) -> Option<ListenerId> {
        let usable = |id: &ListenerId| {
            let known = self.by_id.get(id)?;
            // What happened after it was closed, or before it began, happened to another one.
            let alive = known.closed.is_none_or(|closed| time <= closed)
                && known.listen.is_none_or(|call| call.again || call.time <= time);
            let same_place = known.endpoints.netns == endpoints.netns
                && known.endpoints.local.port() == endpoints.local.port();
            (alive && same_place).then_some(*id)
        };
        if who.sk != 0 {
            let earlier = || {
                let was = |&&(_, id): &&(Timestamp, ListenerId)| {
                    self.by_id.get(&id).is_some_and(|known| known.sk == who.sk) && usable(&id).is_some()
                };
                self.closed.iter().rev().find(was).map(|(_, id)| *id)
            };
            let latest = self.by_sk.get(&who.sk);
            if let Some(id) = latest.and_then(usable).or_else(|| latest.and_then(|_| earlier())) {
                return Some(id);
            }
        }
        // One source knows the address in memory, another does not: the inode is the same, or the local address.
        let mergeable = |id: &ListenerId| {
            let known = self.by_id.get(id)?;
            (who.sk == 0 || known.sk == 0 || known.sk == who.sk).then_some(*id)
        };
        if who.inode != 0
            && let Some(id) = self.by_inode.get(&who.inode).and_then(usable).as_ref().and_then(mergeable)
        {
            return Some(id);
        }
        let mut same_address =
            self.by_port.get(&(endpoints.netns, endpoints.local.port()))?.iter().filter(|id| {
                self.by_id.get(id).is_some_and(|known| {
                    known.endpoints.family == endpoints.family
                        && (known.endpoints.local.ip() == endpoints.local.ip()
                            || endpoints.local.ip().is_unspecified())
                        && (who.inode == 0 || known.inode == 0 || who.inode == known.inode)
                }) && mergeable(id).is_some()
            });
        // Members of a reuseport group have the same address: without more to go by, none of them is meant.
        same_address.next().filter(|_| same_address.next().is_none()).copied()
    }

    fn learn(&mut self, id: ListenerId, who: &ListenerRef) {
        let Some(listener) = self.by_id.get_mut(&id) else { return };
        if who.sk != 0 {
            listener.sk = who.sk;
            self.by_sk.insert(who.sk, id);
        }
        if who.inode != 0 {
            listener.inode = who.inode;
            self.by_inode.insert(who.inode, id);
        }
    }

    fn add(&mut self, time: Timestamp, endpoints: Endpoints, who: &ListenerRef) -> ListenerId {
        if self.by_id.len() >= LISTENERS {
            self.make_room();
        }
        self.last_id += 1;
        let id = ListenerId(self.last_id);
        self.by_id.insert(id, Box::new(Listener::new(id, endpoints, time)));
        self.by_port.entry((endpoints.netns, endpoints.local.port())).or_default().push(id);
        self.learn(id, who);
        id
    }

    /// Forgets closed listeners, or else the sixteenth part that was silent for longest.
    fn make_room(&mut self) {
        if let Some((_, id)) = self.closed.pop_front() {
            self.forget(id);
            return;
        }
        let mut silent: Vec<(Timestamp, ListenerId)> =
            self.by_id.values().map(|listener| (listener.last_seen, listener.id)).collect();
        silent.sort_unstable();
        for (_, id) in silent.into_iter().take(LISTENERS / 16) {
            self.forgotten += 1;
            self.forget(id);
        }
    }

    fn forget(&mut self, id: ListenerId) {
        let Some(listener) = self.by_id.remove(&id) else { return };
        if self.by_sk.get(&listener.sk) == Some(&id) {
            self.by_sk.remove(&listener.sk);
        }
        if self.by_inode.get(&listener.inode) == Some(&id) {
            self.by_inode.remove(&listener.inode);
        }
        self.drop_from_port((listener.endpoints.netns, listener.endpoints.local.port()), id);
    }

    fn drop_from_port(&mut self, key: (u32, u16), id: ListenerId) {
        if let Some(ids) = self.by_port.get_mut(&key) {
            ids.retain(|other| *other != id);
            if ids.is_empty() {
                self.by_port.remove(&key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::correlate::listener::ListenCall;
    use crate::event::{Family, SocketOptions};

    fn at(ms: u64) -> Timestamp {
        Timestamp::from_nanos(ms * 1_000_000)
    }

    fn place_at(netns: u32, local: &str) -> Endpoints {
        Endpoints::local_only(netns, Family::V4, local.parse().unwrap())
    }

    fn who(sk: u64, inode: u64) -> ListenerRef {
        ListenerRef { sk, inode, ..ListenerRef::default() }
    }

    #[test]
    fn sources_that_know_different_names_meet() {
        let mut all = Listeners::default();
        let place = place_at(1, "0.0.0.0:80");
        let id = all.began(at(0), &place, &who(100, 5));
        assert_eq!(all.resolve(at(1), &place, &who(100, 0)), id);
        assert_eq!(all.resolve(at(1), &place, &who(0, 5)), id);
        assert_eq!(all.resolve(at(1), &place, &who(0, 0)), id);
        // Polled first, seen by a probe later.
        let other = place_at(1, "0.0.0.0:81");
        let id = all.resolve(at(1), &other, &who(0, 6));
        assert_eq!(all.resolve(at(2), &other, &who(101, 0)), id);
        assert_eq!(all.get(id).unwrap().sk, 101);
        assert_eq!(all.resolve(at(2), &place_at(2, "0.0.0.0:81"), &who(0, 0)), ListenerId(3));
    }

    #[test]
    fn a_listener_that_packets_to_another_port_are_steered_to_is_still_itself() {
        let mut all = Listeners::default();
        let place = place_at(1, "127.0.0.1:80");
        let id = all.began(at(0), &place, &who(100, 5));
        all.get_mut(id).unwrap().note_place(&place);
        let called = place_at(1, "127.0.0.1:81");
        assert_eq!(all.resolve_called(at(1), &called, &who(100, 5)), id);
        assert_eq!(all.get(id).unwrap().endpoints.local, place.local);
        assert_eq!(all.get(id).unwrap().steered_from, Some(called.local));
        assert!(all.at_port(1, 81).next().is_none());
        // Another file, or another namespace: another listener in the same memory.
        assert_ne!(all.resolve_called(at(2), &called, &who(100, 6)), id);
        assert_ne!(all.resolve_called(at(2), &place_at(2, "127.0.0.1:81"), &who(100, 5)), id);
    }

    #[test]
    fn a_listener_that_was_first_seen_by_what_was_called_gets_its_own_place() {
        let mut all = Listeners::default();
        let id = all.resolve_called(at(1), &place_at(1, "127.0.0.1:81"), &who(100, 0));
        let place = place_at(1, "127.0.0.1:80");
        assert_eq!(all.resolve(at(2), &place, &who(100, 5)), id);
        assert_eq!(all.get(id).unwrap().endpoints.local, place.local);
        assert_eq!(all.only_at_port(1, 80), Some(id));
        assert_eq!(all.only_at_port(1, 81), None);
        // A listener whose own place is known does not move: its memory is used again.
        let other = all.resolve(at(3), &place_at(1, "127.0.0.1:82"), &who(100, 0));
        assert_ne!(other, id);
    }

    #[test]
    fn members_of_a_group_are_told_apart() {
        let mut all = Listeners::default();
        let place = place_at(1, "0.0.0.0:80");
        let first = all.began(at(0), &place, &who(100, 5));
        let second = all.began(at(1), &place, &who(101, 6));
        assert_ne!(first, second);
        assert_eq!(all.resolve(at(2), &place, &who(0, 6)), second);
        assert_eq!(all.only_at_port(1, 80), None);
        // A third one, unknown by any name.
        assert!(all.resolve(at(2), &place, &who(102, 7)) > second);
    }

    #[test]
    fn memory_that_is_used_again_is_another_listener() {
        let mut all = Listeners::default();
        let place = place_at(1, "0.0.0.0:80");
        let old = all.began(at(0), &place, &who(100, 5));
        all.close(old, at(50));
        // Late events still mean the old one.
        assert_eq!(all.resolve(at(49), &place, &who(100, 5)), old);
        let new = all.began(at(60), &place, &who(100, 6));
        let call = ListenCall {
            time: at(60),
            pid: 1,
            backlog: None,
            somaxconn: None,
            options: SocketOptions::NONE,
            again: false,
        };
        all.get_mut(new).unwrap().listen = Some(call);
        assert_ne!(old, new);
        assert_eq!(all.resolve(at(48), &place, &who(100, 5)), old);
        assert_eq!(all.resolve(at(61), &place, &who(100, 6)), new);
        // Its end was missed: listening again at the same address in memory tells.
        let newer = all.began(at(90), &place, &who(100, 7));
        assert_ne!(newer, new);
        assert_eq!(all.get(new).unwrap().closed, Some(at(90)));
        assert_eq!(all.only_at_port(1, 80), Some(newer));
    }

    #[test]
    fn a_drop_may_be_heard_of_before_the_listen() {
        let mut all = Listeners::default();
        let place = place_at(1, "0.0.0.0:80");
        let id = all.resolve(at(12), &place, &who(100, 5));
        assert_eq!(all.began(at(10), &place, &who(100, 5)), id);
    }

    /// Of a listener, a table that is read while it begins to listen is older than its listen(): nothing was closed then.
    #[test]
    fn a_reading_that_began_before_the_listen_is_of_the_same_listener() {
        let mut all = Listeners::default();
        let place = place_at(1, "0.0.0.0:80");
        let id = all.resolve(at(8), &place, &who(100, 5));
        assert_eq!(all.began(at(10), &place, &who(100, 5)), id);
        assert_eq!(all.get(id).unwrap().closed, None);
        // Another file in the same memory is another listener.
        let other = all.began(at(20), &place, &who(100, 6));
        assert_ne!(other, id);
        assert_eq!(all.get(id).unwrap().closed, Some(at(20)));
    }

    #[test]
    fn there_is_an_end_to_listeners() {
        let mut all = Listeners::default();
        for number in 1..=40_000_u64 {
            let port = u16::try_from(number % 60_000).unwrap();
            let place = Endpoints::local_only(1, Family::V4, ([10, 0, 0, 1], port).into());
            all.began(at(number), &place, &who(number, number));
        }
        assert!(
            all.by_id.len() <= LISTENERS && all.by_sk.len() <= LISTENERS && all.by_inode.len() <= LISTENERS
        );
        assert!(all.by_port.len() <= LISTENERS && all.forgotten() > 20_000);
        for id in 1..=40_000 {
            all.close(ListenerId(id), at(50_000));
        }
        all.expire(at(80_001));
        assert!(
            all.by_id.is_empty() && all.by_sk.is_empty() && all.by_inode.is_empty() && all.by_port.is_empty()
        );
    }
}
