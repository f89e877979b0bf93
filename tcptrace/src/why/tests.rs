//! Each cause by the facts that speak for it: exactly that verdict.

use std::sync::Arc;
use std::time::Duration;

use super::facts::{ClosedListener, LeftOver, Waiting};
use super::steered::{Known, Steered};
use super::testing::{HERE, address, blocked_in, facts, listener, owner, remote, thread};
use super::*;
use crate::event::{CounterSample, FoundRule, ListenerTotals, NetfilterQueue, RuleDeed, Timestamp};
use crate::finding::Confidence::{self, Certain, Likely, Possible};
use crate::finding::{Evidence, ExplainedBy, Finding, Party, Remedy, Severity, State};
use crate::host::devices::Device;
use crate::host::route::{Nowhere, Route};
use crate::identity::state::RunState;
use crate::stock::{Gap, HalfOpen, Listener, Traced};

fn verdict(facts: &Facts) -> (&'static str, Confidence, Option<bool>) {
    let answer = judge(facts, &facts.addresses.as_ref().unwrap()[0]);
    (answer.verdict.verdict, answer.verdict.confidence, answer.healthy)
}

fn of(address: AddressFacts, listeners: Vec<Listener>) -> (&'static str, Confidence, Option<bool>) {
    verdict(&facts(vec![address], listeners))
}

fn probed(mut address: AddressFacts, probe: ProbeOutcome) -> AddressFacts {
    address.probe = Some(probe);
    address
}

fn no_answer() -> ProbeOutcome {
    ProbeOutcome::NoAnswer(Duration::from_secs(3))
}

fn refused() -> ProbeOutcome {
    ProbeOutcome::Failed { errno: libc::ECONNREFUSED, after: Duration::from_millis(1) }
}

/// Set up, with this fate at its other end.
fn ended(fate: Fate) -> ProbeOutcome {
    let place = (fate != Fate::NotSeen).then_some(Place { netns: HERE, name: None, own: true });
    let at = "10.0.0.1:80".parse().unwrap();
    let end = FarEnd { at, place, fate, watched: Duration::from_millis(1200), unread: Vec::new() };
    ProbeOutcome::Connected { after: Duration::from_millis(1), end: Some(end) }
}

/// Set up, and accepted by a program.
fn connected() -> ProbeOutcome {
    ended(Fate::Accepted(Some("server[100]".to_owned())))
}

/// Set up by the kernel alone.
fn kept_waiting() -> ProbeOutcome {
    ended(Fate::Waiting)
}

#[test]
fn routes_that_lead_nowhere() {
    for (how, expected) in [
        (Nowhere::NoRoute, "no-route"),
        (Nowhere::Blackhole, "blackhole-route"),
        (Nowhere::Unreachable, "unreachable-route"),
        (Nowhere::Prohibit, "prohibit-route"),
    ] {
        let mut to = remote("192.0.2.1:80");
        to.route = Ok(Route::Nowhere(how));
        assert_eq!(of(to, vec![]), (expected, Certain, Some(false)));
    }
}

#[test]
fn a_server_without_a_route_back() {
    let back = |route| {
        let source = "10.0.0.9".parse().unwrap();
        AddressFacts { way_back: Some((source, route)), ..address("10.0.0.1:80") }
    };
    let listeners = || vec![listener("0.0.0.0:80")];
    assert_eq!(
        of(back(Route::Nowhere(Nowhere::NoRoute)), listeners()),
        ("no-route-back", Certain, Some(false))
    );
    let fine = Route::Unicast { gateway: None, device: 2, source: None };
    assert_eq!(of(back(fine), listeners()).0, "no-fault-found");
}

#[test]
fn no_process_listens_or_one_elsewhere() {
    assert_eq!(of(address("10.0.0.1:80"), vec![]), ("no-listener", Certain, Some(false)));
    assert_eq!(
        of(address("10.0.0.1:80"), vec![listener("127.0.0.1:80")]),
        ("wrong-address", Certain, Some(false))
    );
    assert_eq!(
        of(address("10.0.0.1:80"), vec![listener("[::1]:80")]),
        ("other-family", Certain, Some(false))
    );
    let mut v6only = listener("[::]:80");
    v6only.socket.v6only = Some(true);
    assert_eq!(of(address("10.0.0.1:80"), vec![v6only]), ("other-family", Certain, Some(false)));
    let mut elsewhere = listener("0.0.0.0:80");
    elsewhere.netns = HERE + 1;
    assert_eq!(of(address("10.0.0.1:80"), vec![elsewhere.clone()]), ("other-netns", Likely, Some(false)));
    // Another container's own address has nothing to do with it.
    elsewhere.socket.local = "172.17.0.9:80".parse().unwrap();
    assert_eq!(of(address("10.0.0.1:80"), vec![elsewhere]), ("no-listener", Certain, Some(false)));
    // What refuses is the same as what is not there.
    assert_eq!(of(probed(address("10.0.0.1:80"), refused()), vec![]), ("no-listener", Certain, Some(false)));
}

#[test]
fn what_could_not_be_looked_at_makes_unsure() {
    let mut blind = facts(vec![address("10.0.0.1:80")], vec![]);
    blind.gaps.push(Gap::new("listeners", "refused"));
    assert_eq!(verdict(&blind), ("no-listener", Likely, Some(false)));
}

