//! Matches and targets of xtables: the same bytes in legacy iptables' tables and in nf_tables' compatible expressions.

use std::net::IpAddr;

use super::address;
use super::ruleset::{Action, Condition, How};
use super::wire::{array, u16_at, u32_at};

/// `NF_NAT_RANGE_MAP_IPS` and `NF_NAT_RANGE_PROTO_SPECIFIED`.
const MAP_IPS: u32 = 1;
const PORT_GIVEN: u32 = 2;

/// What a match asks for.
pub(super) fn matches(name: &str, revision: u32, info: &[u8]) -> Vec<Condition> {
    let known = match (name, revision) {
        ("comment", _) => return Vec::new(),
        ("tcp", 0) => tcp(info),
        ("addrtype", 1) => address_type(info),
        ("multiport", 1) => multiport(info),
        _ => None,
    };
    known.unwrap_or_else(|| vec![Condition::Other])
}

/// `struct xt_tcp`: source ports, destination ports, option, flags, inversions.
fn tcp(info: &[u8]) -> Option<Vec<Condition>> {
    const ANY_PORT: (u16, u16) = (0, u16::MAX);
    const INVERTED_DESTINATION: u8 = 0x02;
    let (source, destination) = ((u16_at(info, 0)?, u16_at(info, 2)?), (u16_at(info, 4)?, u16_at(info, 6)?));
    let [option, flag_mask, _, inverted] = array(info, 8)?;
    let mut conditions = vec![Condition::Protocol(6)];
    let negated = inverted & INVERTED_DESTINATION != 0;
    if destination != ANY_PORT || negated {
        conditions.push(Condition::Port { first: destination.0, last: destination.1, negated });
    }
    if source != ANY_PORT || option != 0 || flag_mask != 0 || inverted & !INVERTED_DESTINATION != 0 {
        conditions.push(Condition::Other);
    }
    Some(conditions)
}

/// `struct xt_addrtype_info_v1`: masks of types, and flags.
fn address_type(info: &[u8]) -> Option<Vec<Condition>> {
    const LOCAL: u16 = 1 << 2;
    const INVERTED_DESTINATION: u32 = 2;
    let (source, destination, flags) = (u16_at(info, 0)?, u16_at(info, 2)?, u32_at(info, 4)?);
    let negated = flags & INVERTED_DESTINATION != 0;
    let plain = source == 0 && destination == LOCAL && flags & !INVERTED_DESTINATION == 0;
    Some(vec![if plain { Condition::ToLocal { negated } } else { Condition::Other }])
}

/// `struct xt_multiport_v1`: which ports, how many, fifteen numbers, for each whether a range begins, inversion.
fn multiport(info: &[u8]) -> Option<Vec<Condition>> {
    const DESTINATION: u8 = 1;
    let [which, count] = array(info, 0)?;
    let inverted = *info.get(2 + 30 + 15)?;
    // One number or one range; several are alternatives, which these conditions cannot say.
    let single = match (count, *info.get(2 + 30)?) {
        (1, _) => (u16_at(info, 2)?, u16_at(info, 2)?),
        (2, 1) => (u16_at(info, 2)?, u16_at(info, 4)?),
        _ => return None,
    };
    (which == DESTINATION)
        .then(|| vec![Condition::Port { first: single.0, last: single.1, negated: inverted != 0 }])
}

/// What a target does, if it steers.
pub(super) fn target(name: &str, revision: u32, info: &[u8]) -> Option<Action> {
    let (how, range) = match (name, revision) {
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
    Some(Action::Steer { how, to, port })
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
        let port = |negated| Condition::Port { first: 8080, last: 8081, negated };
        assert_eq!(matches("tcp", 0, &info(0)), [Condition::Protocol(6), port(false)]);
        assert_eq!(matches("tcp", 0, &info(2)), [Condition::Protocol(6), port(true)]);
        assert!(matches("tcp", 0, &info(4)).contains(&Condition::Other));
        assert_eq!(matches("tcp", 0, &[1, 2]), [Condition::Other]);
        assert_eq!(matches("owner", 1, &[]), [Condition::Other]);
        assert!(matches("comment", 0, b"x").is_empty());
    }

    #[test]
    fn targets_that_translate() {
        let mut new = (MAP_IPS | PORT_GIVEN).to_ne_bytes().to_vec();
        new.extend([10, 0, 0, 2]);
        new.resize(4 + 32, 0);
        new.extend(80_u16.to_be_bytes());
        new.extend([0; 4]);
        let dnat = Action::Steer { how: How::Dnat, to: Some("10.0.0.2".parse().unwrap()), port: Some(80) };
        assert_eq!(target("DNAT", 2, &new), Some(dnat.clone()));
        let mut old = 1_u32.to_ne_bytes().to_vec();
        old.extend((MAP_IPS | PORT_GIVEN).to_ne_bytes());
        old.extend([10, 0, 0, 2, 10, 0, 0, 2]);
        old.extend(80_u16.to_be_bytes());
        old.extend(80_u16.to_be_bytes());
        assert_eq!(target("DNAT", 0, &old), Some(dnat));
        let redirect =
            Action::Steer { how: How::Redirect, to: Some("10.0.0.2".parse().unwrap()), port: Some(80) };
        assert_eq!(target("REDIRECT", 0, &old), Some(redirect));
        assert_eq!(target("MASQUERADE", 0, &old), None);
    }

    proptest! {
        #[test]
        fn any_bytes(info in proptest::collection::vec(any::<u8>(), 0..80), revision in 0_u32..4) {
            for name in ["tcp", "addrtype", "multiport", "DNAT", "REDIRECT", "TPROXY"] {
                let _ = (matches(name, revision, &info), target(name, revision, &info));
            }
        }
    }
}
