//! Who is compared, and by which command.

use super::peers;

/// A contender, in the order of its turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Contender {
    /// No tracer.
    Base,
    /// libbpf-tools: latency of active connects. The nearest to what the default mode sees of a client.
    Tcpconnlat,
    /// libbpf-tools: every change of state. The nearest to `--all`.
    Tcpstates,
    /// As a user starts it.
    Tcptrace,
    /// Every handshake streamed.
    TcptraceAll,
}

impl Contender {
    /// As people write it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Base => "no tracer",
            Self::Tcpconnlat => "tcpconnlat",
            Self::Tcpstates => "tcpstates",
            Self::Tcptrace => "tcptrace",
            Self::TcptraceAll => "tcptrace --all",
        }
    }

    /// The tracer's command in the guest, where ours is `program`; empty for none.
    pub(crate) fn command(self, program: &str, attach: &str) -> Vec<String> {
        // Longer than any turn: the turn ends it.
        let ours = [program, "--json", "--for", "1h", "--attach", attach];
        let command = match self {
            Self::Base => Vec::new(),
            Self::Tcpconnlat => return peers::command("tcpconnlat"),
            Self::Tcpstates => return peers::command("tcpstates"),
            Self::Tcptrace => ours.to_vec(),
            Self::TcptraceAll => [ours.as_slice(), &["--all"]].concat(),
        };
        command.into_iter().map(str::to_owned).collect()
    }
}

/// A contender and the number of listeners on the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Turn {
    pub(crate) contender: Contender,
    pub(crate) listeners: u16,
}

/// An ordinary host.
pub(crate) const FEW: u16 = 10;
/// A host on which the cost must be the same.
pub(crate) const MANY: u16 = 10_000;

/// One round. The two that are compared most closely are neighbours.
pub(crate) const ROUND: [Turn; 7] = [
    Turn { contender: Contender::Base, listeners: FEW },
    Turn { contender: Contender::Tcptrace, listeners: FEW },
    Turn { contender: Contender::Tcpconnlat, listeners: FEW },
    Turn { contender: Contender::TcptraceAll, listeners: FEW },
    Turn { contender: Contender::Tcpstates, listeners: FEW },
    Turn { contender: Contender::Base, listeners: MANY },
    Turn { contender: Contender::Tcptrace, listeners: MANY },
];

impl Turn {
    pub(crate) fn name(self) -> String {
        format!("{}, {} listeners", self.contender.name(), self.listeners)
    }
}
