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

/// Words are the names in output. A variant that is missing here does not compile.
macro_rules! named {
    ($($type:ident { $($variant:ident),+ $(,)? })+) => {$(
        impl Named for $type {
            fn word(self) -> &'static str {
                match self {
                    $( Self::$variant => self.name(), )+
                }
            }

            fn of_word(word: &str) -> Option<Self> {
                [$( Self::$variant ),+].into_iter().find(|of| of.name() == word)
            }
        }
    )+};
}

named! {
    SynDropCause { AcceptQueue, SynQueue, MaxSynBacklog, NoRoute, Other }
    AckDropCause { AcceptQueue, Other }
    RetransmitCause { Timer, DuplicateSyn, Unknown }
    RequestEnding { Expired, ListenerClosed, Reset, Aborted, Icmp, Joined }
    SynAnswer { Request, Cookie, FastOpen }
    EnqueuedBy { Handshake, Cookie, FastOpen }
    SampleSource { Observed, Polled }
    How { Unknown, Bind, BindAny, Connect, ListenAny }
    ConnectResult { SynAgain, Established, Refused, Unreachable, TimedOut, Cancelled, Error }
}

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

impl Typed {
    /// The kind of that name; the names are those of [`Kind::name`](crate::event::Kind::name).
    pub(super) fn of_word(word: &str) -> Option<Self> {
        Some(match word {
            "syn" => Self::Syn,
            "syn-drop" => Self::SynDrop,
            "ack-drop" => Self::AckDrop,
            "enqueue" => Self::Enqueue,
            "accept" => Self::Accept,
            "port-taken" => Self::PortTaken,
            "port-released" => Self::PortReleased,
            "synack-retransmit" => Self::SynAckRetransmit,
            "request-end" => Self::RequestEnd,
            "connect" => Self::Connect,
            "connect-sample" => Self::ConnectSample,
            "listener-sample" => Self::ListenerSample,
            "tick" => Self::Tick,
            "end" => Self::End,
            _ => return None,
        })
    }
}
