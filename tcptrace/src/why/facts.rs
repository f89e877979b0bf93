//! What is known about a destination, before anybody judges.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use crate::command::{Inside, Standpoint};
use crate::event::{CounterSample, FoundRule, NetfilterQueue};
use crate::finding::{Finding, Value};
use crate::host::devices::Device;
use crate::host::knobs::Knobs;
use crate::host::route::Route;
use crate::stock::{Gap, Listener};

use super::far_end::FarEnd;
use super::sampler::Samples;
use super::steered::Steered;

/// The destination as the user wrote it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Name or address.
    pub host: String,
    /// Port.
    pub port: u16,
}

impl std::str::FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            let what = if text.contains("://") {
                "leave out the scheme and the path"
            } else if text.starts_with('/') || text.starts_with("unix:") {
                "a Unix socket is no TCP destination"
            } else {
                "the port is missing or no number"
            };
            let what = if text.matches(':').count() > 1 && !text.contains(['[', '/']) {
                "an IPv6 address stands in brackets"
            } else {
                what
            };
            format!(
                "{text:?} is not HOST:PORT ({what}): write web.example:443, 10.0.0.5:80 or [2001:db8::5]:80"
            )
        };
        let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
        let port = port.parse().ok().filter(|port| *port != 0).ok_or_else(wrong)?;
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        // A bare IPv6 address would take its last group for the port.
        if host.is_empty() || (bare.is_none() && host.contains(':')) {
            return Err(wrong());
        }
        let host = bare.unwrap_or(host).to_owned();
        if host.parse().is_ok_and(|ip: Ipv6Addr| ip.is_unicast_link_local()) {
            return Err(format!(
                "{host} is a link-local address, which every device has its own of: say which, as [{host}%eth0]:{port}"
            ));
        }
        Ok(Self { host, port })
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.host.parse::<IpAddr>() {
            Ok(address) => write!(f, "{}", SocketAddr::new(address, self.port)),
            // With a zone.
            Err(_) if self.host.contains(':') => write!(f, "[{}]:{}", self.host, self.port),
            Err(_) => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

/// A network namespace, for naming it and for commands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Its id.
    pub netns: u32,
    /// Its name, where it has one.
    pub name: Option<String>,
    /// Whether it is tcptrace's own.
    pub own: bool,
}

impl Place {
    /// `command`, for this namespace.
    #[must_use]
    pub fn command(&self, command: &str) -> String {
        let standpoint = Standpoint { own: self.own.then_some(self.netns), host: None };
        standpoint.inside(Inside { netns: self.netns, pid: None, name: self.name.as_deref() }, command)
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (&self.name, self.own) {
            (Some(name), _) => write!(f, "network namespace {name} ({})", self.netns),
            (None, true) => write!(f, "this network namespace"),
            (None, false) => write!(f, "network namespace {}", self.netns),
        }
    }
}

/// Everything that was looked at.
#[derive(Debug, Clone)]
pub struct Facts {
    /// The destination.
    pub target: Target,
    /// Where the question is asked from.
    pub client: Place,
    /// The addresses that its name stands for, each with what is known of it; or why there are none.
    pub addresses: Result<Vec<AddressFacts>, String>,
    /// All listeners of that port, in every namespace that could be looked into.
    pub listeners: Vec<Listener>,
    /// The devices that listeners are bound to, by namespace.
    pub devices: Vec<(u32, Device)>,
    /// What could not be looked at.
    pub gaps: Vec<Gap>,
    /// What was seen while watching.
    pub seen: Option<Seen>,
}