#[test]
fn a_listener_that_went_away() {
    let mut to = address("10.0.0.1:80");
    to.left_over = LeftOver { connected: 3, bound: 0 };
    assert_eq!(of(to.clone(), vec![]), ("listener-exited", Likely, Some(false)));
    // In the ephemeral range these may be clients' own connections.
    let mut ephemeral = address("10.0.0.1:40000");
    ephemeral.left_over = to.left_over;
    assert_eq!(of(ephemeral, vec![]), ("no-listener", Certain, Some(false)));
    let mut watched = facts(vec![address("10.0.0.1:80")], vec![]);
    watched.seen = Some(Seen {
        closed: vec![ClosedListener {
            netns: HERE,
            local: "0.0.0.0:80".parse().unwrap(),
            when: "12:00:00".into(),
            who: Some("nginx[17]".into()),
            exiting: Some(true),
        }],
        ..Seen::default()
    });
    assert_eq!(verdict(&watched), ("listener-exited", Certain, Some(false)));
    let text = judge(&watched, &address("10.0.0.1:80")).verdict.text;
    assert!(text.contains("nginx[17] exited at 12:00:00"), "{text}");
    // It has come back.
    watched.listeners = vec![listener("0.0.0.0:80")];
    assert!(judge(&watched, &address("10.0.0.1:80")).steps.iter().all(|step| step.found.text() != text));
}

#[test]
fn bound_and_not_listening() {
    let mut to = address("10.0.0.1:80");
    to.left_over = LeftOver { connected: 0, bound: 1 };
    assert_eq!(of(to, vec![]), ("bound-not-listening", Certain, Some(false)));
}

fn full() -> Listener {
    let mut full = listener("0.0.0.0:80");
    (full.socket.depth, full.socket.limit, full.limit.limit) = (21, 20, 20);
    full
}

#[test]
fn queues_that_drop_explain_silence() {
    assert_eq!(of(address("10.0.0.1:80"), vec![full()]), ("accept-queue-full", Certain, Some(false)));
    assert_eq!(
        of(probed(address("10.0.0.1:80"), no_answer()), vec![full()]),
        ("accept-queue-full", Certain, Some(false))
    );
    let mut half = listener("0.0.0.0:80");
    half.socket.limit = 20;
    half.half_open = Some(HalfOpen { requests: 21, ..HalfOpen::default() });
    // With cookies SYNs are answered all the same.
    assert_eq!(
        of(probed(address("10.0.0.1:80"), connected()), vec![half.clone()]),
        ("answers", Certain, Some(true))
    );
    Arc::make_mut(&mut half.knobs).tcp_syncookies = Some(0);
    assert_eq!(
        of(probed(address("10.0.0.1:80"), no_answer()), vec![half]),
        ("syn-queue-full", Certain, Some(false))
    );
}

#[test]
fn a_stopped_process_is_the_cause_and_not_the_queue_that_it_fills() {
    let mut stopped = full();
    stopped.owners = vec![owner(7, "server", &[3], vec![thread(RunState::Stopped)])];
    assert_eq!(of(address("10.0.0.1:80"), vec![stopped.clone()]), ("process-stopped", Certain, Some(false)));
    // The kernel answers for it as long as there is room.
    (stopped.socket.depth, stopped.socket.limit) = (1, 20);
    assert_eq!(
        of(probed(address("10.0.0.1:80"), kept_waiting()), vec![stopped]),
        ("process-stopped", Certain, Some(false))
    );
}

#[test]
fn drops_and_rejections_on_the_way_to_a_listener_with_room() {
    let healthy = || vec![listener("0.0.0.0:80")];
    assert_eq!(
        of(probed(address("10.0.0.1:80"), no_answer()), healthy()),
        ("dropped-on-this-host", Likely, Some(false))
    );
    assert_eq!(of(probed(address("10.0.0.1:80"), refused()), healthy()), ("rejected", Likely, Some(false)));
    // By ICMP.
    let prohibited = ProbeOutcome::Failed { errno: libc::EHOSTUNREACH, after: Duration::from_millis(1) };
    assert_eq!(of(probed(address("10.0.0.1:80"), prohibited), healthy()), ("rejected", Likely, Some(false)));
    let mut waiting = address("10.0.0.1:80");
    waiting.pending = Pending { syn_sent: 2, syn_again: 1, established: 0 };
    assert_eq!(of(waiting, healthy()), ("dropped-on-this-host", Likely, Some(false)));
    let mut filtered = facts(vec![probed(address("10.0.0.1:80"), no_answer())], healthy());
    let counters = CounterSample { rp_filter_drops: Some(3), ..CounterSample::default() };
    filtered.seen = Some(Seen { counters: vec![(HERE, counters)], ..Seen::default() });
    assert_eq!(verdict(&filtered), ("rp-filter", Likely, Some(false)));
}

/// A finding about this address, as a trace would tell it.
fn finding(code: &'static str, at: &str, netns: u32) -> Finding {
    Finding {
        id: 1,
        code,
        state: State::Opened,
        severity: Severity::Critical,
        confidence: Certain,
        explained_by: None,
        time: Timestamp::default(),
        title: "it happens".to_owned(),
        subject: Party {
            kind: "listener",
            address: Some(at.parse().unwrap()),
            netns: Some(netns),
            ..Party::default()
        },
        cause: "netfilter",
        evidence: Evidence::new(),
        remedy: vec![Remedy::text("mend it")],
        numbers: vec![],
        explanation: "so it is".to_owned(),
    }
}

