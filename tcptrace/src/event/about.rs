//! What an event is about: which socket's ends, which listener, which processes.

use std::net::IpAddr;

use super::{Endpoints, Kind, ListenerRef};

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
            // Of the host, of the tracer, or who is who: whatever is asked for, it is needed to understand the rest.
            Self::PrefixSample(_)
            | Self::ListenerReport(_)
            | Self::CounterSample(_)
            | Self::KnobSample(_)
            | Self::ProcessInfo(_)
            | Self::ProcessState(_)
            | Self::SocketOwner(_)
            | Self::HolderReport(_)
            | Self::PortSurvey(_)
            | Self::Coverage(_)
            | Self::Lost(_)
            | Self::Tick
            | Self::End => About::default(),
        }
    }
}
