//! The words that stand in a recording for what is an enumeration here. They never change within a major version.

use crate::event::{
    AckDropCause, ConnectResult, EnqueuedBy, How, RequestEnding, RetransmitCause, SampleSource, SynAnswer,
    SynDropCause,
};

/// Something that has a word for each of its values.
pub(super) trait Named: Copy {
    /// Its word.
    fn word(self) -> &'static str;
    /// What has that word.
    fn of_word(word: &str) -> Option<Self>;
}

macro_rules! names {
    ($type:ident { $($variant:ident = $word:literal,)+ }) => {
        impl Named for $type {
            fn word(self) -> &'static str {
                match self {
                    $( Self::$variant => $word, )+
                }
            }

            fn of_word(word: &str) -> Option<Self> {
                match word {
                    $( $word => Some(Self::$variant), )+
                    _ => None,
                }
            }
        }
    };
}

names!(SynDropCause {
    AcceptQueue = "accept-queue",
    SynQueue = "syn-queue",
    MaxSynBacklog = "max-syn-backlog",
    NoRoute = "no-route",
    Other = "other",
});

names!(AckDropCause {
    AcceptQueue = "accept-queue",
    Other = "other",
});

names!(RetransmitCause {
    Timer = "timer",
    DuplicateSyn = "duplicate-syn",
    Unknown = "unknown",
});

names!(RequestEnding {
    Expired = "expired",
    ListenerClosed = "listener-closed",
    Reset = "reset",
    Aborted = "aborted",
    Icmp = "icmp",
    Joined = "mptcp-join",
});

names!(SynAnswer {
    Request = "request",
    Cookie = "cookie",
    FastOpen = "fast-open",
});

names!(EnqueuedBy {
    Handshake = "handshake",
    Cookie = "cookie",
    FastOpen = "fast-open",
});

names!(SampleSource {
    Observed = "observed",
    Polled = "polled",
});

names!(How {
    Unknown = "unknown",
    Bind = "bind",
    BindAny = "bind-any",
    Connect = "connect",
    ListenAny = "listen-any",
});

names!(ConnectResult {
    SynAgain = "syn-again",
    Established = "established",
    Refused = "refused",
    Unreachable = "unreachable",
    TimedOut = "timed-out",
    Cancelled = "cancelled",
    Error = "error",
});

/// The kinds of events that are read back from their columns; the others are read from `detail`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Typed {
    Syn,
    SynDrop,
    AckDrop,
    Enqueue,
    Accept,
    PortTaken,
    PortReleased,
    SynAckRetransmit,
    RequestEnd,
    Connect,
    ConnectSample,
    ListenerSample,
    Tick,
    End,
}

// As `Kind::name` has them.
names!(Typed {
    Syn = "syn",
    SynDrop = "syn-drop",
    AckDrop = "ack-drop",
    Enqueue = "enqueue",
    Accept = "accept",
    PortTaken = "port-taken",
    PortReleased = "port-released",
    SynAckRetransmit = "synack-retransmit",
    RequestEnd = "request-end",
    Connect = "connect",
    ConnectSample = "connect-sample",
    ListenerSample = "listener-sample",
    Tick = "tick",
    End = "end",
});
