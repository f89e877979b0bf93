//! `healthy`: servers under their capacity and clients of every ordinary kind. Nothing may be reported.

use std::collections::VecDeque;
use std::io::{self, BufRead as _, BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::{Entry, Family, Incident, Options, Variant, facts, open};
use crate::rehearse::actor::{Actor, Check, Door, Habit, Load, Order, Race, Visit, Visits};
use crate::rehearse::counters::{self, grown};
use crate::rehearse::error::{During, Error, Result};
use crate::rehearse::namespace::Namespace;
use crate::rehearse::netlink;
use crate::rehearse::stage::{ABROAD_V4, ABROAD_V6, Layout, Stage, has_ipv6};
use crate::rehearse::truth::{Allowed, GroundTruth};

pub(super) const ENTRY: Entry = Entry {
    name: "healthy",
    aliases: &[],
    summary: "a web server under its capacity: nothing to report",
    variants: &[
        Variant {
            name: "basic",
            summary: "short and keep-alive connections, FIN and RST, EAGAIN, one restart with SO_REUSEADDR",
        },
        Variant {
            name: "short",
            summary: "short connections only, closed in every way, some before they are accepted",
        },
        Variant { name: "keep-alive", summary: "many requests on a few connections" },
        Variant {
            name: "restart",
            summary: "three restarts with SO_REUSEADDR, old connections in TIME_WAIT",
        },
        Variant { name: "eagain", summary: "eight event loops race for every connection: seven see EAGAIN" },
        Variant { name: "port-scan", summary: "beside the usual clients somebody tries six closed ports" },
        Variant { name: "fast-open", summary: "TCP Fast Open: data in the SYN" },
        Variant { name: "mptcp", summary: "multipath TCP on both sides" },
        Variant {
            name: "reuseport-even",
            summary: "four processes share the port with SO_REUSEPORT, evenly",
        },
        Variant {
            name: "attach-loaded",
            summary: "the load is older than the tracer and goes on when it has gone",
        },
        Variant {
            name: "namespaces",
            summary: "a hundred network namespaces come and go, each with a connection",
        },
        Variant { name: "happy-eyeballs", summary: "connects race for two addresses, and one is called off" },
        Variant {
            name: "health-checks",
            summary: "a load balancer looks again and again whether the server listens, and resets before the handshake is complete",
        },
        Variant {
            name: "second-tracer",
            summary: "another tracer attaches while the server sleeps in accept()",
        },
    ],
    make: |variant, options| Ok(Box::new(Healthy::new(variant, options)?)),
};

const PORT: u16 = 8080;
const BACKLOG: i32 = 511;
const CLIENTS: usize = 6;
const NAMESPACES: usize = 100;
/// So many of them live at a time.
const AT_A_TIME: usize = 5;
/// Where nobody listens.
const CLOSED: [u16; 6] = [22, 25, 3306, 5432, 6379, 9200];
/// How long the load of `attach-loaded` would go on if nobody ended it: loading a tracer takes its time.
const ENDLESS_MS: u64 = 300_000;

/// What a variant differs in.
#[derive(Debug, Clone, Copy)]
struct Recipe {
    layout: Layout,
    /// Processes that share the port.
    members: usize,
    /// Event loops of each of them.
    workers: usize,
    fastopen: i32,
    habit: Habit,
    /// The play consists of parts, between which the server is restarted.
    parts: usize,
    part_ms: u64,
    every_ms: u64,
}

impl Recipe {
    fn of(variant: &Variant) -> Self {
        let basic = Self {
            layout: Layout::Loopback,
            members: 1,
            workers: 3,
            fastopen: 0,
            habit: Habit::Mixed,
            parts: 2,
            part_ms: 2500,
            every_ms: 18,
        };
        let single = Self { parts: 1, part_ms: 4000, ..basic };
        match variant.name {
            "short" => Self { habit: Habit::Short, every_ms: 12, ..single },
            "keep-alive" => Self { habit: Habit::KeepAlive, ..single },
            "restart" => Self { parts: 4, part_ms: 1000, ..basic },
            "eagain" => Self { workers: 8, ..single },
            "fast-open" => Self { habit: Habit::FastOpen, fastopen: 64, ..single },
            "mptcp" => Self { habit: Habit::Mptcp, ..single },
            "reuseport-even" => Self { members: 4, workers: 1, habit: Habit::Short, ..single },
            "attach-loaded" => Self { part_ms: ENDLESS_MS, every_ms: 40, ..single },
            "port-scan" | "namespaces" | "second-tracer" | "health-checks" => single,
            "happy-eyeballs" => Self { layout: Layout::Pair, ..single },
            _ => basic,
        }
    }
}

struct Healthy {
    variant: &'static Variant,
    recipe: Recipe,
    options: Options,
    /// Before the stage: actors go first.
    servers: Vec<Actor>,
    others: Vec<Actor>,
    stage: Stage,
}

impl Healthy {
    fn new(variant: &'static Variant, options: Options) -> Result<Self> {
        let recipe = Recipe::of(variant);
        let stage = options.stage(recipe.layout)?;
        stage.set_sysctl("net.core.somaxconn", 4096)?;
        if recipe.fastopen > 0 {
            // Both as a client and as a server.
            stage.set_sysctl("net.ipv4.tcp_fastopen", 3)?;
        }
        if recipe.habit == Habit::Mptcp {
            stage
                .set_sysctl("net.mptcp.enabled", 1)
                .map_err(|_| Error::NotSupported("this kernel has no multipath TCP".into()))?;
        }
        Ok(Self { variant, recipe, options, servers: Vec::new(), others: Vec::new(), stage })
    }

    fn open_for_business(&self) -> Result<Vec<Actor>> {
        let Recipe { members, workers, fastopen, habit, .. } = self.recipe;
        let door = Door {
            reuseport: members > 1,
            fastopen,
            mptcp: habit == Habit::Mptcp,
            ..Door::at(self.options.family.any(PORT), BACKLOG)
        };
        let member = |_| {
            let mut server = open(&self.stage, "tt-web", door.clone())?;
            server.ask::<()>(&Order::Serve { workers })?;
            Ok(server)
        };
        (0..members).map(member).collect()
    }

    fn visit(&self) -> Order {
        Order::Visit(Visit {
            to: self.options.family.call(&self.stage, PORT),
            clients: CLIENTS,
            every_ms: self.recipe.every_ms,
            for_ms: self.recipe.part_ms,
            habit: self.recipe.habit,
        })
    }

    /// Ends servers in good order: nobody waits in their queues, so nobody is reset.
    fn close(&self, servers: &mut Vec<Actor>) -> Result<()> {
        let stage = &self.stage;
        stage.await_that("everybody has been accepted", || {
            Ok(stage.accept_queues(PORT)?.iter().all(|&queue| queue == 0))
        })?;
        servers.drain(..).try_for_each(|mut server| server.ask::<()>(&Order::Close))
    }

    /// What goes on beside the visits.
    fn meanwhile(&mut self) -> Result<Map<String, Value>> {
        let done = match self.variant.name {
            "port-scan" => self.scan()?,
            "namespaces" => self.populate()?,
            "happy-eyeballs" => self.browse()?,
            "health-checks" => self.check()?,
            "attach-loaded" => {
                self.stage.cancel().sleep(Duration::from_secs(4))?;
                json!({ "load_goes_on": true })
            }
            _ => Value::Null,
        };
        Ok(facts(done))
    }

    fn scan(&mut self) -> Result<Value> {
        let mut scanner = self.stage.start_client("tt-scanner")?;
        let server = self.options.family.call(&self.stage, PORT);
        let mut at: Vec<SocketAddr> = CLOSED.iter().map(|&port| SocketAddr::new(server.ip(), port)).collect();
        at.push(server);
        let answers: Vec<i32> = scanner.ask(&Order::Knock { at })?;
        self.others.push(scanner);
        let refused = answers.iter().filter(|&&answer| answer == libc::ECONNREFUSED).count();
        if refused != CLOSED.len() || answers.last() != Some(&0) {
            return Err(Error::NotStaged(format!("the scanner's connects came out as {answers:?}")));
        }
        Ok(json!({ "closed_ports": refused }))
    }

    /// A load balancer that looks after the server.
    fn check(&mut self) -> Result<Value> {
        const CHECKS: usize = 60;
        let mut balancer = self.stage.start_client("tt-balancer")?;
        let to = self.options.family.call(&self.stage, PORT);
        let before = self.stage.counters()?;
        balancer.ask::<()>(&Order::Check(Check { to, times: CHECKS, every_ms: 40 }))?;
        self.others.push(balancer);
        let after = self.stage.counters()?;
        let reset = grown(&counters::growth(&before, &after), "EmbryonicRsts")?;
        if reset < CHECKS as u64 {
            return Err(Error::NotStaged(format!(
                "{reset} of {CHECKS} checks were reset during the handshake"
            )));
        }
        Ok(json!({ "checks": CHECKS, "reset_during_handshake": reset }))
    }

    /// Namespaces come and go, each with a server and a client of its own.
    fn populate(&self) -> Result<Value> {
        let mut alive = VecDeque::new();
        for _ in 0..NAMESPACES {
            self.stage.cancel().check()?;
            let namespace = Namespace::new()?;
            namespace.run(live)?.during("a connection in a namespace of its own")?;
            alive.push_back(namespace);
            if alive.len() >= AT_A_TIME {
                alive.pop_front();
            }
        }
        Ok(json!({ "namespaces": NAMESPACES }))
    }

    /// A thread sleeps in accept() when another tracer attaches to the function that it sleeps in: the kernel makes a new trampoline,
    /// and the thread leaves the old one without its exit programs (`bpf_tramp_image_put()`). What it accepts, no tracer sees.
    fn play_beside_a_tracer(&mut self) -> Result<GroundTruth> {
        /// Longer than a listener's connections wait before that is called a stall.
        const WELL_OVER_A_STALL: Duration = Duration::from_secs(6);
        let (stage, family) = (&self.stage, self.options.family);
        let before = stage.counters()?;
        let mut server = open(stage, "tt-web", Door::at(family.any(PORT), BACKLOG))?;
        server.ask::<()>(&Order::Accept { workers: 1, every_ms: 0 })?;
        let mut client = stage.start_client("tt-client")?;
        let visit = |client: &mut Actor| {
            let load = Load { to: family.call(stage, PORT), burst: 1, every_ms: 10, for_ms: 0, at_least: 1 };
            client.ask::<usize>(&Order::Load(load))
        };
        visit(&mut client)?;
        stage.await_that("the first is accepted", || Ok(server.ask::<usize>(&Order::Accepted)? == 1))?;
        let tracer = SecondTracer::start()?;
        visit(&mut client)?;
        stage.await_that("the second is accepted", || Ok(server.ask::<usize>(&Order::Accepted)? == 2))?;
        stage.cancel().sleep(WELL_OVER_A_STALL)?;
        let accepted: usize = server.ask(&Order::Accepted)?;
        drop(tracer);
        let counters = counters::growth(&before, &stage.settled_counters()?);
        let actors = vec![server.identity().clone(), client.identity().clone()];
        self.servers.push(server);
        self.others.push(client);
        Ok(GroundTruth {
            actors,
            facts: facts(json!({ "connections": 2, "accepted": accepted })),
            counters,
            ..GroundTruth::of(ENTRY.name, self.variant.name, self.stage.netns_inode())
        })
    }

    /// A browser in the server's namespace, where its connects are seen.
    fn browse(&mut self) -> Result<Value> {
        const RACES: usize = 8;
        let (stage, family) = (&self.stage, self.options.family);
        let mut browser = stage.start_server("tt-browser")?;
        let mut race = |first: SocketAddr, second: SocketAddr, head_start_ms| {
            let order = Race { first, second, head_start_ms, times: RACES, every_ms: 20 };
            let visits: Visits = browser.ask(&Order::Race(order))?;
            match visits.errors.first() {
                None => Ok(visits.connections),
                Some(error) => Err(Error::NotStaged(format!("a race was not won: {error}"))),
            }
        };
        // The first address does not answer, and is given up long before its SYN would be sent again.
        let nobody: IpAddr = if has_ipv6(stage.server())? {
            Ipv6Addr::from_bits(ABROAD_V6.to_bits() + 5).into()
        } else {
            Ipv4Addr::from_bits(ABROAD_V4.to_bits() + 5).into()
        };
        let called_off = race(SocketAddr::new(nobody, 80), family.call(stage, PORT), 250)?;
        // Both addresses answer: the loser is closed when it has hardly been opened.
        let near: IpAddr = match family {
            Family::V6 => Ipv6Addr::LOCALHOST.into(),
            Family::V4 | Family::Mapped => Ipv4Addr::LOCALHOST.into(),
        };
        let both = race(SocketAddr::new(near, PORT), family.call(stage, PORT), 0)?;
        self.others.push(browser);
        if (called_off, both) != (2 * RACES as u64, 2 * RACES as u64) {
            return Err(Error::NotStaged("an address answered that should not have".into()));
        }
        Ok(json!({ "races": 2 * RACES, "called_off": RACES }))
    }
}

/// This program once more, as a tracer that has attached. Ends with its value.
struct SecondTracer {
    process: Child,
    /// It would end if it were not read any more.
    output: BufReader<ChildStdout>,
}

impl SecondTracer {
    fn start() -> Result<Self> {
        let during = "starting a second tracer";
        let mut process = Command::new("/proc/self/exe")
            .args(["watch", "--json", "--for", "60s"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .during(during)?;
        let output =
            process.stdout.take().ok_or_else(|| io::Error::other("it has no output")).during(during)?;
        let mut tracer = Self { process, output: BufReader::new(output) };
        let mut first = String::new();
        // The coverage, which is said once it has attached.
        tracer.output.read_line(&mut first).during(during)?;
        if first.is_empty() {
            return Err(Error::NotSupported("this program cannot be started as a second tracer".into()));
        }
        Ok(tracer)
    }
}

impl Drop for SecondTracer {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _gone = self.process.kill();
        let _gone = self.process.wait();
    }
}

/// One connection from beginning to end, in the calling thread's namespace.
fn live() -> io::Result<()> {
    netlink::set_up("lo")?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, PORT))?;
    let mut client = TcpStream::connect(listener.local_addr()?)?;
    let (mut server, _) = listener.accept()?;
    client.write_all(b"?")?;
    server.read_exact(&mut [0])?;
    drop(client);
    // Its end has come: closing now leaves nothing behind.
    match server.read(&mut [0])? {
        0 => Ok(()),
        _ => Err(io::Error::other("the client said more than it should")),
    }
}

