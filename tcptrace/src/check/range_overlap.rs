//! A server's port lies in the ephemeral range, and is not reserved: the next start may find it taken by a client.

use super::{Plan, Risk, Rule, names, parties};
use crate::event::PortSet;
use crate::finding::{Evidence, Remedy, Severity};
use crate::stock::Namespace;

/// The rule.
pub(super) struct RangeOverlap;

impl Rule for RangeOverlap {
    fn code(&self) -> &'static str {
        "port-grab-risk"
    }

    fn judge(&self, namespace: &Namespace, plan: &Plan) -> Option<Risk> {
        let range = namespace.knobs.ip_local_port_range?;
        let exposed = |port: u16| namespace.knobs.is_ephemeral(port) == Some(true);
        let listeners =
            parties(namespace.id, namespace.listeners().filter(|socket| exposed(socket.diag.local.port())));
        let planned = plan.servers.ranges().flatten().filter(|port| exposed(*port));
        let ports: PortSet = listeners
            .iter()
            .filter_map(|listener| listener.address)
            .map(|address| address.port())
            .chain(planned)
            .collect();
        if ports.is_empty() {
            return None;
        }
        let reserved = namespace.reserved_and(ports.ranges().flatten());
        let who = if listeners.is_empty() { "servers to be started".to_owned() } else { names(&listeners) };
        Some(Risk {
            code: self.code(),
            severity: Severity::Warning,
            title: format!(
                "{} of servers in the ephemeral range {}-{} {} not reserved: {ports} ({who})",
                if ports.len() == 1 { "a port" } else { "ports" },
                range.first,
                range.last,
                if ports.len() == 1 { "is" } else { "are" },
            ),
            why: "whenever such a server is down, for a restart too, the kernel may give its port to any connect() \
                  or bind(…, 0), and then its bind() fails with EADDRINUSE. A listener that let the kernel choose its \
                  port looks the same from outside, and needs nothing"
                .to_owned(),
            evidence: Evidence::new()
                .with("ports_at_risk", &ports)
                .with("range", range)
                .with("reserved", namespace.knobs.ip_local_reserved_ports.as_ref()),
            remedy: vec![
                Remedy::command(
                    "reserve them; what is reserved already stays so",
                    namespace.sysctl(&[format!("net.ipv4.ip_local_reserved_ports={reserved}")]),
                ),
                Remedy::text("or configure the servers to ports outside of the range"),
            ],
            listeners,
        })
    }
}
