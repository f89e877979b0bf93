//! The ways in which a port can be taken.

use crate::rehearse::stage::SERVER_LINK;

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
    SelfConnect,
    FinWait,
    FinWait1,
    LastAck,
    CloseWait,
    Device,
    DeviceWildcard,
    /// No conflict.
    FinWaitReuse,
    /// No conflict.
    OtherDevices,
}

/// Those that can share a stage.
pub(super) const TOGETHER: [Kind; 18] = [
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
    Kind::SelfConnect,
    Kind::FinWait,
    Kind::FinWait1,
    Kind::LastAck,
    Kind::CloseWait,
    Kind::Device,
    Kind::DeviceWildcard,
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
            "self-connect" => Self::SelfConnect,
            "fin-wait" => Self::FinWait,
            "fin-wait-1" => Self::FinWait1,
            "last-ack" => Self::LastAck,
            "close-wait" => Self::CloseWait,
            "device" => Self::Device,
            "device-wildcard" => Self::DeviceWildcard,
            "fin-wait-reuse" => Self::FinWaitReuse,
            "other-devices" => Self::OtherDevices,
            _ => Self::Basic,
        }
    }

    /// Whether it is a client's connect() that was given the port.
    pub(super) fn is_grab(self) -> bool {
        matches!(
            self,
            Self::Basic | Self::TimeWait | Self::Vanishing | Self::OtherNamespace | Self::SelfConnect
        )
    }

    /// Whether the server fails to start.
    pub(super) fn conflicts(self) -> bool {
        !matches!(self, Self::OtherNamespace | Self::FinWaitReuse | Self::OtherDevices)
    }

    /// Whether it is a connection that the server's predecessor has left.
    pub(super) fn is_left(self) -> bool {
        matches!(
            self,
            Self::TimeWaitRestart | Self::FinWait | Self::FinWait1 | Self::LastAck | Self::FinWaitReuse
        )
    }

    /// Whether what is played takes a device beside the loopback device.
    pub(super) fn needs_link(self) -> bool {
        self == Self::OtherDevices
    }

    /// The device that the holder is bound to.
    pub(super) fn holder_device(self) -> Option<&'static str> {
        matches!(self, Self::DeviceWildcard | Self::OtherDevices).then_some("lo")
    }

    /// The device that the server binds.
    pub(super) fn server_device(self) -> Option<&'static str> {
        match self {
            Self::Device => Some("lo"),
            Self::OtherDevices => Some(SERVER_LINK.name),
            _ => None,
        }
    }

    /// The port that the server is configured to use.
    pub(super) fn port(self) -> u16 {
        if self.is_grab() { GRABBED } else { SAFE }
    }

    pub(super) fn cause(self) -> &'static str {
        match self {
            Self::Basic | Self::Vanishing | Self::OtherNamespace | Self::SelfConnect => "ephemeral-grab",
            Self::Listener
            | Self::AtListen
            | Self::OtherUser
            | Self::Device
            | Self::DeviceWildcard
            | Self::OtherDevices => "listener",
            Self::FinWait | Self::FinWait1 | Self::FinWaitReuse => "fin-wait",
            Self::LastAck => "last-ack",
            Self::BoundSocket | Self::AcceptedChild | Self::CloseWait => "bound-socket",
            Self::KernelSocket => "kernel-socket",
            Self::TimeWait | Self::TimeWaitRestart => "time-wait",
            Self::InheritedFd => "inherited-fd",
            Self::Wildcard => "wildcard",
        }
    }

    /// Whether the server sets SO_REUSEADDR, as most do; without it, connections alone are in its way, TIME_WAIT included.
    pub(super) fn server_reuses(self) -> bool {
        !matches!(
            self,
            Self::TimeWait
                | Self::TimeWaitRestart
                | Self::AcceptedChild
                | Self::CloseWait
                | Self::FinWait
                | Self::FinWait1
                | Self::LastAck
        )
    }

    /// A restarting service tries again; but what happens once must be seen at once.
    pub(super) fn attempts(self) -> u32 {
        if matches!(self, Self::Vanishing | Self::AtListen) || !self.conflicts() { 1 } else { 3 }
    }
}
