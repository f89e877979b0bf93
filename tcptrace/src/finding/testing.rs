//! Plays event sequences to the engine, as the live driver would send them.

use std::net::SocketAddr;

use tcptrace_common::listener::{HISTOGRAM_BUCKETS, bucket_of};

use crate::event::{
    Acceptor, AckDrop, AckDropCause, BindFail, BindStage, Connect, ConnectResult, ConnectTotals,
    CounterSample, Coverage, Distribution, Endpoints, Event, Family, Found, HandshakeDrop, Holder, How, Kind,
    KnobSample, Listen, ListenerClosed, ListenerRef, ListenerSample, ListenerTotals, Observation,
    ObservationStatus, Packet, PortRange, ProcessDetails, ProcessInfo, SampleSource, SocketOptions,
    SocketState, SynDrop, SynDropCause, Taker, Task, Tier, Timestamp,
};

use super::{Engine, Finding, agree};

/// 2026-11-22T10:40:00Z, when all plays begin.
pub(crate) const START: u64 = 1_795_344_000_000_000_000;

/// The namespace of all plays.
pub(crate) const NETNS: u32 = 4_026_531_840;

pub(crate) fn ms(ms: u64) -> Timestamp {
    Timestamp::from_nanos(START + ms * 1_000_000)
}

pub(crate) fn task(pid: u32, comm: &str) -> Task {
    Task { pid, tid: pid, uid: 1000, cgroup: 1, comm: comm.into() }
}

pub(crate) fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

pub(crate) fn place(local: &str) -> Endpoints {
    let local = address(local);
    let family = if local.is_ipv4() { Family::V4 } else { Family::V6 };
    Endpoints::local_only(NETNS, family, local)
}

/// What curl[77] hears of its connect from 10.0.0.9:40000 to 10.0.0.1:80.
pub(crate) fn connect(result: ConnectResult, errno: Option<u32>, totals: ConnectTotals) -> Connect {
    Connect {
        endpoints: Endpoints {
            netns: NETNS,
            family: Family::V4,
            local: address("10.0.0.9:40000"),
            remote: Some(address("10.0.0.1:80")),
            device: 0,
        },
        task: Some(task(77, "curl")),
        sk: 1,
        inode: 0,
        age_ns: Some(1_000_000),
        result,
        errno,
        syns_again: 0,
        totals,
    }
}

/// A packet that was dropped on its way, for no reason that is told.
pub(crate) fn handshake_drop(packet: Packet, outgoing: bool) -> HandshakeDrop {
    let (server, client) = ("10.0.0.1:80", "10.0.0.9:40000");
    let (local, remote) =
        if outgoing == (packet == Packet::SynAck) { (server, client) } else { (client, server) };
    HandshakeDrop {
        endpoints: Endpoints {
            netns: NETNS,
            family: Family::V4,
            local: address(local),
            remote: Some(address(remote)),
            device: if outgoing { 0 } else { 2 },
        },
        task: None,
        packet,
        outgoing,
        handshake: true,
        reason: 0,
        reason_name: None,
        location: 1,
        function: None,
        input: 0,
        input_name: None,
        total: 1,
        facts: None,
    }
}

/// An engine, and everything it has reported.
pub(crate) struct Play {
    pub(crate) engine: Engine,
    pub(crate) findings: Vec<Finding>,
    pub(crate) now: u64,
}

impl Play {
    /// A full tier: everything is attached; knobs and counters are read at the start.
    pub(crate) fn new(somaxconn: u32) -> Self {
        Self::with(Engine::default(), somaxconn)
    }

    /// As `why` asks: about one server.
    pub(crate) fn of_one_server(somaxconn: u32) -> Self {
        Self::with(Engine::of_one_server(), somaxconn)
    }

    fn with(engine: Engine, somaxconn: u32) -> Self {
        let mut play = Self { engine, findings: Vec::new(), now: 0 };
        play.send(0, Kind::Coverage(Box::new(coverage(Tier::Fexit, ObservationStatus::Attached))));
        play.knobs(somaxconn);
        play.counters(0);
        play
    }

    /// The tracepoint tier: SYN drops are polled.
    pub(crate) fn polled(somaxconn: u32, ack_drops: ObservationStatus) -> Self {
        let mut play = Self::new(somaxconn);
        let mut coverage = coverage(Tier::Tracepoint, ObservationStatus::Attached);
        for observation in &mut coverage.observations {
            match observation.name.as_str() {
                "syn-drop" | "cookie" => observation.status = ObservationStatus::Polled,
                "request-end" => observation.status = ObservationStatus::Missing,
                "ack-drop" => observation.status = ack_drops,
                _ => {}
            }
        }
        play.send(0, Kind::Coverage(Box::new(coverage)));
        play
    }

