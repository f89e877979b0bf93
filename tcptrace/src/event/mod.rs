//! Decoded events: owned, safe Rust. Decoding checks every length and never panics.
//!
//! Everything that correlation and findings know comes to them as an [`Event`]: what the kernel side reported, and what user
//! space read beside it (counters, knobs, processes, the passing of time). So a recording of the events replays to the same
//! findings.

mod about;
mod address;
mod connect;
pub mod decode;
mod device;
mod drop;
mod drop_facts;
mod histogram;
mod host;
mod listener;
mod listener_totals;
mod open_socket;
mod port;
mod port_set;
mod process;
mod socket;
mod time;
mod trace;

pub use about::{About, PlaceFilter};
pub use address::AddressKey;
pub use connect::{Connect, ConnectResult, ConnectSample, ConnectTotals};
pub use decode::{DecodeError, connect_sample, decode_record, listener_sample, port_use, record_name};
pub use device::Device;
pub use drop::{CalledAddress, HandshakeDrop, ListenerReport, NoListener, Packet, ReportedListener};
pub use drop_facts::{
    CgroupFacts, ConntrackFacts, DropFacts, FoundRule, NeighbourFacts, NetfilterQueue, RuleDeed, RuleFacts,
};
pub use histogram::Distribution;
pub use host::{CounterSample, KnobSample};
pub use listener::{
    Accept, AcceptFail, AckDrop, AckDropCause, Enqueue, EnqueuedBy, Listen, ListenerClosed, ListenerRef,
    ListenerSample, PrefixSample, RequestEnd, RequestEnding, RetransmitCause, SampleSource, Syn,
    SynAckRetransmit, SynAnswer, SynDrop, SynDropCause,
};
pub use listener_totals::{Acceptor, ListenerTotals};
pub use open_socket::{OpenSocket, decode_open_sockets};
pub use port::{
    BindFail, BindFailure, BindStage, DestinationUse, Found, Holder, HolderReport, How, Ipv6Off, NoPort,
    PortHolders, PortReleased, PortSurvey, PortTaken, PortUse, ReportedHolder, ReuseState, Taker,
    UnusableAddress,
};
pub use port_set::{ParsePortSetError, PortRange, PortSet};
pub use process::{
    Owner, OwnerConfidence, ProcessDetails, ProcessInfo, ProcessState, SocketOwner, Task, Watch,
};
pub use socket::{Endpoints, Family, SocketOptions, SocketState, canonical};
pub use time::{ClockOffset, Timestamp};
pub use trace::{Coverage, LossPlace, Lost, Observation, ObservationStatus, Tier, observation};

use serde::{Deserialize, Serialize};

/// Something that happened, or was read, at a time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// When. Events of several CPUs may come up to about 100 ms out of order.
    pub time: Timestamp,
    /// What.
    pub kind: Kind,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A listener began to listen, or changed its backlog.
    Listen(Box<Listen>),
    /// A SYN passed the queue checks.
    Syn(Syn),
    /// A SYN was dropped at a queue check.
    SynDrop(SynDrop),
    /// A final ACK was dropped.
    AckDrop(AckDrop),
    /// A connection entered the accept queue.
    Enqueue(Enqueue),
    /// accept() returned a connection.
    Accept(Box<Accept>),
    /// accept() failed for want of something.
    AcceptFail(Box<AcceptFail>),
    /// bind() or listen() failed.
    BindFail(Box<BindFail>),
    /// A port was taken.
    PortTaken(Box<PortTaken>),
    /// A port was given back.
    PortReleased(Box<PortReleased>),
    /// A listener was closed.
    ListenerClosed(Box<ListenerClosed>),
    /// A SYN-ACK was sent again.
    SynAckRetransmit(SynAckRetransmit),
    /// A half-open request ended without a connection.
    RequestEnd(RequestEnd),
    /// Connections completed from one remote network, while a listener's SYN-ACKs go unanswered.
    PrefixSample(PrefixSample),
    /// A listener's queues and counts, once a second if changed.
    ListenerSample(Box<ListenerSample>),
    /// A connect was not answered, failed, or was slow.
    Connect(Box<Connect>),
    /// Counts of one process's connects to one destination.
    ConnectSample(Box<ConnectSample>),
    /// A packet of a handshake was dropped on its way.
    HandshakeDrop(Box<HandshakeDrop>),
    /// A SYN came for a port that nobody listens on.
    NoListener(NoListener),
    /// Who listens on a port elsewhere.
    ListenerReport(Box<ListenerReport>),
    /// The kernel's counters of a namespace.
    CounterSample(Box<CounterSample>),
    /// The knobs of a namespace.
    KnobSample(Box<KnobSample>),
    /// What the index of a device stands for.
    Device(Box<Device>),
    /// Who a process is.
    ProcessInfo(Box<ProcessInfo>),
    /// What a process is doing.
    ProcessState(ProcessState),
    /// Who has a socket open.
    SocketOwner(Box<SocketOwner>),
    /// Who has the port of a conflict.
    HolderReport(Box<HolderReport>),
    /// connect() found no port.
    NoPort(Box<NoPort>),
    /// What a process did with ephemeral ports.
    PortUse(Box<PortUse>),
    /// Who has the ephemeral ports of a namespace.
    PortSurvey(Box<PortSurvey>),
    /// What is observed from here on.
    Coverage(Box<Coverage>),
    /// Events were lost.
    Lost(Box<Lost>),
    /// Time passed; once a second, after the samples of that second.
    Tick,
    /// The last event: nothing more is observed.
    End,
}

