//! `port-grab`: a server cannot bind its port, because somebody has it: by default a client, whose connect() was given it.
//!
//! The kernel itself chooses the client's port, as in the real incident: for the moment of that connect() the ephemeral
//! range is one port wide. The range is the usual one again before the server tries.

mod kind;
mod scene;

use serde_json::json;

use super::{Entry, Incident, Options, Variant};
use crate::rehearse::actor::{Actor, raise_fd_limit};
use crate::rehearse::counters;
use crate::rehearse::error::{Error, Result};
use crate::rehearse::stage::{Layout, Stage, has_ipv6};
use crate::rehearse::truth::{Allowed, GroundTruth};
use kind::{Kind, TOGETHER};
use scene::{Scene, surroundings};

pub(super) const ENTRY: Entry = Entry {
    name: "bind-conflict",
    aliases: &["port-grab"],
    summary: "a server cannot bind its port: a client's connect() was given it",
    variants: &[
        Variant {
            name: "basic",
            summary: "a client's long connection has the port; the server tries three times",
        },
        Variant { name: "listener", summary: "another server listens on the port" },
        Variant {
            name: "bound-socket",
            summary: "another process has bound the port and does nothing with it",
        },
        Variant {
            name: "time-wait",
            summary: "the client has closed its connection: TIME_WAIT has the port",
        },
        Variant { name: "time-wait-restart", summary: "the server's own old connections are in TIME_WAIT" },
        Variant {
            name: "inherited-fd",
            summary: "a child inherited the listening socket of a server that is gone",
        },
        Variant {
            name: "wildcard",
            summary: "a listener on the wildcard address of the other family has the port",
        },
        Variant { name: "older-holder", summary: "as basic, but the client is older than the tracer" },
        Variant {
            name: "vanishing",
            summary: "as basic, but the client is gone right after the one failed bind; --count conflicts",
        },
        Variant {
            name: "at-listen",
            summary: "two servers bind the port with SO_REUSEADDR; the second listen() fails",
        },
        Variant {
            name: "other-namespace",
            summary: "the port is taken in another namespace: no conflict at all",
        },
        Variant {
            name: "other-user",
            summary: "another user listens with SO_REUSEPORT, which the server sets, too",
        },
        Variant {
            name: "accepted-child",
            summary: "a server that listens no more still has a connection that it accepted",
        },
        Variant {
            name: "kernel-socket",
            summary: "the kernel itself listens on the port (for multipath TCP, since 5.12)",
        },
        Variant { name: "self-connect", summary: "a client of the vacated port is connected to itself" },
        Variant {
            name: "fin-wait",
            summary: "the server's own old connection, which its client has not closed, is in FIN-WAIT-2",
        },
        Variant { name: "fin-wait-1", summary: "as fin-wait, but the client does not acknowledge the close" },
        Variant { name: "last-ack", summary: "as fin-wait-1, but the client has closed first" },
        Variant {
            name: "close-wait",
            summary: "as accepted-child, and its client has closed the connection",
        },
        Variant {
            name: "device",
            summary: "the server binds a device, and a listener without one covers all",
        },
        Variant {
            name: "device-wildcard",
            summary: "the server wants all addresses, and a listener has one of them, on one device",
        },
        Variant { name: "every", summary: "all of the above that can share a namespace, in one run" },
        Variant {
            name: "fin-wait-reuse",
            summary: "as fin-wait, but both servers set SO_REUSEADDR: no conflict",
        },
        Variant {
            name: "other-devices",
            summary: "two listeners of one port, each for a device of its own: no conflict",
        },
        Variant {
            name: "remedied",
            summary: "as basic; then the command printed is carried out, and the server tries again",
        },
        Variant {
            name: "remedied-listener",
            summary: "as listener; then the command printed is carried out, and the server tries again",
        },
    ],
    make: |variant, options| Ok(Box::new(PortGrab::new(variant, options)?)),
};

/// In one run of many conflicts, the n-th is about the n-th port from here: within the default ephemeral range.
const FIRST: u16 = 35100;
/// No more conflicts than the tracer remembers, and no more ports than there are up to those that bystanders use.
const MOST: u16 = 1000;

struct PortGrab {
    variant: &'static Variant,
    options: Options,
    scenes: Vec<Scene>,
    /// Everybody else.
    actors: Vec<Actor>,
    /// Whether the holders are in place.
    occupied: bool,
    stage: Stage,
}