/// What is known of one address.
#[derive(Debug, Clone)]
pub struct AddressFacts {
    /// Address and port.
    pub to: SocketAddr,
    /// Where the client's namespace sends packets for it; an error in words.
    pub route: Result<Route, String>,
    /// The client's address, and where that namespace of this host sends what it answers; `None` if the server is elsewhere,
    /// or in the client's own namespace.
    pub way_back: Option<(IpAddr, Route)>,
    /// The namespace of this host that has the address at which connections end ([`AddressFacts::at`]). `None`: none that could
    /// be looked into, so it is elsewhere.
    pub server: Option<Place>,
    /// Why that may not be the namespace, or the host, that is reached.
    pub server_doubt: Option<String>,
    /// The device of that namespace that connections come by; `None` if that is not known.
    pub arrival: Option<Device>,
    /// The VRF of that namespace that the address is in.
    pub vrf: Option<Device>,
    /// Settings of that namespace.
    pub knobs: Knobs,
    /// Sockets of that namespace that have the port and do not listen: how many are connected, how many only bound.
    pub left_over: LeftOver,
    /// Connections of the client's namespace to it.
    pub pending: Pending,
    /// What leads connections elsewhere.
    pub steered: Steered,
    /// Connections that no program has accepted yet.
    pub waiting: Waiting,
    /// Netfilter queues of the server's and the client's namespace in which packets wait for the program that reads them.
    pub holding: Vec<(Place, NetfilterQueue)>,
    /// The rule that ends every SYN of the client's to it, before it reaches the listener.
    pub ruled: Option<Ruled>,
    /// What became of a connection of our own.
    pub probe: Option<ProbeOutcome>,
}

/// A rule of a firewall that every SYN from the client's address to a destination meets, and that lets none of them through.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ruled {
    /// The namespace that has it.
    pub at: Place,
    /// The rule.
    pub rule: FoundRule,
}

/// Sockets that have the port without listening.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LeftOver {
    /// Connections to it that are not over yet, or in TIME_WAIT.
    pub connected: u32,
    /// Bound, neither listening nor connected (kernels from 6.8 list those).
    pub bound: u32,
}

/// Connections whose handshake is complete, and that no program has accepted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Waiting {
    /// How many.
    pub count: u32,
    /// The one whose peer has been silent for longest waits for at least so long.
    pub longest: Duration,
}

/// Connections to the destination, as sock_diag shows them in the client's namespace.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pending {
    /// SYN sent, no answer yet.
    pub syn_sent: u32,
    /// Of these: the SYN was sent again.
    pub syn_again: u32,
    /// Connected.
    pub established: u32,
}

/// What became of the one connection of `--probe`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProbeOutcome {
    /// The handshake was completed.
    Connected {
        /// After this time.
        after: Duration,
        /// Its other end, as far as it could be followed.
        end: Option<FarEnd>,
    },
    /// It failed with this errno after this time.
    Failed {
        /// The error number.
        errno: i32,
        /// Time until it failed.
        after: Duration,
    },
    /// No answer within this time.
    NoAnswer(Duration),
    /// It could not be made.
    NotMade(String),
}

/// What was seen while watching.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// For how long.
    pub span: Duration,
    /// Findings about the port, as they were last told.
    pub findings: Vec<Finding>,
    /// Listeners of the port that were closed meanwhile.
    pub closed: Vec<ClosedListener>,
    /// Why there were no probes; the rest was watched without.
    pub untraced: Option<String>,
    /// Whether the probes show handshake packets that are dropped inside this host.
    pub sees_drops: bool,
    /// What was seen in many looks meanwhile.
    pub samples: Samples,
    /// The listeners that were there when it began.
    pub before: Option<Vec<Listener>>,
    /// Growth of the counters of the server's namespace, by its id.
    pub counters: Vec<(u32, CounterSample)>,
}

/// A listener that went away while watching.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClosedListener {
    /// Its namespace.
    pub netns: u32,
    /// Its address.
    pub local: SocketAddr,
    /// When, as text.
    pub when: String,
    /// Who closed it: `nginx[17]`.
    pub who: Option<String>,
    /// Whether that process was exiting.
    pub exiting: Option<bool>,
}

/// How a listener stands to an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fit {
    /// It takes connections to it.
    Covers,
    /// It would, for another address.
    OtherAddress,
    /// It takes the other family only.
    OtherFamily,
    /// It is in another namespace.
    OtherNamespace,
    /// It is bound to a device (`SO_BINDTODEVICE`) that connections do not come by.
    OtherDevice,
    /// It has another port.
    OtherPort,
}

impl AddressFacts {
    /// Where connections end: the called address, unless they are known to be led elsewhere.
    pub fn at(&self) -> SocketAddr {
        self.steered.known.as_ref().map_or(self.to, |known| known.to)
    }

    /// The other end of our own connection.
    pub fn far_end(&self) -> Option<&FarEnd> {
        match &self.probe {
            Some(ProbeOutcome::Connected { end, .. }) => end.as_ref(),
            _ => None,
        }
    }

