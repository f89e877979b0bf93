//! What to do about a conflict.

use crate::correlate::PortHolder;
use crate::event::{PortRange, PortRanges, SocketState};
use crate::finding::commands::sysctl;
use crate::finding::{Party, Remedy, own_words};
use crate::software::Need;

use super::holder_kind::Kind;
use super::{Account, process_of};

impl Account<'_> {
    pub(super) fn remedy(
        &self,
        holder: &PortHolder,
        kind: Kind,
        held: &Party,
        requester: &Party,
    ) -> Vec<Remedy> {
        let port = self.conflict.endpoints.local.port();
        let other_port = format!("or let {} use another port than {port}", process_of(requester));
        let stop = |what: &str| match held.process.as_ref().and_then(|process| process.pid) {
            Some(pid) => Remedy::command(format!("stop {} {what}", process_of(held)), format!("kill {pid}")),
            None => Remedy::text(format!("stop the process that {what}")),
        };
        let reuseaddr = format!("set SO_REUSEADDR in {} before bind()", process_of(requester));
        match kind {
            Kind::EphemeralGrab => self.reserve(port, held, requester),
            Kind::Listener => own_words::of(held, Need::Release)
                .into_iter()
                .chain([stop("which listens there"), Remedy::text(other_port)])
                .chain(own_words::of(requester, Need::Listen))
                .collect(),
            Kind::TimeWait => {
                let mut remedy = Vec::new();
                if !self.conflict.options.reuseaddr() {
                    remedy.push(Remedy::text(reuseaddr));
                } else {
                    remedy.push(Remedy::text(
                        "the socket that left the TIME_WAIT had no SO_REUSEADDR: set it there as well",
                    ));
                }
                remedy.push(Remedy::text(match holder.time_wait_left_ms {
                    Some(left) => format!("or try again in {} s", left.div_ceil(1000)),
                    None => "or try again: TIME_WAIT ends within 60 s".to_owned(),
                }));
                if holder.how.is_ephemeral() {
                    remedy.extend(self.reserve(port, held, requester));
                }
                remedy
            }
            Kind::BoundSocket if holder.state == SocketState::Bound => {
                vec![stop("which holds the port without using it"), Remedy::text(other_port)]
            }
            Kind::BoundSocket => {
                let mut remedy = Vec::new();
                if !self.conflict.options.reuseaddr() {
                    remedy.push(Remedy::text(format!(
                        "{reuseaddr}; the old connection's socket needs it, too"
                    )));
                }
                remedy.push(stop("which has the connection"));
                remedy
            }
            Kind::InheritedFd => vec![
                stop("which holds the inherited socket"),
                Remedy::text("open sockets with SOCK_CLOEXEC, so that children do not inherit them"),
            ],
            Kind::Wildcard => vec![
                Remedy::text(format!(
                    "set IPV6_V6ONLY on the IPv6 socket ({}), so that each family has the port to itself",
                    if held.address.is_some_and(|address| address.is_ipv6()) {
                        process_of(held)
                    } else {
                        process_of(requester)
                    }
                )),
                stop("which has the wildcard"),
                Remedy::text(other_port),
            ],
            Kind::KernelSocket => vec![
                Remedy::text(
                    "find the kernel service that uses the port (NFS, lockd, a tunnel, a module) and configure its port",
                ),
                Remedy::text(other_port),
            ],
        }
    }

    /// How to keep the kernel from handing the port out again, what is reserved already staying so.
    fn reserve(&self, port: u16, held: &Party, requester: &Party) -> Vec<Remedy> {
        let netns = self.conflict.endpoints.netns;
        let knobs = self.world.namespace(netns).map(|namespace| &namespace.knobs);
        // Of the two the holder is the one that is still there.
        let process =
            held.process.as_ref().filter(|process| process.pid.is_some()).or(requester.process.as_ref());
        let mut remedy = Vec::new();
        match knobs.and_then(|knobs| knobs.reserved_ports.as_ref()) {
            Some(reserved) if reserved.contains(port) => remedy.push(Remedy::text(format!(
                "port {port} is reserved by now: it will not be handed out again once {} gives it back",
                process_of(held)
            ))),
            reserved => {
                // Not knowing what is reserved, the command must not be run as it is: it would undo that.
                let merged =
                    reserved.map_or_else(|| PortRanges::default().with(port), |reserved| reserved.with(port));
                let known = reserved.is_some();
                let text = format!(
                    "reserve the port, so that the kernel does not hand it out{}",
                    if known { "" } else { " (add what is reserved already)" }
                );
                let setting = format!("net.ipv4.ip_local_reserved_ports={merged}");
                remedy.push(Remedy::command(text, sysctl(netns, process, &setting)));
            }
        }
        if let Some(range) = self.range().filter(|range| range.contains(port)) {
            let moved = beyond(range, port);
            let text = format!("or move the ephemeral range ({range}) away from it");
            remedy.push(match moved {
                Some(moved) => Remedy::command(
                    text,
                    sysctl(
                        netns,
                        process,
                        &format!("net.ipv4.ip_local_port_range=\"{} {}\"", moved.first, moved.last),
                    ),
                ),
                None => Remedy::text(text),
            });
        }
        remedy.push(Remedy::text(format!(
            "until then: start again once {} has closed its socket",
            process_of(held)
        )));
        remedy
    }
}

/// The larger part of `range` beside `port`.
fn beyond(range: PortRange, port: u16) -> Option<PortRange> {
    let above = port
        .checked_add(1)
        .filter(|first| *first <= range.last)
        .map(|first| PortRange { first, last: range.last });
    let below = port
        .checked_sub(1)
        .filter(|last| *last >= range.first)
        .map(|last| PortRange { first: range.first, last });
    let len = |range: &PortRange| range.last - range.first;
    [above, below].into_iter().flatten().max_by_key(len)
}
