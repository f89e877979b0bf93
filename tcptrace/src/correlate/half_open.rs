//! Half-open requests whose SYN-ACK stays unanswered: by listener, peer and remote network.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use crate::event::{PrefixSample, RequestEnd, RequestEnding, RetransmitCause, SynAckRetransmit, Timestamp};

use super::bounded::BoundedMap;

/// Requests that are remembered of one listener.
const REQUESTS: usize = 1024;

/// Remote networks of which completed connections are remembered, of one listener.
const NETWORKS: usize = 256;

/// Networks that are told apart in a summary.
const SHOWN: usize = 16;

/// How long a request is remembered after its last sign of life: longer than the longest pause of the timer, 32 s by default.
const REMEMBERED: Duration = Duration::from_secs(70);

/// Requests that expired longer ago do not count as unanswered now.
const WINDOW: Duration = Duration::from_secs(30);

/// A peer that comes from another port so much later tries again; sooner, it opens several connections.
const RETRY: Duration = Duration::from_secs(2);

/// So many unanswered requests, so many of them for long, are no accident.
const PILE: u64 = 8;
const STUBBORN: u64 = 3;

/// A flood has many sources.
const FLOOD_SOURCES: u64 = 16;

/// Unanswered requests of one listener.
#[derive(Debug)]
pub struct HalfOpen {
    requests: BoundedMap<SocketAddr, Request>,
    /// Connections completed, by network.
    completed: BoundedMap<(IpAddr, u8), u64>,
}

#[derive(Clone, Copy, Debug)]
struct Request {
    began: Timestamp,
    last: Timestamp,
    /// SYN-ACKs that were seen to be sent again by the timer, and because the SYN came again.
    timer: u32,
    duplicates: u32,
    /// Highest number of timeouts that was told.
    timeouts: u32,
    /// The number of timeouts at the last SYN-ACK that the timer sent, where its cause had to be concluded.
    timer_at: Option<u32>,
    /// When a SYN-ACK was last sent.
    sent: Timestamp,
    expired: bool,
    /// An ICMP error ended it.
    unreachable: bool,
    /// Its peer reset it.
    reset: bool,
    /// When its timer must have run out again, if it is still there.
    due: Timestamp,
}

impl Request {
    /// Whether a SYN-ACK at `time` is the timer's, if its cause was not told. The timer sends one for each number of timeouts.
    /// It runs for 2^timeouts seconds from the last SYN-ACK, whatever that was sent for; what is sent earlier answers a SYN that
    /// came again.
    fn is_due(&self, time: Timestamp, timeouts: u32) -> bool {
        let pause = Duration::from_secs(1_u64.checked_shl(timeouts).unwrap_or(u64::MAX).min(120));
        // The age of the first is not always known.
        let is_first = self.timer == 0 && self.duplicates == 0 && self.sent == time;
        self.timer_at.is_none_or(|at| timeouts > at) && (is_first || time.since(self.sent) >= pause * 3 / 4)
    }

    /// Whether it ended without an answer.
    fn has_ended(&self) -> bool {
        self.expired || self.unreachable || self.reset
    }
}

/// What the peers of unanswered requests do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerPattern {
    /// They try again: by the same SYN, or from another port.
    Insist,
    /// Many of them, each once.
    Flood,
    /// A few of them, and they do not try again.
    GiveUp,
}

/// All unanswered requests of a listener at one time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unanswered {
    /// Requests that were sent a SYN-ACK again lately.
    pub requests: u64,
    /// Of these: those that did not answer the third SYN-ACK either, or expired.
    pub stubborn: u64,
    /// SYN-ACKs that were sent again.
    pub retransmissions: u64,
    /// Requests that expired.
    pub expired: u64,
    /// Requests that an ICMP error ended.
    pub unreachable: u64,
    /// Requests that their peers reset, after a SYN-ACK had to be sent again.
    pub reset: u64,
    /// Remote addresses.
    pub sources: u64,
    /// Of these: those that came again from another port.
    pub retried: u64,
    /// Of these: those that sent a SYN again.
    pub repeated: u64,
    /// Of these: those that did one or the other.
    pub insisting: u64,
    /// When the oldest request began.
    pub oldest: Option<Timestamp>,
    /// Networks, those with most requests first.
    pub networks: Vec<UnansweredNetwork>,
    /// How many networks there are in all.
    pub network_count: u64,
    /// Connections completed from networks that complete more than they leave unanswered.
    pub completed_elsewhere: u64,
    /// Unanswered requests of these networks.
    pub unanswered_elsewhere: u64,
    /// How many networks these are.
    pub networks_elsewhere: u64,
    /// Requests that had to be forgotten.
    pub forgotten: u64,
}

/// Unanswered requests of one remote network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnansweredNetwork {
    /// Its address, host bits zero.
    pub network: IpAddr,
    /// How many bits of it count.
    pub bits: u8,
    /// Requests.
    pub requests: u64,
    /// SYN-ACKs that were sent again.
    pub retransmissions: u64,
    /// Requests that expired.
    pub expired: u64,
    /// Remote addresses.
    pub sources: u64,
    /// Of these: those that came again from another port.
    pub retried: u64,
    /// Connections completed, if that was counted.
    pub completed: Option<u64>,
}

