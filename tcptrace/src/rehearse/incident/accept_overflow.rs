//! `accept-overflow`: a server whose accept queue is full, so that SYNs and final ACKs are dropped.
//!
//! On loopback a handshake is over before connect() returns, so a final ACK can only find the queue full if its request
//! is older than the fullness. Some slow clients make such requests: while TCP_DEFER_ACCEPT is set on the listener,
//! their bare ACKs are not enough, and their byte comes when the other clients have filled the queue. The setting is
//! then taken back, so that from there on the listener is an ordinary one. They stay well below the smallest backlog, and
//! clients of the load give up after a while: their requests would fill the SYN queue, which is another incident.

use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};

use super::{Entry, Family, Incident, Options, Variant};
use crate::finding::Confidence;
use crate::rehearse::actor::{Actor, Bind, BindAttempt, Identity, Load, Order, Passage, Tally};
use crate::rehearse::counters;
use crate::rehearse::error::{Error, Result};
use crate::rehearse::nft;
use crate::rehearse::stage::{Layout, Stage};
use crate::rehearse::truth::{Allowed, Expectation, GroundTruth, Party};

pub(super) const ENTRY: Entry = Entry {
    name: "accept-queue-overflow",
    aliases: &["accept-overflow"],
    summary: "a server's accept queue is full: SYNs and final ACKs are dropped",
    variants: &[
        Variant {
            name: "basic",
            summary: "listen(20) under somaxconn 128, one slow worker: the backlog argument limits",
        },
        Variant {
            name: "accept-slow",
            summary: "listen(128) under somaxconn 128, one slow worker: no backlog would do",
        },
        Variant {
            name: "somaxconn",
            summary: "listen(4096) cut to 128 by somaxconn, a fair worker, too many clients",
        },
        Variant { name: "stopped", summary: "the server is stopped (SIGSTOP) in the middle of its work" },
        Variant { name: "not-accepting", summary: "the server never calls accept()" },
        Variant {
            name: "workers",
            summary: "two slow worker processes accept, their parent never does: they are who it is about",
        },
        Variant {
            name: "shrunk",
            summary: "listen(16), then listen(10): the second call is not seen in every tier, and somaxconn cuts nothing",
        },
        Variant {
            name: "steered",
            summary: "a BPF program (sk_lookup) gives connections to another port to the listener: one incident, told once",
        },
        Variant {
            name: "transparent",
            summary: "a TPROXY rule gives connections to another port to the listener: one incident, told once",
        },
        Variant {
            name: "passed",
            summary: "who opened the socket has sent it to another process (SCM_RIGHTS) and exited: it is about the one that accepts",
        },
        Variant {
            name: "tiny",
            summary: "listen(5), as Python's http.server does, and bursts: one thread that accepts at once is fast enough, the queue too short",
        },
        Variant {
            name: "pre-forked",
            summary: "as workers, with other numbers: listen(64), and six processes accept 6 connections a second each",
        },
    ],
    make: |variant, options| Ok(Box::new(AcceptOverflow::new(variant, options)?)),
};

const PORT: u16 = 1080;
/// What is called instead, where that is steered to the listener.
const STEERED: u16 = 1081;
const SOMAXCONN: u32 = 128;
const SLOW_CLIENTS: usize = 6;

/// Longer than any play: the slow clients' requests must not be served by a timer.
const DEFER_SECONDS: i32 = 60;

/// What leads connections to the listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Led {
    /// A BPF program (sk_lookup).
    Program,
    /// A rule of the firewall (TPROXY).
    Rule,
}

/// What a variant differs in.
#[derive(Debug, Clone, Copy)]
struct Recipe {
    backlog: i32,
    /// Time the one worker spends on a connection; None: there is no worker.
    worker_ms: Option<u64>,
    /// The server is stopped before the load begins.
    stopped: bool,
    /// Processes that accept in its place; 0: its own thread does.
    processes: usize,
    /// The argument of a first listen(), before the one that counts.
    first_backlog: Option<i32>,
    /// Clients call another port, from which connections are led to the listener.
    led: Option<Led>,
    /// The socket was made by another process, which has exited.
    passed: bool,
    /// The queue is full for moments only: that a final ACK meets it then cannot be arranged.
    brief: bool,
    burst: usize,
    every_ms: u64,
    for_ms: u64,
    /// Enough to overflow on a machine that is too slow for the pace.
    at_least: usize,
    cause: &'static str,
    allow: &'static [Allowed],
}