fn with_finding(mut address: AddressFacts, probe: Option<ProbeOutcome>, finding: Finding) -> Facts {
    address.probe = probe;
    let mut facts = facts(vec![address], vec![listener("0.0.0.0:80")]);
    facts.seen = Some(Seen { findings: vec![finding], ..Seen::default() });
    facts
}

#[test]
fn findings_of_the_time_watched_decide() {
    let to = || address("10.0.0.1:80");
    let dropped = |at: &str| finding("handshake-dropped", at, HERE);
    let facts = with_finding(to(), Some(no_answer()), dropped("10.0.0.1:80"));
    assert_eq!(verdict(&facts), ("handshake-dropped", Certain, Some(false)));
    let answer = judge(&facts, &to());
    assert_eq!(answer.verdict.remedy, [Remedy::text("mend it")]);
    assert_eq!(answer.verdict.text, "it happens (netfilter: so it is)");
    // Others are kept out, we are not.
    let others = with_finding(to(), Some(connected()), dropped("10.0.0.1:80"));
    assert_eq!(verdict(&others), ("answers", Certain, Some(true)));
    // Now and then the queue overflows, even if we got in.
    for code in ["accept-queue-overflow", "accept-stall", "slow-accept", "half-open-capture"] {
        let facts = with_finding(to(), Some(connected()), finding(code, "0.0.0.0:80", HERE));
        assert_eq!(verdict(&facts), (code, Certain, Some(false)), "{code}");
    }
    // Who listened before, longer ago than listeners are remembered.
    let mut gone = with_finding(
        to(),
        Some(refused()),
        Finding { cause: "listener-exited", ..finding("no-listener", "10.0.0.1:80", HERE) },
    );
    gone.listeners.clear();
    assert_eq!(verdict(&gone), ("listener-exited", Certain, Some(false)));
    let said_by = |errno| {
        let unanswered = finding("syn-unanswered", "192.0.2.1:80", HERE);
        let evidence = Evidence::new().with("errno", errno);
        verdict(&with_finding(remote("192.0.2.1:80"), None, Finding { evidence, ..unanswered })).0
    };
    assert_eq!((said_by("EHOSTUNREACH"), said_by("ETIMEDOUT")), ("unreachable", "no-answer"));
    // Those of other addresses, ports and namespaces are not about this one.
    for (at, netns) in [("10.0.0.2:80", HERE), ("10.0.0.1:81", HERE), ("0.0.0.0:80", HERE + 1)] {
        let facts = with_finding(to(), Some(connected()), finding("accept-queue-overflow", at, netns));
        assert_eq!(verdict(&facts), ("answers", Certain, Some(true)), "{at} {netns}");
    }
    let refused =
        with_finding(remote("192.0.2.1:80"), None, finding("connect-refused", "192.0.2.1:80", HERE));
    assert_eq!(verdict(&refused), ("refused", Certain, Some(false)));
}

#[test]
fn what_another_finding_explains_leaves_the_verdict_to_it() {
    let to = || address("10.0.0.1:80");
    let likely = Finding {
        confidence: Likely,
        cause: "cgroup-filter",
        ..finding("handshake-dropped", "0.0.0.0:80", HERE)
    };
    let by = ExplainedBy {
        id: 1,
        code: "handshake-dropped",
        headline: String::new(),
        severity: Severity::Critical,
    };
    for code in ["syn-unanswered", "connect-refused"] {
        let explained = Finding {
            id: 2,
            explained_by: Some(by.clone()),
            remedy: vec![],
            ..finding(code, "10.0.0.1:80", HERE)
        };
        let mut facts = with_finding(to(), None, likely.clone());
        facts.seen.as_mut().unwrap().findings.push(explained.clone());
        assert_eq!(verdict(&facts), ("handshake-dropped", Likely, Some(false)), "{code}");
        // Where no step reports what explains it, it is the verdict itself.
        assert_ne!(verdict(&with_finding(to(), None, explained)).0, "handshake-dropped", "{code}");
    }
}

#[test]
fn one_packet_that_is_dropped_counts_unless_others_get_through() {
    let evidence = || Evidence::new().with("dropped", 1_u64);
    let one = || Finding { evidence: evidence(), ..finding("handshake-dropped", "0.0.0.0:80", HERE) };
    let rejected = ProbeOutcome::Failed { errno: libc::EHOSTUNREACH, after: Duration::from_millis(1) };
    let ours = with_finding(address("10.0.0.1:80"), Some(rejected), one());
    assert_eq!(verdict(&ours), ("handshake-dropped", Certain, Some(false)));
    let mut others = with_finding(address("10.0.0.1:80"), None, one());
    assert_eq!(verdict(&others), ("handshake-dropped", Certain, Some(false)));
    others.listeners[0].traced = traced(ListenerTotals { accepted: Some(7), ..ListenerTotals::default() });
    assert_eq!(verdict(&others), ("answers", Likely, Some(true)));
}

#[test]
fn nothing_arrives_is_not_said_of_a_client_that_tried() {
    let mut tried = facts(vec![probed(address("10.0.0.1:80"), refused())], vec![listener("0.0.0.0:80")]);
    tried.listeners[0].traced = traced(ListenerTotals::ZERO);
    tried.seen = Some(Seen::default());
    let answer = judge(&tried, &tried.addresses.as_ref().unwrap()[0]);
    let problem = |step: &Step| matches!(&step.found, Found::Problem(of) if of.verdict == "nothing-arrives");
    assert!(!answer.steps.iter().any(problem), "{answer:?}");
}