impl PortGrab {
    fn new(variant: &'static Variant, options: Options) -> Result<Self> {
        let kinds = kinds(variant.name, options.count)?;
        // Every actor of a series has a few descriptors of ours.
        raise_fd_limit();
        let pair = |kind: &Kind| *kind == Kind::OtherNamespace || kind.needs_link();
        let layout = if kinds.iter().any(pair) { Layout::Pair } else { Layout::Loopback };
        let stage = options.stage(layout)?;
        let has_ipv6 = has_ipv6(stage.server())?;
        if kinds == [Kind::Wildcard] && !has_ipv6 {
            return Err(Error::NotSupported("the wildcard variant needs IPv6".into()));
        }
        let many = kinds.len() > 1;
        let kinds = kinds.into_iter().filter(|kind| *kind != Kind::Wildcard || has_ipv6);
        let scenes = kinds.zip(FIRST..).map(|(kind, port)| {
            // Servers' ports are beyond the range that clients are given ports from.
            let port = match (many, kind.is_grab()) {
                (false, _) => kind.port(),
                (true, true) => port,
                (true, false) => port - FIRST + kind.port(),
            };
            Scene::new(kind, port, options.family)
        });
        let scenes = scenes.collect();
        Ok(Self { variant, options, scenes, actors: Vec::new(), occupied: false, stage })
    }

    fn occupy(&mut self) -> Result<()> {
        if self.scenes.iter().any(|scene| scene.kind.is_grab()) && self.actors.is_empty() {
            self.actors = surroundings(&self.stage, self.options.family)?;
        }
        for scene in &mut self.scenes {
            scene.occupy(&self.stage)?;
        }
        self.occupied = true;
        Ok(())
    }

    /// Conflicts one after the other, each with a holder of its own that is gone at once.
    fn is_series(&self) -> bool {
        self.scenes.len() > 1 && self.scenes.iter().all(|scene| scene.kind == Kind::Vanishing)
    }

    fn scene(&self) -> Option<&Scene> {
        self.scenes.first()
    }
}

/// What is played in a variant.
fn kinds(variant: &str, count: Option<u16>) -> Result<Vec<Kind>> {
    let count = count.unwrap_or(1);
    match variant {
        "every" => Ok(TOGETHER.into()),
        "vanishing" if (1..=MOST).contains(&count) => Ok(vec![Kind::Vanishing; count.into()]),
        "vanishing" => Err(Error::Usage(format!("--count {count}: use 1 to {MOST}"))),
        "remedied-listener" => Ok(vec![Kind::Listener]),
        other => Ok(vec![Kind::of(other)]),
    }
}

