//! What to do about a conflict.

use crate::correlate::PortHolder;
use crate::event::{PortRange, PortSet, SocketState};
use crate::finding::commands::{self, inside, sysctl};
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
            None => Remedy::text(format!("stop the process {what}")),
        };
        let reuseaddr = format!("set SO_REUSEADDR in {} before bind()", process_of(requester));
        match kind {
            Kind::EphemeralGrab => self.reserve(port, held, requester),
            Kind::Listener => own_words::of(held, Need::Release)
                .into_iter()
                .chain([stop("which listens there")])
                .chain(self.one_address(holder, requester))
                .chain(self.one_device(holder, held))
                .chain([Remedy::text(other_port)])
                .chain(own_words::of(requester, Need::Listen))
                .collect(),
            Kind::FinWait | Kind::LastAck => self.outlive(holder, requester),
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

    /// If only the requester's wildcard meets the holder: a bind to one address does not.
    fn one_address(&self, holder: &PortHolder, requester: &Party) -> Option<Remedy> {
        let wanted = self.conflict.endpoints.local;
        let meets = wanted.ip().is_unspecified() && !holder.endpoints.local.ip().is_unspecified();
        meets.then(|| {
            Remedy::text(format!(
                "or let {} bind one address instead of {wanted}: the one that its clients call, which is not {}",
                process_of(requester),
                holder.endpoints.local.ip()
            ))
        })
    }

    /// If the holder covers every device, and the requester wants one.
    fn one_device(&self, holder: &PortHolder, held: &Party) -> Option<Remedy> {
        let wanted = self.conflict.endpoints;
        let device = self.world.device_name(wanted.netns, wanted.device)?;
        (holder.endpoints.device == 0).then(|| {
            Remedy::text(format!(
                "or bind {} to a device of its own (SO_BINDTODEVICE), other than {device}, or to one address",
                process_of(held)
            ))
        })
    }

    /// What to do about a connection that this side has closed, and that no process has any more.
    fn outlive(&self, holder: &PortHolder, requester: &Party) -> Vec<Remedy> {
        let netns = self.conflict.endpoints.netns;
        let process = requester.process.as_ref();
        let knobs = self.world.namespace(netns).map(|namespace| &namespace.knobs);
        let mut remedy = vec![Remedy::text(if self.conflict.options.reuseaddr() {
            "the socket that left the connection had no SO_REUSEADDR: set it there as well".to_owned()
        } else {
            format!(
                "set SO_REUSEADDR in {} before bind(), as servers do: then it may start while old connections are still being \
                 closed (theirs must have had it, too)",
                process_of(requester)
            )
        })];
        if holder.state == SocketState::FinWait2 {
            let value = knobs.and_then(|knobs| knobs.fin_timeout);
            let value = value.map_or_else(String::new, |value| format!(" (it is {value} s)"));
            remedy.push(Remedy::command(
                format!(
                    "shorten the time that the kernel waits for the peer's end{value}, for connections that are closed from \
                     then on"
                ),
                sysctl(netns, process, "net.ipv4.tcp_fin_timeout=10"),
            ));
        } else {
            let retries = knobs.and_then(|knobs| knobs.orphan_retries);
            let retries = match retries {
                Some(0) => " (it is 0, which stands for 8)".to_owned(),
                Some(retries) => format!(" (it is {retries})"),
                None => String::new(),
            };
            remedy.push(Remedy::command(
                format!("let the kernel give up sooner what the peer does not acknowledge{retries}"),
                sysctl(netns, process, "net.ipv4.tcp_orphan_retries=2"),
            ));
        }
        remedy.push(Remedy::command(
            "or end what is left now; its peer gets an RST (kernels with CONFIG_INET_DIAG_DESTROY)",
            inside(
                netns,
                process,
                &format!("ss -K state {} 'sport = :{}'", holder.state, self.conflict.endpoints.local.port()),
            ),
        ));
        if let Some(left) = holder.time_wait_left_ms {
            remedy.push(Remedy::text(format!(
                "or try again in {} s; if the peer closes before that, TIME_WAIT follows for 60 s more",
                left.div_ceil(1000)
            )));
        }
        remedy
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
            _ => remedy.push(Remedy::command(
                "reserve the port, so that the kernel does not hand it out; what is reserved already stays so",
                commands::reserve(netns, process, &PortSet::default().with(port), None),
            )),
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