#[test]
fn a_full_queue_of_a_program_that_does_not_accept_is_no_matter_of_workers() {
    let stalled = Finding { cause: "accept-stalled", confidence: Likely, ..overflow() };
    let mut facts = with_finding(address("10.0.0.1:80"), None, stalled);
    facts.listeners = vec![full()];
    assert_eq!(verdict(&facts), ("accept-queue-overflow", Likely, Some(false)));
    // It is full, and its program accepts.
    let mut busy = with_finding(address("10.0.0.1:80"), None, overflow());
    busy.listeners = vec![full()];
    assert_eq!(verdict(&busy), ("accept-queue-full", Certain, Some(false)));
    // At one look: all its threads sleep in their event loop while connections wait.
    let waiting = Waiting { count: 21, longest: Duration::from_secs(4) };
    let asleep = |threads| {
        let mut asleep = full();
        asleep.owners = vec![owner(100, "haproxy", &[3], threads)];
        of(AddressFacts { waiting, ..address("10.0.0.1:80") }, vec![asleep]).0
    };
    let polls = || blocked_in(libc::SYS_epoll_pwait, 4);
    assert_eq!(asleep(vec![polls(), polls()]), "not-accepting");
    assert_eq!(asleep(vec![polls(), thread(RunState::Running)]), "accept-queue-full");
}

#[test]
fn a_netfilter_queue_may_hold_what_no_probe_sees_dropped() {
    let queue = NetfilterQueue { number: 3, reader: 2406, waiting: 15, dropped: 0, unread: 0 };
    let here = Place { netns: HERE, name: None, own: true };
    let held = |probe| AddressFacts { holding: vec![(here.clone(), queue)], probe, ..address("10.0.0.1:80") };
    let listening = || vec![listener("0.0.0.0:80")];
    assert_eq!(of(held(Some(no_answer())), listening()), ("nfqueue-held", Likely, Some(false)));
    // An answer, a full queue: nothing is held back.
    assert_eq!(of(held(Some(connected())), listening()).0, "answers");
    assert_eq!(of(held(Some(no_answer())), vec![full()]).0, "accept-queue-full");
}

fn overflow() -> Finding {
    finding("accept-queue-overflow", "0.0.0.0:80", HERE)
}

#[test]
fn other_hosts() {
    // Without probes it may be this host itself that drops it.
    assert_eq!(of(probed(remote("192.0.2.1:80"), no_answer()), vec![]), ("no-answer", Likely, Some(false)));
    let watched = |rewriting: &[&str]| {
        let mut to = probed(remote("192.0.2.1:80"), no_answer());
        to.steered.rewriting = rewriting.iter().map(|what| (*what).to_owned()).collect();
        let mut facts = facts(vec![to], vec![]);
        facts.seen = Some(Seen { sees_drops: true, ..Seen::default() });
        verdict(&facts)
    };
    assert_eq!(watched(&[]), ("no-answer", Certain, Some(false)));
    assert_eq!(watched(&["an XDP program on device eth0"]), ("no-answer", Likely, Some(false)));
    assert_eq!(of(probed(remote("192.0.2.1:80"), refused()), vec![]), ("refused", Certain, Some(false)));
    // The other host's kernel has answered; whether a program has accepted is not seen from here.
    assert_eq!(
        of(probed(remote("192.0.2.1:80"), ended(Fate::NotSeen)), vec![]),
        ("answers", Likely, Some(true))
    );
    let unreachable = ProbeOutcome::Failed { errno: libc::EHOSTUNREACH, after: Duration::from_secs(3) };
    assert_eq!(
        of(probed(remote("192.0.2.1:80"), unreachable), vec![]),
        ("unreachable", Certain, Some(false))
    );
    let mut silent = remote("192.0.2.1:80");
    silent.pending = Pending { syn_sent: 2, syn_again: 2, established: 0 };
    assert_eq!(of(silent.clone(), vec![]), ("no-answer", Likely, Some(false)));
    silent.pending.established = 1;
    assert_eq!(of(silent, vec![]), ("answers", Possible, Some(true)));
    assert_eq!(of(remote("192.0.2.1:80"), vec![]), ("no-fault-found", Possible, None));
    // A listener here has nothing to do with a port there.
    assert_eq!(of(remote("192.0.2.1:80"), vec![full()]), ("no-fault-found", Possible, None));
}

fn traced(totals: ListenerTotals) -> Option<Traced> {
    Some(Traced {
        span: Duration::from_secs(10),
        accepted_then: totals.accepted,
        totals,
        source: None,
        inferred_drops: 0,
        waits: None,
        handshakes: None,
        acceptors: 0,
        last_acceptor: None,
    })
}

#[test]
fn nothing_arrives_or_it_is_served() {
    let mut idle = listener("0.0.0.0:80");
    idle.traced = traced(ListenerTotals::ZERO);
    let mut watched = facts(vec![address("10.0.0.1:80")], vec![idle]);
    watched.seen = Some(Seen { span: Duration::from_secs(10), ..Seen::default() });
    // As of every idle server: no sign of a fault.
    assert_eq!(verdict(&watched), ("nothing-arrives", Possible, None));
    watched.listeners[0].traced =
        traced(ListenerTotals { syns: Some(5), accepted: Some(5), ..ListenerTotals::ZERO });
    assert_eq!(verdict(&watched), ("answers", Likely, Some(true)));
    // Without the probes nothing can be said of arrivals.
    watched.listeners[0].traced = traced(ListenerTotals::default());
    assert_eq!(verdict(&watched), ("no-fault-found", Possible, None));
}

