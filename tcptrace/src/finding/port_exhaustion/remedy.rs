//! What to do when there is no port left: first what the application can do.

use crate::event::{PortRange, PortSet};
use crate::finding::commands::{reserve, sysctl};
use crate::finding::{Party, Remedy, own_words};
use crate::software::Need;

use super::Account;
use super::cause::{Cause, USUAL};

/// The kernel's own range.
const USUAL_RANGE: PortRange = PortRange { first: 32768, last: 60999 };

impl Account<'_> {
    pub(super) fn remedy(&self, cause: Cause, requester: &Party) -> Vec<Remedy> {
        let dominant = self.dominant().and_then(|(holder, _)| {
            let owner = holder.owner.as_ref()?;
            Some((self.process_name(owner).to_string(), owner.pid, holder))
        });
        let whose = dominant.as_ref().map_or_else(|| "the application".to_owned(), |(name, ..)| name.clone());
        let mut remedy = Vec::new();
        match cause {
            Cause::Leak => {
                let text = match &dominant {
                    Some((name, _, holder)) if holder.close_wait > 0 => {
                        format!("close sockets in {name} when read() says that the peer has closed")
                    }
                    _ => format!("close sockets in {whose} that are no longer needed"),
                };
                remedy.push(Remedy::text(text));
                if let Some((name, pid, holder)) = &dominant {
                    remedy.push(Remedy::command(
                        format!(
                            "until it is mended: restart {name}; that gives back its {} ports, a reboot is not needed",
                            holder.ports
                        ),
                        format!("kill {pid}"),
                    ));
                }
                let range = self.world.namespace(self.netns).and_then(|known| known.knobs.local_port_range);
                remedy.extend(range.map(|range| {
                    Remedy::not(format!(
                        "a wider net.ipv4.ip_local_port_range ({range}) does not help: it takes longer until it is used up"
                    ))
                }));
            }
            Cause::Churn => {
                remedy.extend(own_words::or_general(
                    requester,
                    Need::Reuse,
                    "keep connections open and use them again (keep-alive, a connection pool) instead of one for each request",
                    "",
                ));
                remedy.push(Remedy::text(
                    "or let the other side close first: TIME_WAIT stays with the one that does",
                ));
                remedy.extend(self.reuse_time_wait(requester));
                remedy.push(Remedy::not(
                    "net.ipv4.tcp_fin_timeout does not help: TIME_WAIT lasts for 60 s, whatever it is",
                ));
            }
            Cause::BindBeforeConnect if self.exhaustion.options.late_port() => {
                remedy.push(Remedy::text(format!(
                    "set IP_BIND_ADDRESS_NO_PORT in all sockets of {whose} before bind() to port 0: the one that failed has it, \
                     those that have the ports took them by bind()"
                )));
            }
            Cause::BindBeforeConnect => {
                remedy.push(Remedy::text(format!(
                    "set IP_BIND_ADDRESS_NO_PORT in {whose} before bind() to port 0, or leave bind() out: then connect() \
                     chooses the port, and may choose one that is in use toward another destination"
                )));
            }
            Cause::SmallRange => {
                if let Some(own) = self.exhaustion.own_range.filter(|_| self.is_free_after_all()) {
                    let who = requester.process.as_ref().map_or_else(|| whose.clone(), ToString::to_string);
                    return vec![Remedy::text(format!(
                        "widen the range {own} that {who} gives its sockets by IP_LOCAL_PORT_RANGE; no sysctl adds to it"
                    ))];
                }
            }
            Cause::HotDestination => {
                remedy.extend(own_words::or_general(
                    requester,
                    Need::Reuse,
                    "send more over fewer connections to that destination (a pool, pipelining, HTTP/2)",
                    "",
                ));
                remedy.push(Remedy::text(
                    "or use a second source address, or a second address or port of the destination: each pair has all \
                     ports for itself",
                ));
            }
        }
        if cause != Cause::Leak && cause != Cause::BindBeforeConnect {
            remedy.extend(self.widen(requester));
        }
        remedy
    }

    fn goes_by_loopback(&self) -> bool {
        self.destination.is_some_and(|remote| remote.ip().is_loopback())
    }

    /// `net.ipv4.tcp_tw_reuse`, if by its value connect() may take over a connection in TIME_WAIT.
    fn reuses(&self) -> Option<u32> {
        let value = self.world.namespace(self.netns)?.knobs.tw_reuse?;
        // 2 is for loopback alone.
        (self.destination.is_some() && (value == 1 || (value == 2 && self.goes_by_loopback())))
            .then_some(value)
    }

    /// How long a connection in TIME_WAIT keeps its port, where these failed.
    pub(super) fn time_in_time_wait(&self) -> String {
        let stamps = self.world.namespace(self.netns).and_then(|namespace| namespace.knobs.timestamps);
        match (self.reuses(), stamps) {
            (Some(value), Some(0)) => format!(
                "60 s: net.ipv4.tcp_tw_reuse is {value}, and does nothing without TCP timestamps (net.ipv4.tcp_timestamps is 0)"
            ),
            (Some(value), _) => format!(
                "a second at least, though net.ipv4.tcp_tw_reuse is {value} (60 s, where one side has no TCP timestamps): ports are \
                 used up faster than that"
            ),
            (None, _) => "60 s".to_owned(),
        }
    }

    fn reuse_time_wait(&self, requester: &Party) -> Option<Remedy> {
        let knobs = &self.world.namespace(self.netns)?.knobs;
        if self.reuses().is_some() {
            return (knobs.timestamps == Some(0)).then(|| {
                Remedy::command(
                    "or switch TCP timestamps on, on both sides: connect() may then take over a connection that has been in TIME_WAIT \
                     for a second",
                    sysctl(self.netns, requester.process.as_ref(), "net.ipv4.tcp_timestamps=1"),
                )
            });
        }
        let value = knobs.tw_reuse?;
        let loopback = self.goes_by_loopback();
        let wanted = if loopback { 2 } else { 1 };
        Some(Remedy::command(
            format!(
                "or let connect() take over a connection that has been in TIME_WAIT for a second (net.ipv4.tcp_tw_reuse \
                 is {value}; both sides need TCP timestamps, which is the default)"
            ),
            sysctl(self.netns, requester.process.as_ref(), &format!("net.ipv4.tcp_tw_reuse={wanted}")),
        ))
    }

    /// A wider range, if this one is smaller than usual; what listens in it is reserved, beside what is reserved already.
    fn widen(&self, requester: &Party) -> Option<Remedy> {
        let knobs = &self.world.namespace(self.netns)?.knobs;
        let range = knobs.local_port_range?;
        if u64::from(range.len()) >= USUAL {
            return None;
        }
        let wide =
            PortRange { first: range.first.min(USUAL_RANGE.first), last: range.last.max(USUAL_RANGE.last) };
        let reserved = knobs.reserved_ports.as_ref()?;
        let servers = self
            .world
            .listeners()
            .iter()
            .filter(|listener| listener.endpoints.netns == self.netns && listener.closed.is_none())
            .map(|listener| listener.endpoints.local.port())
            .filter(|port| wide.contains(*port) && !reserved.contains(*port));
        let kept: PortSet = servers.map(|port| port..=port).collect();
        let process = requester.process.as_ref();
        let wider = format!("net.ipv4.ip_local_port_range=\"{} {}\"", wide.first, wide.last);
        Some(Remedy::command(
            format!("widen the range ({range}); ports of servers in it stay theirs"),
            if kept.is_empty() {
                sysctl(self.netns, process, &wider)
            } else {
                // Reserved first: in between, nobody must be given them.
                reserve(self.netns, process, &kept, Some(&wider))
            },
        ))
    }
}
