//! What an event is about: which socket's ends, which listener, which processes.

use std::net::IpAddr;

use super::{Endpoints, Kind, ListenerRef, PortSet};

/// Ports and network namespaces that were asked for; empty: all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PlaceFilter {
    /// Ports of either end.
    pub ports: PortSet,
    /// Network namespaces, by inode number.
    pub netns: Vec<u32>,
}

impl PlaceFilter {
    /// Whether it leaves nothing out.
    #[must_use]
    pub fn is_everywhere(&self) -> bool {
        self.ports.is_empty() && self.netns.is_empty()
    }

    /// Whether a namespace was asked for.
    #[must_use]
    pub fn wants_netns(&self, netns: u32) -> bool {
        self.netns.is_empty() || self.netns.contains(&netns)
    }

    /// Whether something is wanted that is about these: as far as it is about any port or namespace.
    #[must_use]
    pub fn wants(&self, about: &About<'_>) -> bool {
        let asked_for = |port: &u16| self.ports.contains(*port);
        let ports = &about.ports;
        about.netns.is_none_or(|netns| self.wants_netns(netns))
            && (self.ports.is_empty() || *ports == [None, None] || ports.iter().flatten().any(asked_for))
    }
}

/// What an event is about. Empty for what concerns the host, the tracer or a process as a whole.
#[derive(Clone, Debug, Default)]
pub struct About<'a> {
    /// Network namespace.
    pub netns: Option<u32>,
    /// Ports of either end.
    pub ports: [Option<u16>; 2],
    /// Remote address.
    pub peer: Option<IpAddr>,
    /// The listener, whose owner is not in the event.
    pub listener: Option<&'a ListenerRef>,
    /// Processes that the event names, with their command names.
    pub processes: Vec<(u32, &'a str)>,
}

impl<'a> About<'a> {
    fn ends(ends: &Endpoints) -> Self {
        Self {
            netns: Some(ends.netns),
            ports: [Some(ends.local.port()), ends.remote.map(|remote| remote.port())],
            peer: ends.remote.map(|remote| remote.ip()),
            ..Self::default()
        }
    }

    fn at(self, listener: &'a ListenerRef) -> Self {
        Self { listener: Some(listener), ..self }
    }

    fn by(mut self, pid: u32, comm: &'a str) -> Self {
        self.processes.push((pid, comm));
        self
    }

    /// Whether it concerns no socket and no process in particular.
    pub fn is_nothing(&self) -> bool {
        self.netns.is_none() && self.listener.is_none() && self.processes.is_empty()
    }
}

impl Kind {
    /// The network namespace of a record of the kernel side. For each of them, so without the allocation of [`Self::about`].
    pub fn netns_of_record(&self) -> Option<u32> {
        let ends = match self {
            Self::Listen(of) => &of.endpoints,
            Self::Syn(of) => &of.endpoints,
            Self::SynDrop(of) => &of.endpoints,
            Self::AckDrop(of) => &of.endpoints,
            Self::Enqueue(of) => &of.endpoints,
            Self::Accept(of) => &of.endpoints,
            Self::AcceptFail(of) => &of.endpoints,
            Self::BindFail(of) => &of.endpoints,
            Self::PortTaken(of) => &of.endpoints,
            Self::PortReleased(of) => &of.endpoints,
            Self::ListenerClosed(of) => &of.endpoints,
            Self::SynAckRetransmit(of) => &of.endpoints,
            Self::RequestEnd(of) => &of.endpoints,
            Self::NoPort(of) => &of.endpoints,
            Self::NoListener(of) => &of.endpoints,
            Self::Connect(of) => &of.endpoints,
            Self::HandshakeDrop(of) => &of.endpoints,
            _ => return None,
        };
        Some(ends.netns)
    }

    /// What it is about.
    pub fn about(&self) -> About<'_> {
        match self {
            Self::Listen(of) => About::ends(&of.endpoints).by(of.task.pid, &of.task.comm),
            Self::Syn(of) => About::ends(&of.endpoints).at(&of.listener),
            Self::SynDrop(of) => About::ends(&of.endpoints).at(&of.listener),
            Self::AckDrop(of) => About::ends(&of.endpoints).at(&of.listener),
            Self::Enqueue(of) => About::ends(&of.endpoints).at(&of.listener),
            Self::Accept(of) => About::ends(&of.endpoints).by(of.task.pid, &of.task.comm),
            Self::AcceptFail(of) => {
                About::ends(&of.endpoints).at(&of.listener).by(of.task.pid, &of.task.comm)
            }
            Self::BindFail(of) => {
                let takers = of.holders.iter().filter_map(|holder| holder.taker.as_ref());
                let about = About::ends(&of.endpoints).by(of.task.pid, &of.task.comm);
                takers.fold(about, |about, taker| about.by(taker.task.pid, &taker.task.comm))
            }
            Self::PortTaken(of) => About::ends(&of.endpoints).by(of.task.pid, &of.task.comm),
            Self::PortReleased(of) => About::ends(&of.endpoints).by(of.pid, &of.comm),
            Self::ListenerClosed(of) => {
                About::ends(&of.endpoints).at(&of.listener).by(of.task.pid, &of.task.comm)
            }
            Self::SynAckRetransmit(of) => About::ends(&of.endpoints).at(&of.listener),
            Self::RequestEnd(of) => About::ends(&of.endpoints).at(&of.listener),
            Self::ListenerSample(of) => About::ends(&of.endpoints).at(&of.listener),
            Self::NoPort(of) => About::ends(&of.endpoints).by(of.task.pid, &of.task.comm),
            Self::NoListener(of) => About::ends(&of.endpoints),
            Self::Connect(of) => match &of.task {
                Some(task) => About::ends(&of.endpoints).by(task.pid, &task.comm),
                None => About::ends(&of.endpoints),
            },
            Self::HandshakeDrop(of) => match &of.task {
                Some(task) => About::ends(&of.endpoints).by(task.pid, &task.comm),
                None => About::ends(&of.endpoints),
            },
            Self::ConnectSample(of) => About {
                netns: Some(of.netns),
                ports: [None, Some(of.remote.port())],
                peer: Some(of.remote.ip()),
                processes: vec![(of.pid, "")],
                ..About::default()
            },
            Self::PortUse(of) => About { netns: Some(of.netns), ..About::default() }.by(of.pid, &of.comm),
            Self::CounterSample(of) => About { netns: Some(of.netns), ..About::default() },
            Self::KnobSample(of) => About { netns: Some(of.netns), ..About::default() },
            Self::PortSurvey(of) => About { netns: Some(of.netns), ..About::default() },
            // Of the host, of the tracer, or who is who: whatever is asked for, it is needed to understand the rest.
            Self::PrefixSample(_)
            | Self::ListenerReport(_)
            | Self::Device(_)
            | Self::ProcessInfo(_)
            | Self::ProcessState(_)
            | Self::SocketOwner(_)
            | Self::HolderReport(_)
            | Self::Coverage(_)
            | Self::Lost(_)
            | Self::Tick
            | Self::End => About::default(),
        }
    }
}
