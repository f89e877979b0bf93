//! The ways in which a port can be taken.

/// Inside the default ephemeral range, where a connect() may be given it.
const GRABBED: u16 = 35010;
/// Below the ephemeral range, where no connect() is given anything: for conflicts between servers.
const SAFE: u16 = 8090;

/// Who has the port, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Basic,
    Listener,
    BoundSocket,
    TimeWait,
    TimeWaitRestart,
    InheritedFd,
    Wildcard,
    Vanishing,
    AtListen,
    OtherNamespace,
    OtherUser,
    AcceptedChild,
    KernelSocket,
}

/// Those that can share a stage.
pub(super) const TOGETHER: [Kind; 11] = [
    Kind::Basic,
    Kind::Listener,
    Kind::BoundSocket,
    Kind::TimeWait,
    Kind::TimeWaitRestart,
    Kind::InheritedFd,
    Kind::Wildcard,
    Kind::Vanishing,
    Kind::AtListen,
    Kind::OtherUser,
    Kind::AcceptedChild,
];

impl Kind {
    pub(super) fn of(variant: &str) -> Self {
        match variant {
            "listener" => Self::Listener,
            "bound-socket" => Self::BoundSocket,
            "time-wait" => Self::TimeWait,
            "time-wait-restart" => Self::TimeWaitRestart,
            "inherited-fd" => Self::InheritedFd,
            "wildcard" => Self::Wildcard,
            "vanishing" => Self::Vanishing,
            "at-listen" => Self::AtListen,
            "other-namespace" => Self::OtherNamespace,
            "other-user" => Self::OtherUser,
            "accepted-child" => Self::AcceptedChild,
            "kernel-socket" => Self::KernelSocket,
            _ => Self::Basic,
        }
    }

    /// Whether it is a client's connect() that was given the port.
    pub(super) fn is_grab(self) -> bool {
        matches!(self, Self::Basic | Self::TimeWait | Self::Vanishing | Self::OtherNamespace)
    }

    /// The port that the server is configured to use.
    pub(super) fn port(self) -> u16 {
        if self.is_grab() { GRABBED } else { SAFE }
    }

    pub(super) fn cause(self) -> &'static str {
        match self {
            Self::Basic | Self::Vanishing | Self::OtherNamespace => "ephemeral-grab",
            Self::Listener | Self::AtListen | Self::OtherUser => "listener",
            Self::BoundSocket | Self::AcceptedChild => "bound-socket",
            Self::KernelSocket => "kernel-socket",
            Self::TimeWait | Self::TimeWaitRestart => "time-wait",
            Self::InheritedFd => "inherited-fd",
            Self::Wildcard => "wildcard",
        }
    }

    /// Whether the server sets SO_REUSEADDR, as most do; without it, connections alone are in its way, TIME_WAIT included.
    pub(super) fn server_reuses(self) -> bool {
        !matches!(self, Self::TimeWait | Self::TimeWaitRestart | Self::AcceptedChild)
    }

    /// A restarting service tries again; but what happens once must be seen at once.
    pub(super) fn attempts(self) -> u32 {
        if matches!(self, Self::Vanishing | Self::AtListen | Self::OtherNamespace) { 1 } else { 3 }
    }
}
