//! What a bind() to a port would meet: the kernel's rule, asked about every holder.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::correlate::{Side, Verdict, verdict};
use crate::event::{Family, SocketOptions, SocketState};

use super::{Holder, Place};

/// How bind() and listen() might be called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Way {
    /// Family of the socket. An IPv6 one takes IPv4 too, as is the default.
    pub family: Family,
    /// With SO_REUSEADDR set.
    pub reuseaddr: bool,
}

impl Way {
    /// All that are asked about: either wildcard, without and with SO_REUSEADDR.
    pub const ALL: [Self; 4] = [
        Self { family: Family::V4, reuseaddr: false },
        Self { family: Family::V4, reuseaddr: true },
        Self { family: Family::V6, reuseaddr: false },
        Self { family: Family::V6, reuseaddr: true },
    ];

    /// The address that is bound.
    pub fn address(self, port: u16) -> SocketAddr {
        let wildcard: IpAddr = match self.family {
            Family::V4 => Ipv4Addr::UNSPECIFIED.into(),
            Family::V6 => Ipv6Addr::UNSPECIFIED.into(),
        };
        SocketAddr::new(wildcard, port)
    }
}

/// What would come of it.
#[derive(Debug, Clone)]
pub enum Outlook<'a> {
    /// Nobody is in the way.
    Succeeds,
    /// EADDRINUSE, because of this holder.
    Fails(&'a Holder),
    /// That depends on whether this holder has SO_REUSEADDR, which cannot be read.
    Depends(&'a Holder),
}

impl<'a> Outlook<'a> {
    /// What a bind() of `port` in `place` would meet now, by a process that may bind it.
    pub fn of(way: Way, port: u16, place: &'a Place) -> Self {
        let bits = if way.reuseaddr { tcptrace_common::port::OPT_REUSEADDR } else { 0 };
        let requester = Side {
            local: way.address(port),
            family: way.family,
            device: 0,
            state: SocketState::Bound,
            options: Some(SocketOptions::from_bits(bits)),
            v6only: false,
            uid: None,
        };
        let mut depends = None;
        for holder in place.holders.iter().filter(|holder| holder.local.port() == port) {
            // A half-open request is no socket yet: it is not in the table that bind() looks into.
            if holder.state == SocketState::SynRecv && holder.inode == 0 {
                continue;
            }
            match verdict(&requester, &side(holder)) {
                Verdict::Conflict(_) => return Self::Fails(holder),
                // Without any option there is nothing that the other side's could help.
                Verdict::Unreadable if !way.reuseaddr => return Self::Fails(holder),
                Verdict::Unreadable => depends = depends.or(Some(holder)),
                Verdict::Compatible => {}
            }
        }
        depends.map_or(Self::Succeeds, Self::Depends)
    }

    /// Who is in the way.
    pub fn holder(&self) -> Option<&'a Holder> {
        match self {
            Self::Succeeds => None,
            Self::Fails(holder) | Self::Depends(holder) => Some(holder),
        }
    }

    /// Name in output.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Succeeds => "succeeds",
            Self::Fails(_) => "fails",
            Self::Depends(_) => "depends",
        }
    }
}

fn side(holder: &Holder) -> Side {
    Side {
        local: holder.local,
        family: holder.family,
        device: holder.device,
        state: holder.state,
        // Children of a listener have its options, but only those of sockets with a file can be read.
        options: holder.options.or_else(|| {
            // SO_REUSEADDR does not help against a listener, so whether it has it does not matter.
            (holder.state == SocketState::Listen).then_some(SocketOptions::NONE)
        }),
        v6only: holder.v6only,
        uid: holder.uid,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::who::Belonging;

    fn holder(local: &str, state: SocketState, options: Option<u8>) -> Holder {
        let local: SocketAddr = local.parse().unwrap();
        Holder {
            netns: 1,
            family: if local.is_ipv6() { Family::V6 } else { Family::V4 },
            local,
            remote: None,
            state,
            belongs: Belonging::Processes,
            taken: None,
            processes: Vec::new(),
            uid: Some(0),
            inode: 7,
            device: 0,
            options: options.map(SocketOptions::from_bits),
            v6only: false,
            queue: None,
            time_wait_left: None,
            mptcp: false,
        }
    }

    fn outlooks(holders: Vec<Holder>) -> [&'static str; 4] {
        let place = Place { holders, ..Place::default() };
        Way::ALL.map(|way| Outlook::of(way, 80, &place).name())
    }

    #[test]
    fn listeners_and_wildcards() {
        assert_eq!(outlooks(Vec::new()), ["succeeds"; 4]);
        assert_eq!(outlooks(vec![holder("0.0.0.0:81", SocketState::Listen, None)]), ["succeeds"; 4]);
        assert_eq!(outlooks(vec![holder("0.0.0.0:80", SocketState::Listen, None)]), ["fails"; 4]);
        let v6only = Holder { v6only: true, ..holder("[::]:80", SocketState::Listen, Some(0)) };
        assert_eq!(outlooks(vec![v6only]), ["succeeds", "succeeds", "fails", "fails"]);
    }

    #[test]
    fn time_wait_and_clients() {
        let remains = holder("10.0.0.1:80", SocketState::TimeWait, None);
        assert_eq!(outlooks(vec![remains]), ["fails", "depends", "fails", "depends"]);
        let client = holder("10.0.0.1:80", SocketState::Established, Some(0));
        assert_eq!(outlooks(vec![client]), ["fails"; 4]);
        let reusing = holder("10.0.0.1:80", SocketState::Established, Some(1));
        assert_eq!(outlooks(vec![reusing]), ["fails", "succeeds", "fails", "succeeds"]);
    }

    #[test]
    fn a_half_open_request_is_in_nobody_s_way() {
        let request = Holder { inode: 0, ..holder("10.0.0.1:80", SocketState::SynRecv, None) };
        assert_eq!(outlooks(vec![request]), ["succeeds"; 4]);
    }
}