    /// Why it is not sure that the server is the one that is reached; none if our own connection ended there.
    pub fn doubt_of_server(&self) -> Option<&str> {
        let seen = self.far_end().and_then(|end| end.place.as_ref());
        let proven = seen.is_some() && seen.map(|at| at.netns) == self.server.as_ref().map(|at| at.netns);
        self.server_doubt.as_deref().filter(|_| !proven)
    }

    /// `10.0.0.5:80`, and where connections to it are led.
    pub fn end_in_words(&self) -> String {
        match &self.steered.known {
            Some(known) => format!("{} (where {} leads connections to {})", known.to, known.by, self.to),
            None => self.to.to_string(),
        }
    }

    /// How `listener` stands to this address.
    pub fn fit(&self, listener: &Listener) -> Fit {
        if listener.socket.local.port() != self.at().port() {
            return Fit::OtherPort;
        }
        if self.server.as_ref().is_none_or(|server| server.netns != listener.netns) {
            return Fit::OtherNamespace;
        }
        match self.fit_of_address(listener) {
            Fit::Covers if !self.comes_by(listener.socket.ifindex) => Fit::OtherDevice,
            fit => fit,
        }
    }

    /// Whether connections come by this device, or by one that belongs to it; `true` where that is not known.
    fn comes_by(&self, device: u32) -> bool {
        // One that is bound to no device is outside of every VRF, unless it is let in.
        let let_in = self.knobs.tcp_l3mdev_accept.is_some_and(|value| value != 0);
        if device == 0 {
            return self.vrf.is_none() || let_in;
        }
        self.arrival.as_ref().is_none_or(|by| by.index == device || by.master == Some(device))
    }

    fn fit_of_address(&self, listener: &Listener) -> Fit {
        let (at, to) = (listener.socket.local.ip(), self.at().ip());
        if at.to_canonical() == to.to_canonical() {
            return Fit::Covers;
        }
        let same_family = at.to_canonical().is_ipv4() == to.is_ipv4();
        match (at.is_unspecified(), same_family) {
            (true, true) => Fit::Covers,
            // [::] takes IPv4, too, unless it is told not to.
            (true, false) if at.is_ipv6() && listener.socket.v6only == Some(false) => Fit::Covers,
            (false, true) => Fit::OtherAddress,
            (_, false) => Fit::OtherFamily,
        }
    }
}

impl Facts {
    /// The name of a device that a listener is bound to, or its index.
    pub fn device_name(&self, listener: &Listener) -> String {
        let index = listener.socket.ifindex;
        let known =
            self.devices.iter().find(|(netns, device)| (*netns, device.index) == (listener.netns, index));
        known.map_or_else(|| format!("with index {index}"), |(_, device)| device.name.clone())
    }

    /// The name of a device of a namespace, or its index.
    pub fn device_named(&self, netns: u32, index: u32) -> String {
        let known = self.devices.iter().find(|(place, device)| (*place, device.index) == (netns, index));
        known.map_or_else(|| index.to_string(), |(_, device)| device.name.clone())
    }

    /// The listeners that take connections to `address`.
    pub fn listeners_at<'f>(&'f self, address: &'f AddressFacts) -> impl Iterator<Item = &'f Listener> {
        self.listeners.iter().filter(|listener| address.fit(listener) == Fit::Covers)
    }

    /// How many connects to `address` have sent their SYN again, now or at any look while this was watched.
    pub fn syn_again(&self, address: &AddressFacts) -> u32 {
        let seen = self.seen.as_ref().map_or(0, |seen| seen.samples.syn_again(address.to));
        seen.max(address.pending.syn_again)
    }

    /// The listeners that took connections to `address` when the watch began; `None` if that is not known.
    pub fn before<'f>(&'f self, address: &'f AddressFacts) -> Option<Vec<&'f Listener>> {
        let before = self.seen.as_ref()?.before.as_ref()?;
        Some(before.iter().filter(|listener| address.fit(listener) == Fit::Covers).collect())
    }

    /// How many connections waited at `listener` when the watch began.
    pub fn depth_before(&self, listener: &Listener) -> Option<u32> {
        let before = self.seen.as_ref()?.before.as_ref()?;
        let cookie = (listener.netns, listener.socket.cookie);
        let then = before.iter().find(|then| (then.netns, then.socket.cookie) == cookie);
        Some(then.map_or(0, |then| then.socket.depth))
    }