#[test]
fn a_healthy_listener_is_called_so() {
    assert_eq!(
        of(probed(address("10.0.0.1:80"), connected()), vec![listener("0.0.0.0:80")]),
        ("answers", Certain, Some(true))
    );
}

/// Connections to it are led to another address by a rule.
fn led(to: &str, seen: bool) -> AddressFacts {
    let known = Known {
        to: to.parse().unwrap(),
        by: "DNAT by a rule".to_owned(),
        seen,
        at: Place { netns: HERE, name: None, own: true },
        is_neighbour: true,
        ends_there: false,
    };
    AddressFacts { steered: Steered { known: Some(known), ..Steered::default() }, ..address("10.0.0.1:80") }
}

fn text_of(facts: &Facts) -> String {
    judge(facts, &facts.addresses.as_ref().unwrap()[0]).verdict.text
}

#[test]
fn a_translated_port_is_judged_where_it_ends() {
    let end = || listener("0.0.0.0:8080");
    let to = probed(led("172.17.0.2:8080", true), connected());
    assert_eq!(of(to.clone(), vec![end()]), ("answers", Certain, Some(true)));
    // A full queue there explains silence here; the called port has no listener, and needs none.
    let mut busy = full();
    busy.socket.local = "0.0.0.0:8080".parse().unwrap();
    assert_eq!(of(led("172.17.0.2:8080", true), vec![busy]), ("accept-queue-full", Certain, Some(false)));
    let gone = facts(vec![probed(led("172.17.0.2:8080", true), refused())], vec![]);
    assert_eq!(verdict(&gone), ("no-listener", Certain, Some(false)));
    let text = text_of(&gone);
    assert!(text.contains("port 8080") && text.contains("still leads connections to 10.0.0.1:80"), "{text}");
    // Another container's listener of the same port has nothing to do with it.
    let mut other = end();
    other.netns = HERE + 1;
    let to = probed(led("172.17.0.2:8080", true), refused());
    assert_eq!(of(to, vec![other]), ("no-listener", Certain, Some(false)));
    // What a rule says was not seen to happen.
    assert_eq!(of(led("172.17.0.2:8080", false), vec![]), ("no-listener", Likely, Some(false)));
}

#[test]
fn programs_at_a_device_of_the_way_leave_it_open_where_connections_end() {
    let mut to = probed(address("10.0.0.1:80"), refused());
    to.steered.rewriting.push("filters of traffic control (bpf) on device lo".to_owned());
    assert_eq!(of(to.clone(), vec![]), ("no-listener", Likely, Some(false)));
    let text = text_of(&facts(vec![to], vec![]));
    assert!(text.contains("on device lo may rewrite packets"), "{text}");
}

#[test]
fn a_listener_outside_of_the_vrf_takes_nothing_of_it() {
    let of_vrf = |accept, bound| {
        let vrf =
            Device { index: 9, name: "red".to_owned(), kind: Some("vrf".to_owned()), ..Device::default() };
        let arrival = Device { index: 3, master: Some(9), ..Device::default() };
        let mut to = AddressFacts { vrf: Some(vrf), arrival: Some(arrival), ..address("10.0.0.1:80") };
        to.knobs.tcp_l3mdev_accept = accept;
        let mut there = listener("0.0.0.0:80");
        there.socket.ifindex = bound;
        of(probed(to, refused()), vec![there]).0
    };
    assert_eq!(of_vrf(Some(0), 0), "other-device");
    assert_ne!(of_vrf(Some(1), 0), "other-device");
    assert_ne!(of_vrf(Some(0), 9), "other-device");
}

#[test]
fn another_host_may_have_the_address_of_a_namespace() {
    let doubtful = |probe| AddressFacts {
        server_doubt: Some("another host may have the same address".to_owned()),
        ..probed(address("10.0.0.1:80"), probe)
    };
    assert_eq!(of(doubtful(refused()), vec![]), ("no-listener", Likely, Some(false)));
    assert_eq!(of(doubtful(refused()), vec![full()]).1, Likely);
    let text = text_of(&facts(vec![doubtful(refused())], vec![]));
    assert!(text.contains("not certain, because another host"), "{text}");
    // Our own connection ended there.
    assert_eq!(of(doubtful(kept_waiting()), vec![full()]), ("accept-queue-full", Certain, Some(false)));
}

#[test]
fn programs_that_change_what_is_called_leave_a_missing_route_likely() {
    let mut to = remote("192.0.2.1:80");
    to.route = Ok(Route::Nowhere(Nowhere::NoRoute));
    to.steered.may_rewrite_connects = true;
    assert_eq!(of(to, vec![]), ("no-route", Likely, Some(false)));
}

#[test]
fn a_connection_that_waits_where_no_listener_is_known_is_not_accepted() {
    let mut to = probed(address("10.0.0.1:80"), kept_waiting());
    to.steered.may.push("a program".to_owned());
    assert_eq!(of(to, vec![]), ("not-accepting", Likely, Some(false)));
    // What is left of connections is no sign of a listener that has gone, where another one may be chosen for the port.
    let mut left = address("10.0.0.1:80");
    left.left_over.connected = 2;
    assert_eq!(of(left.clone(), vec![]).0, "listener-exited");
    left.steered.may.push("a program".to_owned());
    assert_eq!(of(left, vec![]), ("no-listener", Possible, Some(false)));
}

