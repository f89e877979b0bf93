//! Prepared facts.

use super::facts::{LeftOver, Waiting};
use super::steered::Steered;
use super::{AddressFacts, Facts, Pending, Place};
use crate::event::PortRange;
use crate::host::knobs::Knobs;
use crate::host::route::Route;
use crate::stock::{self, Listener};

pub(super) use crate::stock::testing::{blocked_in, owner, thread};

/// Where everything is.
pub(super) const HERE: u32 = 4_026_531_840;

/// An idle listener.
pub(super) fn listener(at: &str) -> Listener {
    stock::testing::listener(at)
}

/// One of this host's own addresses, in the client's own namespace.
pub(super) fn address(to: &str) -> AddressFacts {
    AddressFacts {
        to: to.parse().unwrap(),
        arrival: None,
        vrf: None,
        way_back: None,
        route: Ok(Route::Local),
        server: Some(here()),
        server_doubt: None,
        knobs: Knobs {
            ip_local_port_range: Some(PortRange { first: 32768, last: 60999 }),
            ..Knobs::default()
        },
        left_over: LeftOver::default(),
        pending: Pending::default(),
        steered: Steered::default(),
        waiting: Waiting::default(),
        holding: Vec::new(),
        ruled: None,
        probe: None,
    }
}

/// An address of another host.
pub(super) fn remote(to: &str) -> AddressFacts {
    AddressFacts {
        route: Ok(Route::Unicast { gateway: Some("10.0.0.254".parse().unwrap()), device: 2, source: None }),
        server: None,
        ..address(to)
    }
}

fn here() -> Place {
    Place { netns: HERE, name: None, own: true }
}

/// What is known of a target with these addresses and listeners.
pub(super) fn facts(addresses: Vec<AddressFacts>, listeners: Vec<Listener>) -> Facts {
    Facts {
        target: "server.example:80".parse().unwrap(),
        client: here(),
        addresses: Ok(addresses),
        listeners,
        devices: Vec::new(),
        gaps: Vec::new(),
        seen: None,
    }
}