    pub(crate) fn send(&mut self, at: u64, kind: Kind) {
        self.now = self.now.max(at);
        let findings = &mut self.findings;
        self.engine.on_event(&Event { time: ms(at), kind }, |finding| {
            // Whatever a test is about, what it brings forth keeps to the contract.
            // (`why` is the explanation, which no line repeats.)
            for (name, value) in finding.evidence.iter().filter(|(name, _)| *name != "why") {
                assert_eq!(agree::undeclared(finding.code, name, value), None, "{}", finding.code);
            }
            findings.push(finding);
        });
    }

    pub(crate) fn knobs(&mut self, somaxconn: u32) {
        self.knobs_with(somaxconn, 1);
    }

    pub(crate) fn knobs_with(&mut self, somaxconn: u32, syncookies: u32) {
        self.knobs_but(somaxconn, syncookies, |_| ());
    }

    /// The knobs, after a change.
    pub(crate) fn knobs_but(
        &mut self,
        somaxconn: u32,
        syncookies: u32,
        change: impl FnOnce(&mut KnobSample),
    ) {
        let mut knobs = KnobSample {
            name: None,
            netns: NETNS,
            cookie: None,
            somaxconn: Some(somaxconn),
            max_syn_backlog: Some(512),
            syncookies: Some(syncookies),
            abort_on_overflow: Some(false),
            synack_retries: Some(5),
            local_port_range: Some(PortRange { first: 32768, last: 60999 }),
            reserved_ports: Some([8080..=8080].into_iter().collect()),
            tw_reuse: Some(2),
            unprivileged_port_start: Some(1024),
            nonlocal_bind: Some(false),
            nonlocal_bind_v6: Some(false),
            fin_timeout: Some(60),
            orphan_retries: Some(0),
            timestamps: Some(1),
            l3mdev_accept: Some(false),
            migrate_req: Some(false),
        };
        change(&mut knobs);
        self.send(self.now, Kind::KnobSample(Box::new(knobs)));
    }

    /// The kernel's counters: `overflows` since the start of the play.
    pub(crate) fn counters(&mut self, overflows: u64) {
        let sample = CounterSample {
            netns: NETNS,
            listen_overflows: Some(10_000 + overflows),
            listen_drops: Some(20_000 + overflows),
            req_queue_full_drop: Some(0),
            req_queue_full_do_cookies: Some(0),
            ..CounterSample::default()
        };
        self.send(self.now, Kind::CounterSample(Box::new(sample)));
    }

    pub(crate) fn process(&mut self, pid: u32, comm: &str, command: &str) {
        let info = ProcessInfo {
            pid,
            comm: comm.to_owned(),
            command: Some(command.to_owned()),
            uid: Some(1000),
            container: None,
            netns: Some(NETNS),
            details: ProcessDetails::default(),
        };
        self.send(self.now, Kind::ProcessInfo(Box::new(info)));
    }

    pub(crate) fn tick(&mut self, at: u64) {
        self.send(at, Kind::Tick);
    }

    /// Ticks every second until `at`.
    pub(crate) fn ticks_until(&mut self, at: u64) {
        let mut next = self.now / 1000 * 1000 + 1000;
        while next <= at {
            self.tick(next);
            next += 1000;
        }
    }

    pub(crate) fn end(&mut self) {
        self.send(self.now, Kind::End);
    }

    /// The only finding of the play, as it was last told.
    pub(crate) fn only(&self) -> &Finding {
        let last = self.findings.last().expect("a finding");
        let wrong: Vec<&Finding> = self.findings.iter().filter(|finding| finding.id != last.id).collect();
        assert!(wrong.is_empty(), "more than one finding: {wrong:#?}");
        last
    }

    /// The only finding of that code, as it was last told.
    pub(crate) fn only_of(&self, code: &str) -> &Finding {
        let of_code = || self.findings.iter().filter(|finding| finding.code == code);
        let last = of_code().next_back().expect("a finding of that code");
        assert!(
            of_code().all(|finding| finding.id == last.id),
            "more than one finding: {:#?}",
            self.findings
        );
        last
    }

