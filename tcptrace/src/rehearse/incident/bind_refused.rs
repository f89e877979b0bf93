//! `bind-refused`: a server cannot bind, though nobody has its port.

use std::net::SocketAddr;

use serde_json::json;

use super::{Entry, Family, Incident, Options, Variant, facts};
use crate::rehearse::actor::{Actor, Bind, BindAttempt, Order};
use crate::rehearse::counters;
use crate::rehearse::error::{Error, Result};
use crate::rehearse::stage::{Layout, Stage};
use crate::rehearse::truth::{Expectation, GroundTruth, Party};

pub(super) const ENTRY: Entry = Entry {
    name: "bind-refused",
    summary: "a server cannot bind, though nobody has its port",
    variants: &[
        Variant { name: "address-missing", summary: "its address is configured nowhere" },
        Variant { name: "privileged-port", summary: "it is not root, and its port is privileged" },
        Variant { name: "nonlocal", summary: "as address-missing, but ip_nonlocal_bind is on: no trouble" },
    ],
    make: |variant, options| Ok(Box::new(BindRefused::new(variant, &options)?)),
};

/// A user that is not root.
const USER: u32 = 65534;
const TRIES: u32 = 3;

struct BindRefused {
    variant: &'static Variant,
    family: Family,
    server: Option<Actor>,
    stage: Stage,
}

impl BindRefused {
    fn new(variant: &'static Variant, options: &Options) -> Result<Self> {
        let stage = options.stage(Layout::Loopback)?;
        if variant.name == "nonlocal" {
            let ip = if options.family == Family::V4 { "ipv4" } else { "ipv6" };
            stage.set_sysctl(&format!("net.{ip}.ip_nonlocal_bind"), 1)?;
        }
        Ok(Self { variant, family: options.family, server: None, stage })
    }

    fn order(&self) -> Bind {
        let order = match self.variant.name {
            "privileged-port" => Bind { user: Some(USER), ..Bind::to(self.family.any(80)) },
            // For documentation (RFC 5737, RFC 3849): nobody has these.
            _ if self.family == Family::V4 => Bind::to(SocketAddr::from(([192, 0, 2, 7], 8090))),
            _ => Bind::to(SocketAddr::from(([0x2001, 0xdb8, 0, 0, 0, 0, 0, 7], 8090))),
        };
        Bind { reuseaddr: true, backlog: Some(128), attempts: TRIES, gap_ms: 100, ..order }
    }
}

impl Incident for BindRefused {
    fn name(&self) -> &'static str {
        ENTRY.name
    }

    fn variant(&self) -> &'static str {
        self.variant.name
    }

    fn describe(&self) -> String {
        match self.variant.name {
            "privileged-port" => "tt-server wants port 80, and is not root.".to_owned(),
            "nonlocal" => {
                "tt-server binds an address that no device has, as ip_nonlocal_bind allows.".to_owned()
            }
            _ => "tt-server wants an address that no device has.".to_owned(),
        }
    }

    fn stage(&self) -> &Stage {
        &self.stage
    }

    fn play(&mut self) -> Result<GroundTruth> {
        let before = self.stage.counters()?;
        let order = self.order();
        let wanted = order.address;
        let mut server = self.stage.start_server("tt-server")?;
        let attempts: Vec<BindAttempt> = server.ask(&Order::Bind(order))?;
        let (cause, errno) = match self.variant.name {
            "privileged-port" => ("privileged-port", Some(libc::EACCES)),
            "nonlocal" => ("", None),
            _ => ("address-missing", Some(libc::EADDRNOTAVAIL)),
        };
        if attempts.iter().any(|attempt| attempt.errno != errno) {
            return Err(Error::NotStaged(format!("taking {wanted} came out as {attempts:?}")));
        }
        let expected = Expectation {
            requester: Some(Party::of(server.identity(), "process", wanted)),
            ..Expectation::about("bind-refused", cause, Party::port(wanted))
        };
        let identity = server.identity().clone();
        self.server = Some(server);
        Ok(GroundTruth {
            actors: vec![identity],
            expect: errno.map(|_| expected).into_iter().collect(),
            facts: facts(json!({ "attempts": attempts.len(), "errno": errno })),
            counters: counters::growth(&before, &self.stage.settled_counters()?),
            ..GroundTruth::of(ENTRY.name, self.variant.name, self.stage.netns_inode())
        })
    }
}
