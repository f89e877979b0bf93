//! Matches and targets of xtables: the same bytes in legacy iptables' tables and in nf_tables' compatible expressions.

use std::net::IpAddr;

use super::address;
use super::expression::{Decision, Expression};
use super::ruleset::How;
use super::wire::{array, u16_at, u32_at};
use crate::event::RuleDeed;

/// `NF_NAT_RANGE_MAP_IPS` and `NF_NAT_RANGE_PROTO_SPECIFIED`.
const MAP_IPS: u32 = 1;
const PORT_GIVEN: u32 = 2;

/// What a match asks for, if that is known.
pub(super) fn matches(name: &str, revision: u32, info: &[u8]) -> Option<Expression> {
    match (name, revision) {
        ("comment", _) => Some(Expression::Nothing),
        ("tcp", 0) => tcp(info),
        ("addrtype", 1) => address_type(info),
        ("multiport", 1) => multiport(info),
        _ => None,
    }
}

/// `struct xt_tcp`: source ports, destination ports, option, flags, inversions.
fn tcp(info: &[u8]) -> Option<Expression> {
    let port = |at: usize| u16_at(info, at);
    let [option, mask, flags, inverted] = array(info, 8)?;
    // What options a packet has is not known.
    (option == 0).then_some(Expression::Tcp {
        source: [port(0)?, port(2)?],
        destination: [port(4)?, port(6)?],
        mask,
        flags,
        inverted,
    })
}

/// `struct xt_addrtype_info_v1`: masks of types, and flags.
fn address_type(info: &[u8]) -> Option<Expression> {
    const LOCAL: u16 = 1 << 2;
    const INVERTED_DESTINATION: u32 = 2;
    let (source, destination, flags) = (u16_at(info, 0)?, u16_at(info, 2)?, u32_at(info, 4)?);
    let plain = source == 0 && destination == LOCAL && flags & !INVERTED_DESTINATION == 0;
    plain.then_some(Expression::ToLocal { inverted: flags & INVERTED_DESTINATION != 0 })
}

/// `struct xt_multiport_v1`: which ports, how many, fifteen numbers, for each whether a range begins, inversion.
fn multiport(info: &[u8]) -> Option<Expression> {
    const SOURCE: u8 = 0;
    const DESTINATION: u8 = 1;
    let [which, count] = array(info, 0)?;
    let inverted = *info.get(2 + 30 + 15)? != 0;
    let mut ranges = Vec::new();
    let mut at = 0;
    while at < usize::from(count) {
        let port = |at: usize| u16_at(info, 2 + 2 * at);
        let is_range = *info.get(2 + 30 + at)? != 0;
        let last = if is_range { at + 1 } else { at };
        ranges.push([port(at)?, port(last)?]);
        at = last + 1;
    }
    Some(Expression::Ports {
        of_source: which != DESTINATION,
        of_destination: which != SOURCE,
        ranges,
        inverted,
    })
}

/// What a target does, if that is known.
pub(super) fn target(name: &str, revision: u32, info: &[u8]) -> Option<Expression> {
    let ends = |deed, queue| Some(Expression::Decide(Decision::Ends(deed, queue)));
    let (how, range) = match (name, revision) {
        ("REJECT", _) => return ends(RuleDeed::Reject, None),
        ("DROP", _) => return ends(RuleDeed::Drop, None),
        ("SYNPROXY", _) => return ends(RuleDeed::Synproxy, None),
        ("NFQUEUE", _) => return ends(RuleDeed::Queue, u16_at(info, 0)),
        ("SNAT" | "MASQUERADE", _) => return Some(Expression::Decide(Decision::Accept)),
        (
            "LOG" | "NFLOG" | "MARK" | "CONNMARK" | "TRACE" | "CT" | "NOTRACK" | "TCPMSS" | "TCPOPTSTRIP"
            | "CHECKSUM" | "CLASSIFY" | "DSCP" | "TOS" | "TTL" | "HL" | "AUDIT" | "SET" | "TEE"
            | "CONNSECMARK" | "SECMARK" | "ECN" | "IDLETIMER" | "RATEEST" | "LED",
            _,
        ) => return Some(Expression::Nothing),
        // A range of addresses for one of others: where to is not followed.
        ("NETMAP", _) => (How::Dnat, None),
        ("DNAT", 0) => (How::Dnat, old_range(info)),
        ("DNAT", _) => (How::Dnat, range(info)),
        // For IPv4 the old form, for IPv6 the new one, both revision 0: they differ in length.
        ("REDIRECT", _) if info.len() >= 36 => (How::Redirect, range(info)),
        ("REDIRECT", _) => (How::Redirect, old_range(info)),
        // `struct xt_tproxy_target_info` and its successor: marks, address, port.
        ("TPROXY", 0) => (How::Tproxy, tproxy(info, 4)),
        ("TPROXY", _) => (How::Tproxy, tproxy(info, 16)),
        _ => return None,
    };
    let (to, port) = range.unwrap_or((None, None));
    Some(Expression::Decide(Decision::Steer { how, to, port }))
}