    /// What was seen of findings of `code` about a listener of this address's namespace, or about it as a destination.
    pub fn finding<'f>(&'f self, address: &'f AddressFacts, codes: &'f [&'f str]) -> Option<&'f Finding> {
        let of_this = |finding: &Finding| {
            let ends = [address.to, address.at()];
            let is = |ip: Option<IpAddr>, port: u16| {
                let same = |end: &SocketAddr| end.ip().to_canonical();
                ends.iter().any(|end| {
                    end.port() == port && ip.is_none_or(|ip| ip.is_unspecified() || same(end) == ip)
                })
            };
            let here = ends_of(finding).into_iter().any(|(ip, port)| is(ip, port));
            let server = address.server.as_ref().map(|server| server.netns);
            let netns = finding.subject.netns;
            here && (netns.is_none() || netns == server || netns == Some(self.client.netns))
        };
        let seen = self.seen.as_ref()?;
        codes
            .iter()
            .find_map(|code| seen.findings.iter().find(|finding| finding.code == *code && of_this(finding)))
    }
}

/// Whether two addresses are one; a zone, which not every source of them knows, does not count.
pub(super) fn is_same(one: SocketAddr, other: SocketAddr) -> bool {
    (one.ip(), one.port()) == (other.ip(), other.port())
}

/// Where the servers are that a finding is about: its subject, or those that it names where it hits several alike.
pub(super) fn ends_of(finding: &Finding) -> Vec<(Option<IpAddr>, u16)> {
    let subject = &finding.subject;
    let at = |at: SocketAddr| (Some(at.ip().to_canonical()), at.port());
    let own = subject.address.map(at).or_else(|| subject.port.map(|port| (None, port)));
    let several = match finding.evidence.get("servers") {
        Some(Value::Parties(parties)) => parties.as_slice(),
        _ => &[],
    };
    own.into_iter().chain(several.iter().filter_map(|party| party.address.map(at))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::why::testing::{address, listener};

    #[test]
    fn targets() {
        let target = |text: &str| text.parse::<Target>();
        assert_eq!(target("web.example:443"), Ok(Target { host: "web.example".into(), port: 443 }));
        assert_eq!(target("[::1]:80").unwrap().to_string(), "[::1]:80");
        assert_eq!(target("10.0.0.1:80").unwrap().to_string(), "10.0.0.1:80");
        assert_eq!(target("[fe80::1%eth0]:80").unwrap().to_string(), "[fe80::1%eth0]:80");
        for wrong in ["web", "web:0", "web:x", ":80", "::1:80", "web:70000", "", "[fe80::1]:80"] {
            assert!(target(wrong).is_err(), "{wrong}");
        }
        assert!(target("http://web:80/").unwrap_err().contains("scheme"));
        assert!(target("/run/web.sock").unwrap_err().contains("Unix"));
    }

    #[test]
    fn listeners_fit_or_say_how_they_do_not() {
        let fit = |to: &str, at: &str| address(to).fit(&listener(at));
        assert_eq!(fit("10.0.0.1:80", "0.0.0.0:80"), Fit::Covers);
        assert_eq!(fit("10.0.0.1:80", "10.0.0.1:80"), Fit::Covers);
        assert_eq!(fit("10.0.0.1:80", "127.0.0.1:80"), Fit::OtherAddress);
        assert_eq!(fit("10.0.0.1:80", "[::]:80"), Fit::Covers);
        assert_eq!(fit("10.0.0.1:80", "[::1]:80"), Fit::OtherFamily);
        assert_eq!(fit("[::1]:80", "0.0.0.0:80"), Fit::OtherFamily);
        assert_eq!(fit("[::1]:80", "127.0.0.1:80"), Fit::OtherFamily);
        assert_eq!(fit("10.0.0.1:80", "[::ffff:10.0.0.1]:80"), Fit::Covers);
        let mut v6only = listener("[::]:80");
        v6only.socket.v6only = Some(true);
        assert_eq!(address("10.0.0.1:80").fit(&v6only), Fit::OtherFamily);
        let mut elsewhere = listener("0.0.0.0:80");
        elsewhere.netns = 7;
        assert_eq!(address("10.0.0.1:80").fit(&elsewhere), Fit::OtherNamespace);
    }
}