    /// The codes of all findings, each once, in order.
    pub(crate) fn codes(&self) -> Vec<&'static str> {
        let codes: std::collections::BTreeSet<_> = self.findings.iter().map(|finding| finding.code).collect();
        codes.into_iter().collect()
    }

    pub(crate) fn json(finding: &Finding) -> serde_json::Value {
        serde_json::to_value(crate::output::json::FindingLine::from(finding)).unwrap()
    }
}

pub(crate) fn coverage(tier: Tier, status: ObservationStatus) -> Coverage {
    let names = [
        "listen",
        "backlog",
        "listener-closed",
        "syn-drop",
        "cookie",
        "synack-retransmit",
        "request-end",
        "ack-drop",
        "enqueue",
        "accept",
        "bind-fail",
    ];
    Coverage {
        kernel: "6.12.1".to_owned(),
        architecture: "x86_64".to_owned(),
        tier,
        observations: names
            .into_iter()
            .map(|name| Observation {
                name: name.to_owned(),
                status,
                via: format!("fexit {name}"),
                reason: None,
            })
            .collect(),
        ..Coverage::default()
    }
}

/// A listener and its kernel-side counts, which makes the events that a real one would.
pub(crate) struct Server {
    pub(crate) sk: u64,
    pub(crate) inode: u64,
    pub(crate) local: &'static str,
    pub(crate) limit: u32,
    pub(crate) depth: u32,
    pub(crate) totals: ListenerTotals,
    /// The kernel's `sk_drops`.
    pub(crate) socket_drops: u64,
    /// Histogram of accept waits.
    waits: Vec<u64>,
    clients: u32,
}

impl Server {
    pub(crate) fn new(sk: u64, local: &'static str, limit: u32) -> Self {
        Self {
            sk,
            inode: sk + 1000,
            local,
            limit,
            depth: 0,
            totals: ListenerTotals::ZERO,
            socket_drops: 0,
            waits: vec![0; HISTOGRAM_BUCKETS],
            clients: 0,
        }
    }

    pub(crate) fn listener(&self) -> ListenerRef {
        ListenerRef { sk: self.sk, inode: self.inode, depth: self.depth, limit: self.limit, syn_queue: 0 }
    }

    pub(crate) fn listen(&self, play: &mut Play, task: Task, backlog: Option<u32>, somaxconn: u32) {
        let listen = Listen {
            endpoints: place(self.local),
            listener: self.listener(),
            task,
            backlog,
            somaxconn: Some(somaxconn),
            options: SocketOptions::NONE,
            again: false,
        };
        play.send(play.now, Kind::Listen(Box::new(listen)));
    }

    /// A client connects: it is queued, or its SYN is dropped; returns whether it was dropped.
    pub(crate) fn client(&mut self) -> bool {
        self.clients += 1;
        bump(&mut self.totals.syns, 1);
        if self.depth > self.limit {
            bump(&mut self.totals.syn_drops_accept_queue, 1);
            self.socket_drops += 1;
            return true;
        }
        self.depth += 1;
        self.totals.depth_max = self.totals.depth_max.max(Some(self.depth));
        bump(&mut self.totals.enqueued, 1);
        false
    }

    /// A thread accepts, if somebody waits.
    pub(crate) fn accept(&mut self, at: u64, acceptor: Acceptor, wait_ms: u64) {
        if self.depth == 0 {
            return;
        }
        self.depth -= 1;
        bump(&mut self.totals.accepted, 1);
        bump(&mut self.totals.waits, 1);
        self.waits[bucket_of(wait_ms * 1_000_000)] += 1;
        bump(&mut self.totals.wait_total_ns, wait_ms * 1_000_000);
        self.totals.wait_max_ns = self.totals.wait_max_ns.max(Some(wait_ms * 1_000_000));
        self.totals.last_accept = Some(ms(at));
        self.totals.last_acceptor = Some(acceptor);
    }

    fn endpoints(&self) -> Endpoints {
        let [_, b, c, d] = self.clients.to_be_bytes();
        Endpoints { remote: Some(SocketAddr::from(([10, b, c, d], 40000))), ..place(self.local) }
    }

    pub(crate) fn syn_drop(&self) -> Kind {
        Kind::SynDrop(SynDrop {
            endpoints: self.endpoints(),
            listener: self.listener(),
            cause: SynDropCause::AcceptQueue,
            syncookies: 1,
            total: self.totals.syn_drops_accept_queue.unwrap(),
        })
    }

