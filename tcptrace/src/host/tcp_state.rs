//! The states a TCP socket can be in, as the kernel numbers them.

use std::fmt;

/// State of a TCP socket (`include/net/tcp_states.h`; the numbers are part of the kernel's user interface).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum TcpState {
    /// Connected.
    Established = 1,
    /// SYN sent, no answer yet.
    SynSent = 2,
    /// SYN received: a half-open request, or a Fast Open child.
    SynRecv = 3,
    /// Closed here, FIN not acknowledged yet.
    FinWait1 = 4,
    /// Closed here, FIN acknowledged, the peer has not closed.
    FinWait2 = 5,
    /// Closed on both sides; the port stays taken for 60 s.
    TimeWait = 6,
    /// Neither listening nor connected. A socket that holds a port in this state is bound only.
    Close = 7,
    /// The peer has closed, this side has not.
    CloseWait = 8,
    /// Both closed, the last FIN not acknowledged yet.
    LastAck = 9,
    /// Listening.
    Listen = 10,
    /// Both closed at the same time.
    Closing = 11,
    /// Internal to the kernel: a half-open request. sock_diag shows it as `SynRecv`.
    NewSynRecv = 12,
}

impl TcpState {
    /// The state the kernel numbers so, if there is one.
    pub fn from_kernel(number: u8) -> Option<Self> {
        Some(match number {
            1 => Self::Established,
            2 => Self::SynSent,
            3 => Self::SynRecv,
            4 => Self::FinWait1,
            5 => Self::FinWait2,
            6 => Self::TimeWait,
            7 => Self::Close,
            8 => Self::CloseWait,
            9 => Self::LastAck,
            10 => Self::Listen,
            11 => Self::Closing,
            12 => Self::NewSynRecv,
            _ => return None,
        })
    }

    /// Name as `ss` prints it, for example `TIME-WAIT`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Established => "ESTAB",
            Self::SynSent => "SYN-SENT",
            Self::SynRecv | Self::NewSynRecv => "SYN-RECV",
            Self::FinWait1 => "FIN-WAIT-1",
            Self::FinWait2 => "FIN-WAIT-2",
            Self::TimeWait => "TIME-WAIT",
            Self::Close => "UNCONN",
            Self::CloseWait => "CLOSE-WAIT",
            Self::LastAck => "LAST-ACK",
            Self::Listen => "LISTEN",
            Self::Closing => "CLOSING",
        }
    }
}

impl fmt::Display for TcpState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_round_trip() {
        for number in 0..=u8::MAX {
            match TcpState::from_kernel(number) {
                Some(state) => assert_eq!(state as u8, number),
                None => assert!(!(1..=12).contains(&number)),
            }
        }
    }
}