impl Incident for Healthy {
    fn name(&self) -> &'static str {
        ENTRY.name
    }

    fn variant(&self) -> &'static str {
        self.variant.name
    }

    fn describe(&self) -> String {
        let Recipe { members, workers, parts, .. } = self.recipe;
        format!(
            "tt-web (processes: {members}, event loops in each: {workers}, restarts: {}) listens on {} with \
             listen({BACKLOG}).\n{CLIENTS} clients in tt-client; {}.",
            parts - 1,
            self.options.family.any(PORT),
            self.variant.summary,
        )
    }

    fn stage(&self) -> &Stage {
        &self.stage
    }

    fn prepare(&mut self) -> Result<()> {
        if self.variant.name == "attach-loaded" {
            self.servers = self.open_for_business()?;
            let mut client = self.stage.start_client("tt-client")?;
            client.tell(&self.visit())?;
            self.others.push(client);
            let stage = &self.stage;
            // In full swing, so that the tracer finds connections in every state.
            stage.await_that("the load has begun", || {
                Ok(stage.counters()?.get("PassiveOpens") > Some(&100))
            })?;
        } else if self.options.older {
            self.servers = self.open_for_business()?;
        }
        Ok(())
    }

    fn play(&mut self) -> Result<GroundTruth> {
        if self.variant.name == "second-tracer" {
            return self.play_beside_a_tracer();
        }
        let before = self.stage.counters()?;
        if self.servers.is_empty() {
            self.servers = self.open_for_business()?;
        }
        // Whoever has ended by the end is an actor too.
        let mut actors: Vec<_> = self.servers.iter().map(|server| server.identity().clone()).collect();
        let loaded = self.variant.name == "attach-loaded";
        let mut parts = Vec::new();
        let done = if loaded {
            self.meanwhile()?
        } else {
            let mut client = self.stage.start_client("tt-client")?;
            client.tell(&self.visit())?;
            let done = self.meanwhile()?;
            parts.push(client.reply::<Visits>()?);
            for _ in 1..self.recipe.parts {
                let mut servers = std::mem::take(&mut self.servers);
                self.close(&mut servers)?;
                self.servers = self.open_for_business()?;
                actors.extend(self.servers.iter().map(|server| server.identity().clone()));
                parts.push(client.ask(&self.visit())?);
            }
            self.others.push(client);
            done
        };
        actors.extend(self.others.iter().map(|other| other.identity().clone()));
        let after = if loaded { self.stage.counters()? } else { self.stage.settled_counters()? };
        let counters = counters::growth(&before, &after);

        if let Some(error) = parts.iter().flat_map(|part| &part.errors).next() {
            return Err(Error::NotStaged(format!("a visitor was turned away: {error}")));
        }
        if grown(&counters, "ListenDrops")? > 0 {
            return Err(Error::NotStaged("the healthy server has dropped connections".into()));
        }
        if self.recipe.habit == Habit::Mptcp && grown(&counters, "MPCapableSYNRX")? == 0 {
            return Err(Error::NotStaged("no connection came about by multipath TCP".into()));
        }
        if self.recipe.fastopen > 0 && grown(&counters, "TCPFastOpenPassive")? == 0 {
            return Err(Error::NotStaged("no connection came about by Fast Open".into()));
        }
        let scan = "somebody has tried closed ports; worth a mention (info) at most";
        let allow = match self.variant.name {
            "port-scan" => {
                ["connect-refused", "no-listener"].map(|code| Allowed { code, because: scan }).to_vec()
            }
            _ => Vec::new(),
        };
        let mut facts = facts(json!({
            "connections": parts.iter().map(|part| part.connections).sum::<u64>(),
            "keep_alive_requests": parts.iter().map(|part| part.keep_alive_requests).sum::<u64>(),
            "restarts": self.recipe.parts - 1,
            "members": self.recipe.members,
        }));
        facts.extend(done);
        Ok(GroundTruth {
            actors,
            allow,
            facts,
            counters,
            ..GroundTruth::of(ENTRY.name, self.variant.name, self.stage.netns_inode())
        })
    }
}