type Place = (Option<IpAddr>, Option<u16>);

/// `struct nf_nat_ipv4_multi_range_compat` of one range: number, flags, addresses, ports.
fn old_range(info: &[u8]) -> Option<Place> {
    let flags = u32_at(info, 4)?;
    Some(place(flags, info.get(8..12)?, u16::from_be_bytes(array(info, 16)?)))
}

/// `struct nf_nat_range` and `nf_nat_range2`: flags, addresses of 16 bytes, ports.
fn range(info: &[u8]) -> Option<Place> {
    let flags = u32_at(info, 0)?;
    let ip = info.get(4..20)?;
    // Which family it is for is not in there: an IPv4 address leaves twelve bytes zero, which no IPv6 address to translate to does.
    let is_v4 = ip.get(4..)?.iter().all(|byte| *byte == 0);
    let ip = if is_v4 { ip.get(..4)? } else { ip };
    Some(place(flags, ip, u16::from_be_bytes(array(info, 36)?)))
}

fn place(flags: u32, ip: &[u8], port: u16) -> Place {
    ((flags & MAP_IPS != 0).then(|| address(ip)).flatten(), (flags & PORT_GIVEN != 0).then_some(port))
}

fn tproxy(info: &[u8], address_len: usize) -> Option<Place> {
    let ip = info.get(8..8 + address_len)?;
    let given = ip.iter().any(|byte| *byte != 0);
    let is_v4 = ip.get(4..)?.iter().all(|byte| *byte == 0);
    let ip = if is_v4 { ip.get(..4)? } else { ip };
    let port = u16::from_be_bytes(array(info, 8 + address_len)?);
    Some((given.then(|| address(ip)).flatten(), (port != 0).then_some(port)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_port_of_the_tcp_match() {
        let info = |inverted: u8| {
            let mut info: Vec<u8> =
                [0_u16, u16::MAX, 8080, 8081].iter().flat_map(|port| port.to_ne_bytes()).collect();
            info.extend([0, 0, 0, inverted]);
            info
        };
        let match_of = |inverted| Expression::Tcp {
            source: [0, u16::MAX],
            destination: [8080, 8081],
            mask: 0,
            flags: 0,
            inverted,
        };
        assert_eq!(matches("tcp", 0, &info(0)), Some(match_of(0)));
        assert_eq!(matches("tcp", 0, &info(2)), Some(match_of(2)));
        assert_eq!(matches("tcp", 0, &[1, 2]), None);
        assert_eq!(matches("owner", 1, &[]), None);
        assert_eq!(matches("comment", 0, b"x"), Some(Expression::Nothing));
    }

    #[test]
    fn several_ports_and_ranges() {
        let mut info = vec![1, 3];
        for port in [80_u16, 8000, 8080] {
            info.extend(port.to_ne_bytes());
        }
        info.resize(2 + 30, 0);
        info.extend([0, 1, 0]);
        info.resize(2 + 30 + 16, 0);
        let ranges = vec![[80, 80], [8000, 8080]];
        let of_destination = true;
        let wanted = Expression::Ports { of_source: false, of_destination, ranges, inverted: false };
        assert_eq!(matches("multiport", 1, &info), Some(wanted));
    }

    #[test]
    fn targets_that_translate() {
        let mut new = (MAP_IPS | PORT_GIVEN).to_ne_bytes().to_vec();
        new.extend([10, 0, 0, 2]);
        new.resize(4 + 32, 0);
        new.extend(80_u16.to_be_bytes());
        new.extend([0; 4]);
        let steer = |how| {
            let to = Some("10.0.0.2".parse().unwrap());
            Some(Expression::Decide(Decision::Steer { how, to, port: Some(80) }))
        };
        assert_eq!(target("DNAT", 2, &new), steer(How::Dnat));
        let mut old = 1_u32.to_ne_bytes().to_vec();
        old.extend((MAP_IPS | PORT_GIVEN).to_ne_bytes());
        old.extend([10, 0, 0, 2, 10, 0, 0, 2]);
        old.extend(80_u16.to_be_bytes());
        old.extend(80_u16.to_be_bytes());
        assert_eq!(target("DNAT", 0, &old), steer(How::Dnat));
        assert_eq!(target("REDIRECT", 0, &old), steer(How::Redirect));
        assert_eq!(target("MASQUERADE", 0, &old), Some(Expression::Decide(Decision::Accept)));
        assert_eq!(target("TARPIT", 0, &old), None);
    }

    proptest! {
        #[test]
        fn any_bytes(info in proptest::collection::vec(any::<u8>(), 0..80), revision in 0_u32..4) {
            for name in ["tcp", "addrtype", "multiport", "DNAT", "REDIRECT", "TPROXY", "NFQUEUE"] {
                let _ = (matches(name, revision, &info), target(name, revision, &info));
            }
        }
    }
}