#[test]
fn what_is_closed_without_a_byte_is_not_served() {
    let closed = || ended(Fate::Closed(Some("node[7]".to_owned())));
    let to = probed(address("10.0.0.1:80"), closed());
    assert_eq!(of(to.clone(), vec![listener("0.0.0.0:80")]), ("closed-at-once", Likely, Some(false)));
    assert!(text_of(&facts(vec![to], vec![listener("0.0.0.0:80")])).contains("by node[7]"));
    assert_eq!(
        of(probed(address("10.0.0.1:80"), ended(Fate::Answered)), vec![listener("0.0.0.0:80")]),
        ("answers", Certain, Some(true))
    );
}

#[test]
fn a_finding_about_many_servers_is_about_each_of_them() {
    let about = |server: &str| {
        let party = Party { kind: "destination", address: Some(server.parse().unwrap()), ..Party::default() };
        let mut shared = finding("handshake-dropped", "10.0.0.9:9", HERE);
        shared.subject.address = None;
        shared.evidence = Evidence::new().with("servers", vec![party]);
        verdict(&with_finding(address("10.0.0.1:80"), None, shared)).0
    };
    assert_eq!(about("10.0.0.1:80"), "handshake-dropped");
    assert_ne!(about("10.0.0.1:81"), "handshake-dropped");
    assert_ne!(about("10.0.0.2:80"), "handshake-dropped");
}

#[test]
fn a_translation_to_an_address_that_no_namespace_has() {
    let gone = |probe| {
        let mut to = led("172.17.0.2:8080", true);
        (to.server, to.probe) = (None, Some(probe));
        of(to, vec![])
    };
    assert_eq!(gone(no_answer()), ("translation-target-gone", Likely, Some(false)));
    // By RST the address has answered: what is there is not seen from here.
    assert_eq!(gone(refused()), ("refused", Certain, Some(false)));
    // Another host behind it.
    assert_eq!(gone(ended(Fate::NotSeen)), ("answers", Likely, Some(true)));
    let mut to = led("172.17.0.2:8080", true);
    (to.server, to.pending) = (None, Pending { syn_sent: 1, syn_again: 1, established: 0 });
    assert_eq!(of(to, vec![]), ("translation-target-gone", Likely, Some(false)));
}

#[test]
fn the_absence_of_a_listener_shows_nothing_where_packets_may_be_led_elsewhere() {
    let steered = |may: &[&str], unread: &[&str]| {
        let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        let steered = Steered { may: texts(may), unread: texts(unread), ..Steered::default() };
        AddressFacts { steered, ..address("10.0.0.1:80") }
    };
    assert_eq!(of(steered(&["a BPF program"], &[]), vec![]), ("no-listener", Possible, Some(false)));
    assert_eq!(of(steered(&[], &["its rules"]), vec![]), ("no-listener", Likely, Some(false)));
    // An answer outweighs it.
    let answered = probed(steered(&["a BPF program"], &[]), connected());
    assert_eq!(of(answered, vec![]), ("answers", Certain, Some(true)));
    let unseen = facts(vec![probed(address("10.0.0.1:80"), ended(Fate::NotSeen))], vec![]);
    assert_eq!(verdict(&unseen), ("answers", Likely, Some(true)));
}

#[test]
fn handshakes_that_no_program_accepts_are_no_health() {
    let queue = |depth: u32| {
        let mut listener = listener("0.0.0.0:80");
        listener.socket.depth = depth;
        listener
    };
    let kept = || probed(address("10.0.0.1:80"), kept_waiting());
    assert_eq!(of(kept(), vec![queue(1)]), ("not-accepting", Likely, Some(false)));
    // At one look: they have waited for long.
    let waits = |seconds| {
        let waiting = Waiting { count: 35, longest: Duration::from_secs(seconds) };
        AddressFacts { waiting, ..address("10.0.0.1:80") }
    };
    assert_eq!(of(waits(60), vec![queue(35)]), ("not-accepting", Likely, Some(false)));
    assert_eq!(of(waits(0), vec![queue(35)]).0, "no-fault-found");
    // Others waited all the time, and the queue never became shorter.
    let watched = |depths: &[u32]| {
        let mut facts = facts(vec![kept()], vec![queue(36)]);
        let mut seen = Seen::default();
        let at = (HERE, 1000, "0.0.0.0:80".parse().unwrap());
        depths.iter().for_each(|depth| seen.samples.note(at, *depth, 511));
        facts.seen = Some(seen);
        verdict(&facts)
    };
    assert_eq!(watched(&[35, 35, 36]), ("not-accepting", Certain, Some(false)));
    assert_eq!(watched(&[35, 34, 36]), ("not-accepting", Likely, Some(false)));
    assert_eq!(watched(&[0, 0, 1]), ("not-accepting", Likely, Some(false)));
    // Something was accepted meanwhile: it is not that it does not accept.
    let mut slow = facts(vec![kept()], vec![queue(1)]);
    slow.listeners[0].traced = traced(ListenerTotals { accepted: Some(3), ..ListenerTotals::ZERO });
    slow.seen = Some(Seen::default());
    assert_ne!(verdict(&slow).0, "not-accepting");
}