const SLOW_ACCEPT: Allowed =
    Allowed { code: "slow-accept", because: "connections wait for seconds in the queue" };
const STALL: Allowed =
    Allowed { code: "accept-stall", because: "nothing is accepted while connections wait" };

const UNKNOWN_STEERING: Allowed = Allowed {
    code: "syn-unanswered",
    because: "where drops are only counted, it is not seen that the called port is steered to this listener",
};

/// Not meant to happen, but on a slow machine the SYN queue may fill for a moment; then it is true.
const SYN_QUEUE: Allowed =
    Allowed { code: "syn-queue-full", because: "requests of dropped final ACKs filled the SYN queue" };

impl Recipe {
    fn of(variant: &Variant) -> Self {
        let basic = Self {
            backlog: 20,
            worker_ms: Some(250),
            stopped: false,
            processes: 0,
            first_backlog: None,
            led: None,
            passed: false,
            brief: false,
            burst: 1,
            every_ms: 14,
            for_ms: 5000,
            at_least: 150,
            cause: "backlog-argument",
            allow: &[SLOW_ACCEPT],
        };
        match variant.name {
            "accept-slow" => Self { backlog: 128, burst: 2, at_least: 350, cause: "accept-slow", ..basic },
            "somaxconn" => Self {
                backlog: 4096,
                worker_ms: Some(20),
                burst: 30,
                every_ms: 200,
                for_ms: 4000,
                at_least: 450,
                cause: "somaxconn",
                allow: &[
                    SLOW_ACCEPT,
                    Allowed { code: "backlog-truncated", because: "listen(4096) became 128 without a word" },
                ],
                ..basic
            },
            "stopped" => Self {
                worker_ms: Some(10),
                stopped: true,
                every_ms: 30,
                for_ms: 4000,
                at_least: 80,
                cause: "accept-stalled",
                allow: &[STALL],
                ..basic
            },
            "not-accepting" => Self {
                worker_ms: None,
                every_ms: 30,
                for_ms: 4000,
                at_least: 80,
                cause: "accept-stalled",
                allow: &[STALL],
                ..basic
            },
            "workers" => Self { processes: 2, ..basic },
            "tiny" => Self {
                backlog: 5,
                worker_ms: Some(1),
                brief: true,
                burst: 40,
                every_ms: 250,
                at_least: 400,
                allow: &[],
                ..basic
            },
            "steered" => Self { led: Some(Led::Program), allow: &[SLOW_ACCEPT, UNKNOWN_STEERING], ..basic },
            "transparent" => Self { led: Some(Led::Rule), allow: &[SLOW_ACCEPT, UNKNOWN_STEERING], ..basic },
            "passed" => Self { passed: true, ..basic },
            "pre-forked" => Self { backlog: 64, worker_ms: Some(28), processes: 6, at_least: 250, ..basic },
            "shrunk" => Self { backlog: 10, first_backlog: Some(16), ..basic },
            _ => basic,
        }
    }

    /// What the kernel makes of the backlog argument: connections beyond it, plus one, are dropped.
    fn limit(&self) -> u32 {
        self.backlog.unsigned_abs().min(SOMAXCONN)
    }
}

struct AcceptOverflow {
    variant: &'static Variant,
    recipe: Recipe,
    options: Options,
    /// Before the stage: actors go first.
    server: Option<Actor>,
    clients: Vec<Actor>,
    /// The processes that accept in its place.
    hired: Vec<Identity>,
    stage: Stage,
}

impl AcceptOverflow {
    fn new(variant: &'static Variant, options: Options) -> Result<Self> {
        let stage = options.stage(Layout::Loopback)?;
        stage.set_sysctl("net.core.somaxconn", SOMAXCONN)?;
        Ok(Self {
            variant,
            recipe: Recipe::of(variant),
            options,
            server: None,
            clients: Vec::new(),
            hired: Vec::new(),
            stage,
        })
    }

