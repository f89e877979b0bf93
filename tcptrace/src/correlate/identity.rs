//! Which network namespace a number means: the kernel gives the number of one that is gone to the next one that is made.

use crate::event::{CounterSample, Timestamp};

use super::Correlator;
use super::listener::ListenerId;

impl Correlator {
    /// A sample of the namespace `netns` at `time`. If the number was another namespace's before, as the cookie tells (or, where the
    /// kernel tells none, a counter that fell), what is known of that one is forgotten.
    pub(super) fn identify(
        &mut self,
        time: Timestamp,
        netns: u32,
        cookie: Option<u64>,
        counters: Option<&CounterSample>,
    ) {
        let known = self.namespace_mut(netns);
        let is_other = match (known.cookie, cookie) {
            (Some(known), Some(cookie)) => known != cookie,
            _ => counters.is_some_and(|counters| known.outgrows(time, counters)),
        };
        if is_other {
            self.forget_namespace(time, netns);
        }
        if cookie.is_some() {
            self.namespace_mut(netns).cookie = cookie;
        }
    }

    /// The namespace is gone. What the kernel side counts by its number goes on, and so do the tables of these counts.
    fn forget_namespace(&mut self, time: Timestamp, netns: u32) {
        self.namespaces.remove(&netns);
        self.devices.retain(|(of, _), _| *of != netns);
        let listeners: Vec<ListenerId> = self
            .listeners
            .iter()
            .filter(|listener| listener.endpoints.netns == netns)
            .map(|listener| listener.id)
            .collect();
        for listener in listeners {
            self.listeners.close(listener, time);
        }
        self.conflicts.forget(netns);
        self.refusals.forget(netns);
        self.existing.forget(netns);
        self.ports.forget(netns);
        self.served.forget(netns);
        self.destinations.forget(netns);
        self.absences.forget(netns);
        self.paths.forget(netns);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{
        Event, How, Kind, KnobSample, Listen, ListenerClosed, ListenerRef, NoListener, PortTaken,
        SocketOptions,
    };
    use crate::finding::testing::{NETNS, ms, place, task};

    fn send(to: &mut Correlator, at: u64, kind: Kind) {
        to.on_event(&Event { time: ms(at), kind }, &mut Vec::new());
    }

    fn counters(cookie: Option<u64>, active_opens: u64) -> Kind {
        let active_opens = Some(active_opens);
        Kind::CounterSample(Box::new(CounterSample {
            netns: NETNS,
            cookie,
            active_opens,
            ..CounterSample::default()
        }))
    }

    fn listener(sk: u64) -> ListenerRef {
        ListenerRef { sk, inode: sk, limit: 4, ..ListenerRef::default() }
    }

    /// A namespace in which redis[9] listens on 6379, nginx[8] did on 80, and SYNs come for 81.
    fn lived_in(cookie: Option<u64>) -> Correlator {
        let mut known = Correlator::default();
        send(&mut known, 0, counters(cookie, 70));
        for (sk, pid, comm, port) in [(1, 8, "nginx", 80), (2, 9, "redis", 6379)] {
            let taken = PortTaken {
                endpoints: place(&format!("10.0.0.1:{port}")),
                task: task(pid, comm),
                sk,
                how: How::Bind,
                options: SocketOptions::default(),
            };
            send(&mut known, 5, Kind::PortTaken(Box::new(taken)));
            let listen = Listen {
                endpoints: place(&format!("10.0.0.1:{port}")),
                listener: listener(sk),
                task: task(pid, comm),
                backlog: Some(4),
                somaxconn: Some(4096),
                options: SocketOptions::default(),
                again: false,
            };
            send(&mut known, 10, Kind::Listen(Box::new(listen)));
        }
        let closed = ListenerClosed {
            endpoints: place("10.0.0.1:80"),
            listener: listener(1),
            task: task(8, "nginx"),
            exiting: Some(true),
            by_kernel: false,
            last: None,
        };
        send(&mut known, 20, Kind::ListenerClosed(Box::new(closed)));
        send(&mut known, 30, no_listener(7));
        send(&mut known, 2000, counters(cookie, 75));
        assert_eq!(known.namespace(NETNS).unwrap().grown(|of| of.active_opens), Some((ms(2000), 5)));
        assert!(known.former_listener((NETNS, 80)).is_some() && known.absent((NETNS, 81)).is_some());
        assert!(known.served().get((NETNS, 6379)).is_some());
        known
    }

    fn no_listener(total: u64) -> Kind {
        Kind::NoListener(NoListener { endpoints: place("10.0.0.1:81"), total })
    }

    fn is_forgotten(known: &Correlator) -> bool {
        let forgotten = [
            known.former_listener((NETNS, 80)).is_none(),
            known.absent((NETNS, 81)).is_none(),
            known.served().get((NETNS, 6379)).is_none(),
            known.listeners().at_port(NETNS, 6379).next().is_none(),
        ];
        assert!(forgotten.iter().all(|one| *one == forgotten[0]), "{forgotten:?}");
        forgotten[0]
    }

    #[test]
    fn another_cookie_is_another_namespace() {
        let mut known = lived_in(Some(1));
        assert!(!is_forgotten(&known));
        send(&mut known, 3000, counters(Some(2), 90));
        assert!(is_forgotten(&known));
        // A namespace that is met late began at zero, and nothing of the first one is in its books.
        assert_eq!(known.namespace(NETNS).unwrap().grown(|of| of.active_opens), Some((ms(3000), 90)));
    }

    #[test]
    fn knobs_tell_it_as_well() {
        let mut known = lived_in(Some(1));
        let knobs =
            |cookie| Kind::KnobSample(Box::new(KnobSample { netns: NETNS, cookie, ..KnobSample::default() }));
        send(&mut known, 3000, knobs(Some(1)));
        assert!(!is_forgotten(&known));
        send(&mut known, 3000, knobs(Some(2)));
        assert!(is_forgotten(&known));
    }

    #[test]
    fn without_cookies_a_counter_that_fell_tells_it() {
        let mut known = lived_in(None);
        send(&mut known, 3000, counters(None, 75));
        // A late reading is not a new namespace.
        send(&mut known, 1000, counters(None, 72));
        assert!(!is_forgotten(&known));
        send(&mut known, 4000, counters(None, 3));
        assert!(is_forgotten(&known));
        assert_eq!(known.namespace(NETNS).unwrap().grown(|of| of.active_opens), Some((ms(4000), 3)));
    }

    /// The kernel side's counts are kept by number: those of the first namespace are not the second's.
    #[test]
    fn counts_of_the_kernel_side_begin_where_they_were() {
        let mut known = lived_in(Some(1));
        send(&mut known, 3000, counters(Some(2), 0));
        send(&mut known, 3100, no_listener(8));
        assert_eq!(known.absent((NETNS, 81)).unwrap().total, 1);
    }
}