#[test]
fn what_was_dropped_before_the_probes_were_attached_is_not_nothing() {
    let said = |then: u32, now: u32| {
        let mut facts = facts(vec![address("10.0.0.1:80")], vec![listener("0.0.0.0:80")]);
        let server = &mut facts.listeners[0];
        server.traced = traced(ListenerTotals::ZERO);
        server.socket.drops = Some(now);
        let at = (server.netns, server.socket.inode, server.socket.local);
        let mut before = listener("0.0.0.0:80");
        before.socket.drops = Some(then);
        let mut seen = Seen { before: Some(vec![before]), ..Seen::default() };
        [0, 6, 0].into_iter().for_each(|depth| seen.samples.note(at, depth, 5));
        facts.seen = Some(seen);
        let answer = judge(&facts, &facts.addresses.as_ref().unwrap()[0]);
        let step = answer.steps.iter().find(|step| step.name == "accept-queue").unwrap();
        (answer.verdict.verdict, step.found.text().to_owned())
    };
    let (code, text) = said(10, 382);
    assert_eq!(code, "accept-queue-full");
    assert!(text.contains("its socket counted 372 drops in that time"), "{text}");
    let (code, text) = said(10, 10);
    assert_ne!(code, "accept-queue-full");
    assert!(text.ends_with("nothing was dropped at it"), "{text}");
}

#[test]
fn what_was_seen_contradicts_what_was_listed() {
    let mut stopped = listener("0.0.0.0:80");
    stopped.owners = vec![owner(7, "server", &[3], vec![thread(RunState::Stopped)])];
    let accepted = probed(address("10.0.0.1:80"), connected());
    assert_eq!(of(accepted, vec![stopped]), ("contradiction", Certain, None));
    // Counts that cannot be complete are said to be so: no more can have waited before than the queue holds.
    let mut watched = facts(vec![address("10.0.0.1:80")], vec![listener("0.0.0.0:80")]);
    watched.listeners[0].socket.limit = 5;
    watched.listeners[0].traced =
        traced(ListenerTotals { accepted: Some(255), enqueued: Some(178), ..ListenerTotals::ZERO });
    watched.seen = Some(Seen::default());
    let said = |limit: u32| {
        let mut facts = watched.clone();
        facts.listeners[0].socket.limit = limit;
        let answer = judge(&facts, &facts.addresses.as_ref().unwrap()[0]);
        let step = answer.steps.into_iter().find(|step| step.name == "contradiction");
        step.map(|step| step.found.text().to_owned())
    };
    let text = said(5).unwrap();
    assert!(
        text.contains("255 connections were accepted, more than were completed in that time (178)"),
        "{text}"
    );
    assert!(said(75).is_some());
    // The queue was full when counting began, whatever the look before that showed.
    assert_eq!(said(76), None);
    // Those that were accepted since the counts were read may have been completed since as well.
    watched.listeners[0].traced.as_mut().unwrap().accepted_then = Some(178);
    let answer = judge(&watched, &watched.addresses.as_ref().unwrap()[0]);
    assert!(!answer.steps.iter().any(|step| step.name == "contradiction"), "{answer:?}");
}

#[test]
fn what_the_kernel_answered_outweighs_a_listener_that_seems_to_fit() {
    let seen = |state, probe| {
        let by_vrf = Finding { cause: "other-device", state, ..finding("no-listener", "10.0.0.1:80", HERE) };
        verdict(&with_finding(address("10.0.0.1:80"), probe, by_vrf))
    };
    assert_eq!(seen(State::Opened, None), ("other-device", Certain, Some(false)));
    // Another time, or another way in.
    assert_ne!(seen(State::Closed, None).0, "other-device");
    assert_eq!(seen(State::Opened, Some(connected())), ("answers", Certain, Some(true)));
}

#[test]
fn a_queue_that_was_full_for_some_of_the_time() {
    let mut watched = facts(vec![address("10.0.0.1:80")], vec![listener("0.0.0.0:80")]);
    let mut seen = Seen::default();
    let at = (HERE, 1000, "0.0.0.0:80".parse().unwrap());
    [0, 512, 0].into_iter().for_each(|depth| seen.samples.note(at, depth, 511));
    watched.seen = Some(seen);
    assert_eq!(verdict(&watched), ("accept-queue-full", Likely, Some(false)));
    // The probes saw that nothing was lost.
    watched.listeners[0].traced = traced(ListenerTotals::ZERO);
    assert_ne!(verdict(&watched).0, "accept-queue-full");
}

#[test]
fn listeners_that_come_and_go_while_it_is_watched() {
    let watched = |before: Vec<Listener>, now: Vec<Listener>, probe| {
        let mut facts = facts(vec![probed(address("10.0.0.1:80"), probe)], now);
        facts.seen = Some(Seen { before: Some(before), ..Seen::default() });
        verdict(&facts)
    };
    let there = || vec![listener("0.0.0.0:80")];
    assert_eq!(watched(there(), vec![], refused()), ("listener-exited", Certain, Some(false)));
    assert_eq!(watched(there(), there(), refused()), ("rejected", Likely, Some(false)));
    // It was not there yet when the SYN came.
    assert_ne!(watched(vec![], there(), refused()).0, "rejected");
}

