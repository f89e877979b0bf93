//! Half-open connections, and the listeners they belong to.

use std::collections::HashMap;
use std::time::Duration;

use crate::event::Family;
use crate::host::sock_diag::{DiagSocket, Listener, Timer};

/// Connections of a listener that are not complete.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HalfOpen {
    /// Requests in the SYN queue: SYN-ACK sent, final ACK awaited. SYNs answered by a cookie are in no queue.
    pub requests: u32,
    /// Of these: the SYN-ACK was sent more than once.
    pub retransmitted: u32,
    /// Of these: the final ACK has come and was put aside until data comes (`TCP_DEFER_ACCEPT`). Known once the timer has run
    /// out and no SYN-ACK was sent again; of younger requests it is not known.
    pub deferred: u32,
    /// Fast Open connections whose final ACK is awaited. They stand in the accept queue already.
    pub fast_open: u32,
    /// Several listeners share the address (SO_REUSEPORT), and sock_diag does not tell whose these are: each of them shows
    /// all of the group's.
    pub shared: bool,
}

/// Which listeners of a namespace may have accepted SYNs to an address.
pub(crate) struct Doors<'l> {
    by_port: HashMap<(Family, u16), Vec<(usize, &'l Listener)>>,
    found: Vec<HalfOpen>,
}

impl<'l> Doors<'l> {
    pub(crate) fn new(listeners: &'l [Listener]) -> Self {
        let mut by_port: HashMap<_, Vec<_>> = HashMap::new();
        for (index, listener) in listeners.iter().enumerate() {
            by_port.entry((listener.family, listener.local.port())).or_default().push((index, listener));
        }
        Self { by_port, found: vec![HalfOpen::default(); listeners.len()] }
    }

    /// Books a socket in SYN_RECV to its listener: a request has its listener's family.
    pub(crate) fn note(&mut self, socket: &DiagSocket) {
        let candidates =
            self.by_port.get(&(socket.family, socket.local.port())).map_or(&[][..], Vec::as_slice);
        let score = |listener: &Listener| {
            let address = listener.local.ip();
            let matches = address.is_unspecified() || address == socket.local.ip();
            let device = listener.ifindex == 0 || listener.ifindex == socket.ifindex;
            // As compute_score() in inet_hashtables.c: a named address and a device count for more than none.
            (matches && device)
                .then(|| u8::from(!address.is_unspecified()) * 2 + u8::from(listener.ifindex != 0))
        };
        let Some(best) = candidates.iter().filter_map(|(_, listener)| score(listener)).max() else { return };
        let mut mine: Vec<usize> = Vec::new();
        mine.extend(candidates.iter().filter(|(_, l)| score(l) == Some(best)).map(|(index, _)| *index));
        let shared = mine.len() > 1;
        for index in mine {
            let Some(found) = self.found.get_mut(index) else { continue };
            found.shared |= shared;
            // Only a full socket has memory figures; a request is a smaller thing.
            if socket.drops.is_some() {
                found.fast_open += 1;
            } else {
                found.requests += 1;
                found.retransmitted += u32::from(socket.timer.is_some_and(|timer| timer.retransmits > 0));
                found.deferred += u32::from(socket.timer.is_some_and(is_deferred));
            }
        }
    }

    /// What each listener has, in the order in which they were given.
    pub(crate) fn into_found(self) -> Vec<HalfOpen> {
        self.found
    }
}

/// Whether a request waits for data. Its timer runs for a second at first and for longer each time after that. Without
/// `TCP_DEFER_ACCEPT` the SYN-ACK is sent again each time that it runs out.
fn is_deferred(timer: Timer) -> bool {
    /// The first time-out, and the rounding of the kernel's clock.
    const FIRST: Duration = Duration::from_millis(1050);
    timer.retransmits == 0 && timer.left > FIRST
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stock::testing::{request, socket};

    fn counts(listeners: &[Listener], requests: &[DiagSocket]) -> Vec<(u32, bool)> {
        let mut doors = Doors::new(listeners);
        for request in requests {
            doors.note(request);
        }
        doors.into_found().iter().map(|found| (found.requests, found.shared)).collect()
    }

    #[test]
    fn the_nearest_listener_has_it() {
        let listeners =
            [socket("0.0.0.0:80"), socket("10.0.0.1:80"), socket("[::]:80"), socket("0.0.0.0:81")];
        let requests = [
            request("10.0.0.1:80"),
            request("10.0.0.2:80"),
            request("[::ffff:10.0.0.1]:80"),
            request("10.0.0.1:82"),
        ];
        assert_eq!(counts(&listeners, &requests), [(1, false), (1, false), (1, false), (0, false)]);
    }

    #[test]
    fn a_listener_of_another_device_has_not() {
        let mut elsewhere = socket("0.0.0.0:80");
        elsewhere.ifindex = 3;
        let mut here = request("10.0.0.1:80");
        here.ifindex = 2;
        assert_eq!(counts(&[elsewhere, socket("0.0.0.0:80")], &[here]), [(0, false), (1, false)]);
    }

    #[test]
    fn a_group_shares_what_cannot_be_told_apart() {
        let listeners = [socket("0.0.0.0:80"), socket("0.0.0.0:80")];
        assert_eq!(counts(&listeners, &[request("10.0.0.1:80")]), [(1, true), (1, true)]);
    }

    #[test]
    fn a_request_whose_timer_ran_out_without_a_syn_ack_waits_for_data() {
        let deferred = |retransmits, left_ms| {
            let listeners = [socket("0.0.0.0:80")];
            let mut doors = Doors::new(&listeners);
            let mut one = request("10.0.0.1:80");
            let timer = one.timer.as_mut().unwrap();
            (timer.retransmits, timer.left) = (retransmits, Duration::from_millis(left_ms));
            doors.note(&one);
            doors.into_found()[0].deferred
        };
        assert_eq!(deferred(0, 1900), 1);
        // Its first second, or the end of a later pause: not known.
        assert_eq!(deferred(0, 990), 0);
        assert_eq!(deferred(1, 1900), 0);
    }

    #[test]
    fn fast_open_children_are_no_requests() {
        let listeners = [socket("0.0.0.0:80")];
        let mut doors = Doors::new(&listeners);
        let mut again = request("10.0.0.1:80");
        again.timer.as_mut().unwrap().retransmits = 2;
        doors.note(&again);
        doors.note(&DiagSocket { drops: Some(0), ..request("10.0.0.1:80") });
        let expected = HalfOpen { requests: 1, retransmitted: 1, fast_open: 1, ..HalfOpen::default() };
        assert_eq!(doors.into_found(), [expected]);
    }
}