impl Unanswered {
    /// Whether they pile up.
    pub fn is_pile(&self) -> bool {
        self.requests >= PILE && self.stubborn >= STUBBORN
    }

    /// Whether they may become a pile: it takes seconds to see whether a peer answers.
    pub fn may_become_pile(&self) -> bool {
        self.requests >= PILE
    }

    /// What the peers do.
    pub fn pattern(&self) -> PeerPattern {
        if self.insisting > 0 && self.insisting * 4 >= self.sources {
            PeerPattern::Insist
        } else if self.sources >= FLOOD_SOURCES
            && self.requests * 5 <= self.sources * 6
            && self.insisting * 10 < self.sources
        {
            PeerPattern::Flood
        } else {
            PeerPattern::GiveUp
        }
    }
}

impl Default for HalfOpen {
    fn default() -> Self {
        Self { requests: BoundedMap::new(REQUESTS), completed: BoundedMap::new(NETWORKS) }
    }
}

impl HalfOpen {
    /// Whether a request of `peer` waits for its final ACK.
    pub(super) fn awaits(&self, peer: SocketAddr) -> bool {
        self.requests.get(&peer).is_some_and(|request| !request.expired)
    }

    pub(super) fn note_retransmit(&mut self, time: Timestamp, again: &SynAckRetransmit) {
        let Some(peer) = again.endpoints.remote else { return };
        if again.acked {
            // Its final ACK has come: it waits for data (TCP_DEFER_ACCEPT), or for room in the accept queue.
            self.requests.remove(&peer);
            return;
        }
        let request = self.request(peer, time, again.age_ns);
        let by_timer = match again.cause {
            RetransmitCause::Timer => true,
            RetransmitCause::DuplicateSyn => false,
            RetransmitCause::Unknown => request.is_due(time, again.timeouts),
        };
        request.sent = request.sent.max(time);
        if by_timer {
            request.timer = request.timer.saturating_add(1);
            request.timer_at = Some(again.timeouts);
        } else {
            request.duplicates = request.duplicates.saturating_add(1);
        }
        request.timeouts = request.timeouts.max(again.timeouts);
        request.due = request.due.max(time.after(next_timeout(again.timeouts)));
    }

    pub(super) fn note_end(&mut self, time: Timestamp, end: &RequestEnd) {
        let Some(peer) = end.endpoints.remote else { return };
        match end.how {
            RequestEnding::Expired if !end.acked => {
                let request = self.request(peer, time, end.age_ns);
                request.expired = true;
                request.timeouts = request.timeouts.max(end.timeouts);
            }
            // What is answered at once, as by a scanner's host, captures nothing.
            RequestEnding::Icmp | RequestEnding::Reset => {
                if let Some(request) = self.requests.get_mut(&peer) {
                    request.last = request.last.max(time);
                    request.unreachable |= end.how == RequestEnding::Icmp;
                    request.reset |= end.how == RequestEnding::Reset;
                }
            }
            // The peer has answered; or there is nobody to answer to.
            RequestEnding::Expired
            | RequestEnding::ListenerClosed
            | RequestEnding::Aborted
            | RequestEnding::Joined => {
                self.requests.remove(&peer);
            }
        }
    }

    pub(super) fn note_completed(&mut self, sample: &PrefixSample) {
        let completed = self.completed.get_or_insert_with((sample.network, sample.bits), || 0);
        *completed = sample.completed.max(*completed);
    }

    /// A final ACK came, and was dropped: the peer has answered.
    pub(super) fn note_answer(&mut self, peer: SocketAddr) {
        self.requests.remove(&peer);
    }

    /// Forgets what is over; returns whether anything is left.
    pub(super) fn expire(&mut self, now: Timestamp) -> bool {
        self.requests.retain(|_, request| now.since(request.last) < REMEMBERED);
        !self.requests.is_empty()
    }

    fn request(&mut self, peer: SocketAddr, time: Timestamp, age_ns: Option<u64>) -> &mut Request {
        let began = age_ns.map_or(time, |age| time.before(Duration::from_nanos(age)));
        let new = Request {
            began,
            last: time,
            timer: 0,
            duplicates: 0,
            timeouts: 0,
            timer_at: None,
            sent: began,
            expired: false,
            unreachable: false,
            reset: false,
            due: time,
        };
        let request = self.requests.get_or_insert_with(peer, || new);
        // The same port, used for another attempt. Ages are exact; without them an expired request has ended.
        if request.has_ended() || (age_ns.is_some() && began > request.began.after(RETRY)) {
            *request = new;
        }
        request.began = request.began.min(began);
        request.last = request.last.max(time);
        request
    }