#[test]
fn a_listener_that_is_bound_to_another_device() {
    let device =
        |index, name: &str, master| Device { index, name: name.to_owned(), master, ..Device::default() };
    let mut bound = listener("0.0.0.0:80");
    bound.socket.ifindex = 5;
    let by = |arrival: Option<Device>| {
        let to = AddressFacts { arrival, ..probed(address("10.0.0.1:80"), refused()) };
        let mut facts = facts(vec![to], vec![bound.clone()]);
        facts.devices = vec![(HERE, device(5, "mgmt0", None))];
        facts
    };
    let other = by(Some(device(1, "lo", None)));
    assert_eq!(verdict(&other), ("other-device", Certain, Some(false)));
    let text = text_of(&other);
    assert!(text.contains("mgmt0") && text.contains("come by lo"), "{text}");
    // One that was closed there before is not missed: another one listens since.
    let mut restarted = other.clone();
    restarted.seen = Some(Seen {
        closed: vec![ClosedListener {
            netns: HERE,
            local: "0.0.0.0:80".parse().unwrap(),
            when: "12:00:00".into(),
            who: None,
            exiting: None,
        }],
        ..Seen::default()
    });
    assert_eq!(verdict(&restarted).0, "other-device");
    // By its own device, by one that belongs to it, or by one that is not known.
    for arrival in [Some(device(5, "mgmt0", None)), Some(device(7, "eth0", Some(5))), None] {
        assert_ne!(verdict(&by(arrival)).0, "other-device");
    }
}

/// A rule of the listener's namespace that ends every SYN of the client's.
fn ruled(deed: RuleDeed, queue: Option<u16>) -> Option<Ruled> {
    let place = "table ip filter, chain INPUT, handle 2".to_owned();
    let at = Place { netns: HERE, name: Some("web".into()), own: false };
    Some(Ruled { at, rule: FoundRule { place, deed, queue, open: None } })
}

#[test]
fn a_rule_that_every_syn_meets_is_named_even_if_no_client_tries() {
    let of = |ruled: Option<Ruled>, syns: Option<u64>| {
        let mut idle = listener("0.0.0.0:80");
        idle.traced = traced(ListenerTotals { syns, ..ListenerTotals::ZERO });
        let mut watched = facts(vec![AddressFacts { ruled, ..address("10.0.0.1:80") }], vec![idle]);
        watched.seen = Some(Seen { sees_drops: true, ..Seen::default() });
        judge(&watched, &watched.addresses.as_ref().unwrap()[0]).verdict
    };
    let verdict = of(ruled(RuleDeed::Reject, None), Some(0));
    assert_eq!((verdict.verdict, verdict.confidence), ("firewall-rule", Likely));
    assert!(
        verdict.text.contains("rejects it")
            && verdict.text.contains("chain INPUT, handle 2, in network namespace web")
    );
    assert_eq!(of(None, Some(0)).verdict, "nothing-arrives");
    // SYNs arrive all the same: it is not so of all of them.
    assert_ne!(of(ruled(RuleDeed::Drop, None), Some(3)).verdict, "firewall-rule");
    // Where connections may be led elsewhere, it may not be met.
    let mut led = AddressFacts { ruled: ruled(RuleDeed::Drop, None), ..address("10.0.0.1:80") };
    led.steered.may.push("a rule".into());
    let led = facts(vec![led], vec![listener("0.0.0.0:80")]);
    assert_ne!(judge(&led, &led.addresses.as_ref().unwrap()[0]).verdict.verdict, "firewall-rule");
}

#[test]
fn of_syns_that_are_sent_again_the_rule_that_ends_them_is_the_reason() {
    let mut waiting = AddressFacts { ruled: ruled(RuleDeed::Queue, Some(3)), ..address("10.0.0.1:80") };
    waiting.pending = Pending { syn_sent: 2, syn_again: 1, established: 0 };
    let waiting = facts(vec![waiting], vec![listener("0.0.0.0:80")]);
    let verdict = judge(&waiting, &waiting.addresses.as_ref().unwrap()[0]).verdict;
    assert_eq!((verdict.verdict, verdict.confidence), ("dropped-on-this-host", Likely));
    assert!(verdict.text.contains("netfilter queue 3, which no program reads"), "{}", verdict.text);
    assert!(verdict.remedy.iter().any(|remedy| remedy.text.contains("start the program that reads")));
}

#[test]
fn that_no_syn_came_says_nothing_of_the_firewall() {
    let mut idle = listener("0.0.0.0:80");
    idle.traced = traced(ListenerTotals::ZERO);
    let mut watched = facts(vec![address("10.0.0.1:80")], vec![idle]);
    watched.seen = Some(Seen { sees_drops: true, ..Seen::default() });
    let firewall = |facts: &Facts| {
        let answer = judge(facts, &facts.addresses.as_ref().unwrap()[0]);
        answer.steps.into_iter().find(|step| step.name == "firewall").unwrap().found
    };
    assert!(matches!(firewall(&watched), Found::Unknown { .. }));
    watched.listeners[0].traced = traced(ListenerTotals { syns: Some(2), ..ListenerTotals::ZERO });
    assert!(matches!(firewall(&watched), Found::Fine { .. }));
}

#[test]
fn an_owner_that_was_at_its_limit_of_files_when_the_watch_began() {
    let mut then = listener("0.0.0.0:80");
    then.owners = vec![owner(7, "node", &[3], vec![thread(RunState::Sleeping)])];
    let now = then.clone();
    let process = Arc::make_mut(&mut then.owners[0].process);
    process.state.as_mut().unwrap().open_files = Some(1024);
    let mut watched = facts(vec![address("10.0.0.1:80")], vec![now]);
    watched.seen = Some(Seen { before: Some(vec![then]), ..Seen::default() });
    assert_eq!(verdict(&watched), ("fd-limit", Possible, Some(false)));
    // It accepts again: that is seen, and stronger.
    watched.listeners[0].traced =
        traced(ListenerTotals { syns: Some(2), accepted: Some(2), ..ListenerTotals::ZERO });
    assert_eq!(verdict(&watched), ("answers", Likely, Some(true)));
}