    /// A final ACK is dropped.
    pub(crate) fn ack_drop(&mut self) -> Kind {
        bump(&mut self.totals.ack_drops_accept_queue, 1);
        self.socket_drops += 2;
        Kind::AckDrop(AckDrop {
            endpoints: self.endpoints(),
            listener: self.listener(),
            cause: AckDropCause::AcceptQueue,
            total: self.totals.ack_drops_accept_queue.unwrap(),
        })
    }

    pub(crate) fn sample(&self) -> Kind {
        Kind::ListenerSample(Box::new(ListenerSample {
            endpoints: place(self.local),
            listener: self.listener(),
            source: SampleSource::Observed,
            totals: self.totals,
            waits: Some(Distribution::from_counts(self.waits.iter().copied())),
            handshakes: None,
        }))
    }

    /// What sock_diag shows.
    pub(crate) fn polled_sample(&self) -> Kind {
        Kind::ListenerSample(Box::new(ListenerSample {
            endpoints: place(self.local),
            listener: ListenerRef { sk: 0, ..self.listener() },
            source: SampleSource::Polled,
            totals: ListenerTotals {
                socket_drops: Some(self.socket_drops),
                syn_queue_max: self.totals.syn_queue_max,
                deferred: self.totals.deferred.filter(|deferred| *deferred > 0),
                ..ListenerTotals::default()
            },
            waits: None,
            handshakes: None,
        }))
    }

    /// What the tracepoint tier counts by port.
    pub(crate) fn port_sample(&self) -> Kind {
        let port = u64::from(address(self.local).port());
        let by_port = ListenerTotals { syns: Some(0), syn_drops_accept_queue: Some(0), ..self.totals };
        Kind::ListenerSample(Box::new(ListenerSample {
            endpoints: place(self.local),
            listener: ListenerRef { sk: u64::from(NETNS) << 16 | port, ..ListenerRef::default() },
            source: SampleSource::Observed,
            totals: by_port,
            waits: None,
            handshakes: None,
        }))
    }

    pub(crate) fn closed(&self, task: Task) -> Kind {
        Kind::ListenerClosed(Box::new(ListenerClosed {
            endpoints: place(self.local),
            listener: self.listener(),
            task,
            exiting: None,
            by_kernel: false,
            last: Some(self.totals),
        }))
    }

    /// Clients come every `client_every` ms, one thread accepts every `accept_every` ms (never, if 0), until `until`.
    /// Every drop is sent; samples, counters and ticks once a second.
    pub(crate) fn run(&mut self, play: &mut Play, client_every: u64, accept_every: u64, until: u64) {
        let from = play.now;
        for at in from + 1..=until {
            if accept_every != 0 && at % accept_every == 0 {
                let wait = u64::from(self.depth) * accept_every;
                self.accept(at, Acceptor { pid: 6039, tid: 6040 }, wait);
            }
            if at % client_every == 0 && self.client() {
                play.send(at, self.syn_drop());
            }
            if at % 1000 == 0 {
                play.send(at, self.sample());
                play.now = at;
                play.counters(self.overflows());
                play.tick(at);
            }
        }
        play.now = until;
    }

    pub(crate) fn overflows(&self) -> u64 {
        self.totals.syn_drops_accept_queue.unwrap() + self.totals.ack_drops_accept_queue.unwrap()
    }
}

fn bump(counter: &mut Option<u64>, by: u64) {
    *counter = Some(counter.unwrap() + by);
}

/// A holder in the kernel's table.
pub(crate) fn holder(local: &str, state: SocketState, how: How, who: Option<Task>) -> Holder {
    Holder {
        endpoints: place(local),
        taker: who.map(|task| Taker { task, since: ms(1), released: None, how, bootstrapped: false }),
        sk: 77,
        inode: if state == SocketState::TimeWait { 0 } else { 4711 },
        uid: (state != SocketState::TimeWait).then_some(1000),
        state,
        options: Some(SocketOptions::NONE),
        found: Found::BindHash,
    }
}

pub(crate) fn bind_fail(local: &str, who: Task, holders: Vec<Holder>) -> BindFail {
    BindFail {
        endpoints: place(local),
        task: who,
        sk: 99,
        errno: 98,
        stage: BindStage::Bind,
        options: SocketOptions::from_bits(1),
        holders_met: u32::try_from(holders.len()).unwrap(),
        reuse_state: None,
        own_range: None,
        addresses: None,
        unusable: None,
        ipv6_off: None,
        holders,
    }
}