    /// A listening server at work.
    fn open_for_business(&mut self) -> Result<Actor> {
        let mut server = self.stage.start_server("tt-proxy")?;
        let order = Bind {
            reuseaddr: true,
            backlog: Some(self.recipe.first_backlog.unwrap_or(self.recipe.backlog)),
            transparent: self.recipe.led == Some(Led::Rule),
            ..Bind::to(self.options.family.any(PORT))
        };
        let attempts: Vec<BindAttempt> = server.ask(&Order::Bind(order))?;
        if let Some(errno) = attempts.last().and_then(|attempt| attempt.errno) {
            return Err(Error::NotStaged(format!("the server cannot listen (errno {errno})")));
        }
        if self.recipe.first_backlog.is_some() {
            server.ask::<BindAttempt>(&Order::Listen { backlog: self.recipe.backlog })?;
        }
        match self.recipe.led {
            Some(Led::Program) => server.ask::<()>(&Order::Steer { from: STEERED })?,
            Some(Led::Rule) => {
                let ipv6 = self.options.family == Family::V6;
                let ruled = self.stage.server().run(move || nft::intercept(STEERED, PORT, ipv6))?;
                ruled.map_err(nft::lacking)?;
            }
            None => {}
        }
        if self.recipe.passed {
            let mut heir = self.stage.start_server("tt-heir")?;
            server.hand_over(&mut heir, Passage::Message)?;
            server = heir;
        }
        match (self.recipe.worker_ms, self.recipe.processes) {
            (None, _) => {}
            (Some(every_ms), 0) => server.ask::<()>(&Order::Accept { workers: 1, every_ms })?,
            (Some(every_ms), processes) => {
                let every_ms = every_ms * u64::try_from(processes).unwrap_or(1);
                self.hired = server.hire("tt-worker", processes, every_ms, 0)?;
            }
        }
        Ok(server)
    }
}

impl Incident for AcceptOverflow {
    fn name(&self) -> &'static str {
        ENTRY.name
    }

    fn variant(&self) -> &'static str {
        self.variant.name
    }

    fn describe(&self) -> String {
        let Recipe { backlog, worker_ms, stopped, burst, every_ms, .. } = self.recipe;
        let worker = match worker_ms {
            Some(_) if stopped => "is then stopped".to_owned(),
            Some(time) => format!("takes {time} ms each"),
            None => "never accepts".to_owned(),
        };
        let rate = burst as u64 * 1000 / every_ms.max(1);
        format!("tt-proxy: listen({backlog}), {worker}; tt-client: {rate} connects a second")
    }

    fn stage(&self) -> &Stage {
        &self.stage
    }

    fn prepare(&mut self) -> Result<()> {
        if self.options.older {
            self.server = Some(self.open_for_business()?);
        }
        Ok(())
    }

    fn play(&mut self) -> Result<GroundTruth> {
        let recipe = self.recipe;
        let before = self.stage.counters()?;
        let server = match self.server.take() {
            Some(server) => server,
            None => self.open_for_business()?,
        };
        let stage = &self.stage;
        let called = if recipe.led.is_some() { STEERED } else { PORT };
        let to = self.options.family.call(stage, called);
        let server = self.server.insert(server);
        self.clients = vec![stage.start_client("tt-client")?, stage.start_client("tt-slow")?];
        let [client, slow] = self.clients.as_mut_slice() else {
            return Err(Error::NotStaged("there are two clients".into()));
        };

        let begin = Instant::now();
        if recipe.stopped {
            // It has served well so far.
            client.ask::<usize>(&Order::Load(Load {
                to,
                burst: 1,
                every_ms: 30,
                for_ms: 500,
                at_least: 15,
            }))?;
            stage.await_that("the server has served its first clients", || {
                Ok(stage.accept_queue(PORT)? == Some(0))
            })?;
        }
        if !recipe.brief {
            server.ask::<()>(&Order::DeferAccept { seconds: DEFER_SECONDS })?;
            slow.ask::<Value>(&Order::Connect { to, count: SLOW_CLIENTS })?;
        }
        if recipe.stopped {
            server.stop()?;
        }
        let Recipe { burst, every_ms, for_ms, at_least, .. } = recipe;
        client.tell(&Order::Load(Load { to, burst, every_ms, for_ms, at_least }))?;
        let overflows = before.get("ListenOverflows").copied();
        stage.await_that("the accept queue overflows", || {
            Ok((recipe.brief || stage.accept_queue(PORT)? > Some(recipe.limit()))
                && stage.counters()?.get("ListenOverflows").copied() > overflows)
        })?;
        if !recipe.stopped && !recipe.brief {
            server.ask::<()>(&Order::DeferAccept { seconds: 0 })?;
        }
        slow.ask::<usize>(&Order::Send)?;
        client.reply::<usize>()?;
        let seconds = begin.elapsed();

        let accepted = if recipe.stopped || recipe.processes > 0 {
            None
        } else {
            Some(server.ask::<u64>(&Order::Accepted)?)
        };
        let tallies =
            [client.ask(&Order::HangUp { reset: true })?, slow.ask(&Order::HangUp { reset: true })?];
        let after = stage.settled_counters()?;
        let counters = counters::growth(&before, &after);
        let cookies_only = self.options.syncookies == Some(2);
        // The listen() of an older server was not seen.
        let sure = if self.options.older { Confidence::Likely } else { Confidence::Certain };
        let mut allow = recipe.allow.to_vec();
        if !cookies_only
            && ["TCPReqQFullDrop", "TCPReqQFullDoCookies"].iter().any(|&name| counters.get(name) > Some(&0))
        {
            allow.push(SYN_QUEUE);
        }
        let facts = Books {
            recipe,
            tallies,
            seconds,
            accepted,
            overflows: counters::grown(&counters, "ListenOverflows")?,
        }
        .facts(cookies_only)?;
        // Of several that accept, the one with the lowest pid is named.
        let named = self.hired.iter().min_by_key(|worker| worker.pid).unwrap_or(server.identity());
        let listener = Party::of(named, "listener", self.options.family.any(PORT));
        let mut actors = vec![server.identity().clone(), client.identity().clone(), slow.identity().clone()];
        actors.extend(self.hired.iter().cloned());
        Ok(GroundTruth {
            actors,
            expect: vec![Expectation::about("accept-queue-overflow", recipe.cause, listener).at_least(sure)],
            allow,
            counters,
            facts,
            ..GroundTruth::of(ENTRY.name, self.variant.name, stage.netns_inode())
        })
    }
}