    /// What is unanswered now. Requests that began before `last_overflow` do not count: their final ACK may have been
    /// dropped, after which the SYN-ACK is sent again as well.
    ///
    /// `still_there`: how many requests were in the SYN queue when it was last looked at, where nothing tells how they end. If
    /// all that are remembered are among them, none of them was answered.
    pub fn unanswered(
        &self,
        now: Timestamp,
        last_overflow: Option<Timestamp>,
        still_there: Option<u32>,
    ) -> Unanswered {
        /// Time for an answer to the third SYN-ACK.
        const ANSWER: Duration = Duration::from_secs(1);
        #[derive(Default)]
        struct Source {
            earliest: Timestamp,
            latest: Timestamp,
            repeated: bool,
            lately: bool,
        }
        let counts = |request: &Request| last_overflow.is_none_or(|last| request.began > last);
        // No event tells of a request that was answered or reset, but its timer no longer runs out.
        let waits = |request: &Request| !request.has_ended() && now <= request.due;
        let waiting = self.requests.iter().filter(|(_, request)| counts(request) && waits(request)).count();
        let all_are_there =
            still_there.is_some_and(|there| usize::try_from(there).is_ok_and(|n| n >= waiting));
        let mut all = Unanswered { forgotten: self.requests.forgotten(), ..Unanswered::default() };
        let mut sources: BTreeMap<IpAddr, Source> = BTreeMap::new();
        let mut networks: BTreeMap<(IpAddr, u8), UnansweredNetwork> = BTreeMap::new();
        for (peer, request) in self.requests.iter() {
            if !counts(request) || !(request.has_ended() || waits(request)) {
                continue;
            }
            let source = sources.entry(peer.ip()).or_insert(Source {
                earliest: request.began,
                latest: request.began,
                repeated: false,
                lately: false,
            });
            source.earliest = source.earliest.min(request.began);
            source.latest = source.latest.max(request.began);
            source.repeated |= request.duplicates > 0;
            // An older one only tells that its peer tries again.
            if request.has_ended() && now.since(request.last) >= WINDOW {
                continue;
            }
            source.lately = true;
            let third = all_are_there && request.timeouts >= 1 && now.since(request.last) >= ANSWER;
            let stubborn = request.has_ended() || (request.timer >= 2 && (request.timeouts >= 2 || third));
            let retransmissions = u64::from(request.timer) + u64::from(request.duplicates);
            all.requests += 1;
            all.stubborn += u64::from(stubborn);
            all.retransmissions += retransmissions;
            all.expired += u64::from(request.expired);
            all.unreachable += u64::from(request.unreachable);
            all.reset += u64::from(request.reset);
            all.oldest = Some(all.oldest.map_or(request.began, |oldest| oldest.min(request.began)));
            let (network, bits) = network_of(peer.ip());
            let row = networks.entry((network, bits)).or_insert_with(|| UnansweredNetwork {
                network,
                bits,
                requests: 0,
                retransmissions: 0,
                expired: 0,
                sources: 0,
                retried: 0,
                completed: self.completed.get(&(network, bits)).copied(),
            });
            row.requests += 1;
            row.retransmissions += retransmissions;
            row.expired += u64::from(request.expired);
        }
        for (address, source) in sources.iter().filter(|(_, source)| source.lately) {
            let retried = source.latest.since(source.earliest) >= RETRY;
            all.sources += 1;
            all.retried += u64::from(retried);
            all.repeated += u64::from(source.repeated);
            all.insisting += u64::from(retried || source.repeated);
            if let Some(row) = networks.get_mut(&network_of(*address)) {
                row.sources += 1;
                row.retried += u64::from(retried);
            }
        }
        for (network, completed) in self.completed.iter() {
            let unanswered = networks.get(network).map_or(0, |row| row.requests);
            if *completed > unanswered {
                all.completed_elsewhere += completed;
                all.unanswered_elsewhere += unanswered;
                all.networks_elsewhere += 1;
            }
        }
        all.network_count = u64::try_from(networks.len()).unwrap_or(u64::MAX);
        all.networks = networks.into_values().collect();
        all.networks.sort_by_key(|row| std::cmp::Reverse(row.requests));
        all.networks.truncate(SHOWN);
        all
    }
}

/// The longest that it can take until the timer runs out again: it doubles from a second, up to two minutes (`TCP_RTO_MAX`).
fn next_timeout(timeouts: u32) -> Duration {
    let seconds = 2_u64.checked_pow(timeouts.saturating_add(1)).unwrap_or(u64::MAX).min(120);
    Duration::from_secs(seconds) * 5 / 4 + Duration::from_secs(1)
}

/// The /24 or /64 of an address, as the kernel side counts them.
fn network_of(address: IpAddr) -> (IpAddr, u8) {
    match address.to_canonical() {
        IpAddr::V4(address) => {
            let [a, b, c, _] = address.octets();
            (IpAddr::from([a, b, c, 0]), 24)
        }
        IpAddr::V6(address) => {
            (IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX))), 64)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_are_those_of_the_kernel_side() {
        let network = |text: &str| network_of(text.parse().unwrap());
        assert_eq!(network("192.0.2.77"), ("192.0.2.0".parse().unwrap(), 24));
        assert_eq!(network("::ffff:192.0.2.77"), ("192.0.2.0".parse().unwrap(), 24));
        assert_eq!(network("2001:db8:1:2:3:4:5:6"), ("2001:db8:1:2::".parse().unwrap(), 64));
    }
}