impl Incident for PortGrab {
    fn name(&self) -> &'static str {
        ENTRY.name
    }

    fn variant(&self) -> &'static str {
        self.variant.name
    }

    fn describe(&self) -> String {
        let Some(scene) = self.scene() else { return String::new() };
        if self.scenes.len() > 1 {
            let what =
                if self.is_series() { "each time by a client that is gone at once" } else { "in every way" };
            return format!("{} ports are taken, {what}.\nA server wants each of them.", self.scenes.len());
        }
        let (wanted, port) = (scene.wanted(), scene.port);
        let holder = match scene.kind {
            Kind::Basic => {
                format!("tt-client connects to tt-upstream; the kernel gives it local port {port}.")
            }
            Kind::Vanishing => {
                format!("tt-client's connection has local port {port}, until just after the conflict.")
            }
            Kind::OtherNamespace => {
                format!("tt-client has local port {port}, but in a namespace of its own.")
            }
            Kind::TimeWait => {
                format!("tt-client's connection from local port {port} is closed: TIME_WAIT keeps it.")
            }
            Kind::TimeWaitRestart => {
                format!("An earlier tt-server's connection on port {port} is in TIME_WAIT.")
            }
            Kind::Listener => format!("tt-other listens on port {port}."),
            Kind::BoundSocket => format!("tt-other has bound port {port} and does not listen."),
            Kind::AtListen => {
                format!("tt-other has bound port {port} too, both with SO_REUSEADDR, and listens first.")
            }
            Kind::InheritedFd => {
                format!("tt-master listens on port {port} and exits; its tt-child still has the socket.")
            }
            Kind::Wildcard => {
                format!("tt-other listens on port {port} of the other address family's wildcard.")
            }
            Kind::OtherUser => {
                format!("tt-other listens on port {port} as another user, both with SO_REUSEPORT.")
            }
            Kind::AcceptedChild => {
                format!("tt-other does not listen on port {port} any more, but keeps an accepted connection.")
            }
            Kind::KernelSocket => format!("the kernel itself listens on port {port}, for multipath TCP."),
            Kind::SelfConnect => {
                format!("tt-client calls port {port}, is given that port, and meets itself.")
            }
            Kind::FinWait | Kind::FinWait1 | Kind::LastAck | Kind::FinWaitReuse => {
                format!("An earlier tt-server's connection on port {port} is still being closed.")
            }
            Kind::CloseWait => format!(
                "tt-other does not listen on port {port} any more, but keeps a connection that its peer has closed."
            ),
            Kind::Device => format!("tt-other listens on port {port} of every device."),
            Kind::DeviceWildcard => {
                format!("tt-other listens on one address of the loopback device, port {port}.")
            }
            Kind::OtherDevices => format!("tt-other listens on port {port} of the loopback device."),
        };
        let server = match scene.kind {
            kind if !kind.conflicts() => format!("tt-server listens on {wanted} and nothing is wrong."),
            Kind::AtListen => format!("tt-server's listen() on {wanted} gets EADDRINUSE."),
            Kind::Vanishing => {
                format!("tt-server, configured to listen on {wanted}, tries once and gets EADDRINUSE.")
            }
            _ => {
                format!("tt-server, configured to listen on {wanted}, tries three times and gets EADDRINUSE.")
            }
        };
        format!("{holder}\n{server}")
    }

    fn stage(&self) -> &Stage {
        &self.stage
    }

    fn prepare(&mut self) -> Result<()> {
        let older = self.options.older || self.variant.name == "older-holder";
        if !older || self.is_series() {
            return Ok(());
        }
        self.scenes.iter_mut().for_each(|scene| scene.older = true);
        self.occupy()
    }

    fn play(&mut self) -> Result<GroundTruth> {
        let before = self.stage.counters()?;
        if self.is_series() {
            self.actors = surroundings(&self.stage, self.options.family)?;
            for scene in &mut self.scenes {
                scene.occupy(&self.stage)?;
                let server = self.stage.start_server("tt-server")?;
                scene.start(&self.stage, server)?;
            }
        } else {
            if !self.occupied {
                self.occupy()?;
            }
            for scene in &mut self.scenes {
                let server = self.stage.start_server("tt-server")?;
                scene.start(&self.stage, server)?;
            }
        }
        let after = self.stage.settled_counters()?;

        let identities = |scene: &Scene| {
            let holder = scene.holder.as_ref().and_then(|holder| holder.identity.clone());
            let server = scene.server.as_ref().map(|server| server.identity().clone());
            holder.into_iter().chain(server)
        };
        let Some(scene) = self.scene() else { return Err(Error::NotStaged("nothing was played".into())) };
        let conflict = scene.kind.conflicts();
        let facts = json!({
            "conflicts": self.scenes.iter().filter(|scene| scene.kind.conflicts()).count(),
            "attempts": self.scenes.iter().map(|scene| scene.attempts.len()).sum::<usize>(),
            "errno": if conflict { Some("EADDRINUSE") } else { None },
            "at": scene.attempts.last().map(|attempt| attempt.at.clone()),
            "reuseaddr": scene.kind.server_reuses(),
        });
        let grabbed = self.scenes.iter().any(|scene| scene.kind.is_grab());
        let risk =
            Allowed { code: "port-grab-risk", because: "a client was given a port that a server wants" };
        Ok(GroundTruth {
            actors: self
                .scenes
                .iter()
                .flat_map(identities)
                .chain(self.actors.iter().map(|actor| actor.identity().clone()))
                .collect(),
            expect: self.scenes.iter().filter_map(Scene::expectation).collect(),
            // One in a thousand may be gone before anybody can have seen who it was; it must be said then.
            may_be_unknown: if self.is_series() { self.scenes.len() / 1000 } else { 0 },
            allow: if grabbed { vec![risk] } else { Vec::new() },
            counters: counters::growth(&before, &after),
            facts: facts.as_object().cloned().unwrap_or_default(),
            ..GroundTruth::of(ENTRY.name, self.variant.name, self.stage.netns_inode())
        })
    }

    fn is_remedied(&self) -> bool {
        self.variant.name.starts_with("remedied")
    }

    fn again(&mut self) -> Result<bool> {
        let Some(scene) = self.scenes.first_mut() else { return Ok(false) };
        scene.again(&self.stage)
    }
}