/// What both sides saw.
struct Books {
    recipe: Recipe,
    tallies: [Tally; 2],
    seconds: Duration,
    accepted: Option<u64>,
    overflows: u64,
}

impl Books {
    /// Tells the two stages of drops apart, which no counter of the kernel does.
    ///
    /// Nothing is lost on loopback and every SYN that passes the queue checks is answered at once: a SYN after which
    /// the client is not established was dropped. What ListenOverflows counts beyond those are final ACKs.
    fn facts(&self, cookies_only: bool) -> Result<Map<String, Value>> {
        let sum = |of: fn(&Tally) -> u64| self.tallies.iter().map(of).sum::<u64>();
        let syn_drops = sum(|tally| tally.syns).saturating_sub(sum(|tally| tally.established));
        let ack_drops = self.overflows.checked_sub(syn_drops).ok_or_else(|| {
            let overflows = self.overflows;
            Error::NotStaged(format!(
                "{syn_drops} SYNs went unanswered, but ListenOverflows grew by {overflows}"
            ))
        })?;
        // With tcp_syncookies=2 there are no requests to be late for: a cookie's ACK completes it whatever was deferred.
        if syn_drops == 0 || (ack_drops == 0 && !cookies_only && !self.recipe.brief) {
            return Err(Error::NotStaged(format!(
                "{syn_drops} SYNs and {ack_drops} final ACKs were dropped"
            )));
        }
        let facts = json!({
            "backlog": self.recipe.backlog,
            "queue_limit": self.recipe.limit(),
            "somaxconn": SOMAXCONN,
            "syn_drops": syn_drops,
            "ack_drops": ack_drops,
            "connects": sum(|tally| tally.connects),
            "established": sum(|tally| tally.established),
            "gave_up": sum(|tally| tally.gave_up),
            "answered": sum(|tally| tally.answered),
            "accepted": self.accepted,
            "seconds": (self.seconds.as_secs_f64() * 10.0).round() / 10.0,
        });
        Ok(facts.as_object().cloned().unwrap_or_default())
    }
}
