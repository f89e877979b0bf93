//! Few ephemeral ports: a moderate rate of short connections, or a small leak, uses them up.

use super::{Plan, Risk, Rule};
use crate::event::{PortRange, PortSet};
use crate::finding::{Evidence, Key, Remedy, Severity, keys};
use crate::stock::Namespace;

/// Fewer than this are few: TIME_WAIT keeps a port for 60 s, so that 8192 last for 136 connections a second to one
/// destination.
const FEW: u32 = 8192;

/// Seconds in TIME_WAIT (`TCP_TIMEWAIT_LEN`, fixed in all versions).
const TIME_WAIT: u32 = 60;

/// The kernel's own default.
const USUAL: PortRange = PortRange { first: 32768, last: 60999 };

/// The rule.
pub(super) struct SmallRange;

impl Rule for SmallRange {
    fn code(&self) -> &'static str {
        "small-range"
    }

    fn evidence(&self) -> &'static [Key] {
        const {
            &[
                keys::number("ephemeral_ports", "ports that the kernel may choose"),
                keys::RANGE,
                keys::number("reserved_in_range", "reserved ports in the ephemeral range"),
                keys::number("tcp_tw_reuse", "`net.ipv4.tcp_tw_reuse`"),
            ]
        }
    }

    fn judge(&self, namespace: &Namespace, plan: &Plan) -> Option<Risk> {
        let range = namespace.knobs.ip_local_port_range?;
        let capacity = namespace.knobs.ephemeral_ports()?;
        if capacity >= FEW {
            return None;
        }
        let reserved = namespace.knobs.ip_local_reserved_ports.clone().unwrap_or_default();
        let in_range = reserved.len_within(range);
        Some(Risk {
            code: self.code(),
            severity: Severity::Warning,
            title: format!(
                "only {capacity} ephemeral ports: the range {}-{} less {in_range} reserved",
                range.first, range.last
            ),
            why: format!(
                "a connection that this host closes keeps its port for {TIME_WAIT} s in TIME_WAIT: to one destination \
                 {} new connections a second can go on, no more; then connect() fails with EADDRNOTAVAIL{}",
                capacity / TIME_WAIT,
                match namespace.knobs.tcp_tw_reuse {
                    Some(1) => format!(
                        ". With net.ipv4.tcp_tw_reuse=1, as it is, a port is used again after a second where both ends use TCP \
                         timestamps: about {capacity} a second there"
                    ),
                    Some(2) => format!(
                        ". With net.ipv4.tcp_tw_reuse=2, as it is, destinations on this host are better off: there a port is used \
                         again after a second, about {capacity} a second"
                    ),
                    _ => String::new(),
                }
            ),
            listeners: Vec::new(),
            evidence: Evidence::new()
                .with("ephemeral_ports", capacity)
                .with("range", range)
                .with("reserved_in_range", in_range)
                .with_some("tcp_tw_reuse", namespace.knobs.tcp_tw_reuse),
            remedy: vec![widen(namespace, plan, range, &reserved)],
        })
    }
}

/// A wider range, the servers inside of it reserved.
fn widen(namespace: &Namespace, plan: &Plan, range: PortRange, reserved: &PortSet) -> Remedy {
    let wide = PortRange { first: range.first.min(USUAL.first), last: range.last.max(USUAL.last) };
    let inside = namespace
        .listeners()
        .map(|socket| socket.diag.local.port())
        .chain(plan.servers.ranges().flatten())
        .filter(|port| wide.contains(*port));
    let keep = namespace.reserved_and(inside);
    if namespace.capacity(wide, &keep) < FEW {
        return Remedy::text(format!(
            "reserve fewer ports: net.ipv4.ip_local_reserved_ports keeps {} of {} from being used",
            reserved.len_within(wide),
            wide.len()
        ));
    }
    let mut settings = Vec::new();
    // Reserved first: in between, nobody must be given them.
    if keep != *reserved {
        settings.push(format!("net.ipv4.ip_local_reserved_ports={keep}"));
    }
    settings.push(format!("net.ipv4.ip_local_port_range=\"{} {}\"", wide.first, wide.last));
    let text = if settings.len() > 1 {
        "widen the range, and reserve the ports of servers in it"
    } else {
        "widen the range"
    };
    Remedy::command(text, namespace.sysctl(&settings))
}