impl Kind {
    /// Name in output.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Listen(_) => "listen",
            Self::Syn(_) => "syn",
            Self::SynDrop(_) => "syn-drop",
            Self::AckDrop(_) => "ack-drop",
            Self::Enqueue(_) => "enqueue",
            Self::Accept(_) => "accept",
            Self::AcceptFail(_) => "accept-fail",
            Self::BindFail(_) => "bind-fail",
            Self::PortTaken(_) => "port-taken",
            Self::PortReleased(_) => "port-released",
            Self::ListenerClosed(_) => "listener-closed",
            Self::SynAckRetransmit(_) => "synack-retransmit",
            Self::RequestEnd(_) => "request-end",
            Self::PrefixSample(_) => "prefix-sample",
            Self::ListenerSample(_) => "listener-sample",
            Self::Connect(_) => "connect",
            Self::ConnectSample(_) => "connect-sample",
            Self::HandshakeDrop(_) => "handshake-drop",
            Self::NoListener(_) => "no-listener",
            Self::ListenerReport(_) => "listener-report",
            Self::CounterSample(_) => "counter-sample",
            Self::KnobSample(_) => "knob-sample",
            Self::Device(_) => "device",
            Self::ProcessInfo(_) => "process-info",
            Self::ProcessState(_) => "process-state",
            Self::SocketOwner(_) => "socket-owner",
            Self::HolderReport(_) => "holder-report",
            Self::NoPort(_) => "no-port",
            Self::PortUse(_) => "port-use",
            Self::PortSurvey(_) => "port-survey",
            Self::Coverage(_) => "coverage",
            Self::Lost(_) => "lost",
            Self::Tick => "tick",
            Self::End => "end",
        }
    }

    /// Whether the kernel side reported it; the rest is what user space adds.
    pub fn is_kernel_record(&self) -> bool {
        matches!(
            self,
            Self::Listen(_)
                | Self::Syn(_)
                | Self::SynDrop(_)
                | Self::AckDrop(_)
                | Self::Enqueue(_)
                | Self::Accept(_)
                | Self::AcceptFail(_)
                | Self::BindFail(_)
                | Self::PortTaken(_)
                | Self::PortReleased(_)
                | Self::ListenerClosed(_)
                | Self::SynAckRetransmit(_)
                | Self::RequestEnd(_)
                | Self::NoPort(_)
                | Self::Connect(_)
                | Self::HandshakeDrop(_)
                | Self::NoListener(_)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_stay_small() {
        // A ring-buffer batch becomes thousands of these.
        assert!(size_of::<Event>() <= 192, "{}", size_of::<Event>());
    }

    #[test]
    fn events_survive_serde() {
        let event = Event {
            time: Timestamp::from_nanos(7),
            kind: Kind::KnobSample(Box::new(KnobSample {
                netns: 1,
                reserved_ports: Some([1..=2].into_iter().collect()),
                ..KnobSample::default()
            })),
        };
        let json = crate::output::json_text(&event);
        assert_eq!(serde_json::from_str::<Event>(&json).unwrap(), event);
    }
}
