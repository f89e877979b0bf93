//! reuseport-imbalance: connections wait at one member of a reuseport group, or are dropped there, while the others are idle.
//! The kernel chooses the member by a hash of the addresses and ports, not by who has time.

use std::time::Duration;

use crate::correlate::{Change, Correlator, Listener, ListenerId, per_second};
use crate::event::{Timestamp, observation};

use super::case::{Concern, Description, Diagnosis};
use super::owner_state::OwnerState;
use super::words::{count, rate, span};
use super::{Apart, CauseRule, Confidence, Evidence, FindingKind, Party, Remedy, Severity, keys};

/// A member that gets so many times as much as the others on average is given too much.
const TOO_MUCH: f64 = 1.5;

/// Nobody has accepted for so long: the member is stuck.
const STUCK: Duration = Duration::from_secs(1);

/// The diagnosis.
#[derive(Default)]
pub(super) struct ReuseportImbalance;

/// A member in trouble.
pub(super) struct Trouble {
    began: Timestamp,
    deepest: u32,
    longest: Duration,
    drops_before: u64,
    /// It was seen not to accept for long.
    stuck: bool,
    members: u64,
    arrivals: Option<f64>,
    /// Of the others, on average.
    others_arrivals: Option<f64>,
    others_waiting: u64,
    owner: OwnerState,
}

impl Diagnosis for ReuseportImbalance {
    const KIND: FindingKind = FindingKind {
        code: "reuseport-imbalance",
        opens_when: "one member of a reuseport group keeps connections waiting while the others are idle",
        page: include_str!("../../../docs/findings/reuseport-imbalance.md"),
        observations: &["accept", "enqueue", "syn-drop"],
        tracepoint_tier: "accepts are counted by port, which does not tell the members apart: no finding.",
        causes: &[
            CauseRule {
                code: "stuck-member",
                means: "the member does not accept, or too slowly",
                certain: Some("accepts and drops of each member are observed, and this one had none"),
                likely: Some("it accepts too slowly"),
                possible: None,
                told_apart: &[
                    Apart { from: "`uneven-hash`", by: "it does not get much more than the others" },
                    Apart { from: "a group that is too slow as a whole", by: "the others' queues are empty" },
                ],
            },
            CauseRule {
                code: "uneven-hash",
                means: "it accepts, and gets more than 1.5 times what the others get on average",
                certain: Some("accepts, arrivals and drops of each member are observed"),
                likely: Some("drops are not observed one by one"),
                possible: None,
                told_apart: &[Apart { from: "`stuck-member`", by: "it accepts" }],
            },
        ],
        evidence: &[
            keys::ACCEPT_ERRNO,
            keys::ACCEPT_FAILED_AT,
            keys::ARRIVALS_PER_S,
            keys::DROPS,
            keys::number("members", "listeners of the SO_REUSEPORT group"),
            keys::NO_ACCEPT_S,
            keys::OPEN_FILES,
            keys::OPEN_FILES_LIMIT,
            keys::measure("others_arrivals_per_s", "SYNs that reach each of the other members a second"),
            keys::number("others_queue", "connections that wait at the other members"),
            keys::QUEUE,
            keys::QUEUE_LIMIT,
            keys::RATES_OVER_S,
            keys::THREADS,
            keys::THREADS_BLOCKED,
            keys::THREADS_IN_EPOLL,
            keys::THREADS_RUNNING,
            keys::THREADS_STOPPED,
            keys::WATCHES_LISTENER,
        ],
    };
    const QUIET: Duration = Duration::from_secs(10);

    type Key = ListenerId;
    type Memory = Trouble;

    fn concern(&self, change: &Change, _world: &Correlator) -> Option<Concern<ListenerId>> {
        match change {
            Change::Imbalanced(id) => Some(Concern::Happened(*id)),
            Change::ListenerClosed(id) => Some(Concern::Gone(*id)),
            _ => None,
        }
    }

    fn begin(&mut self, key: &ListenerId, world: &Correlator) -> Trouble {
        Trouble {
            began: world.now(),
            deepest: 0,
            longest: Duration::ZERO,
            drops_before: world.listener(*key).map_or(0, |listener| listener.overflows().total()),
            stuck: false,
            members: 0,
            arrivals: None,
            others_arrivals: None,
            others_waiting: 0,
            owner: OwnerState::default(),
        }
    }

    fn observe(&mut self, key: &ListenerId, memory: &mut Trouble, change: &Change, world: &Correlator) {
        let (Some(listener), Change::Imbalanced(_)) = (world.listener(*key), change) else { return };
        let now = world.now();
        memory.deepest = memory.deepest.max(listener.depth);
        if let Some(since) = listener.stalled_since() {
            memory.longest = memory.longest.max(now.since(since));
            memory.stuck |= now.since(since) >= STUCK;
        }
        memory.owner.learn(OwnerState::of(listener, memory.began, world));
        let others: Vec<&Listener> = world.listeners().group_of(listener).collect();
        memory.members = u64::try_from(others.len()).unwrap_or(u64::MAX).saturating_add(1);
        memory.others_waiting = others.iter().map(|other| u64::from(other.depth)).sum();
        memory.arrivals = arrivals(listener, now);
        let rates: Vec<f64> = others.iter().filter_map(|other| arrivals(other, now)).collect();
        #[expect(clippy::cast_precision_loss, reason = "a group has few members")]
        let mean = rates.iter().sum::<f64>() / rates.len().max(1) as f64;
        memory.others_arrivals = (!rates.is_empty()).then_some(mean);
    }

    fn describe(&self, key: &ListenerId, memory: &Trouble, world: &Correlator) -> Option<Description> {
        Some(describe(world.listener(*key)?, memory, world))
    }
}

/// Rates are over so many seconds, or since the listener began.
const RATES_OVER: Duration = Duration::from_secs(5);

/// Arrivals per second over the last seconds. Listeners are read only if they changed: what was not read did not grow.
fn arrivals(listener: &Listener, now: Timestamp) -> Option<f64> {
    let latest = listener.readings.latest()?;
    let before = listener.readings.at(now.before(RATES_OVER))?;
    let arrived = |enqueued: Option<u64>, drops: u64| Some(enqueued? + drops);
    let from = before.time.max(now.before(RATES_OVER));
    per_second(
        arrived(before.enqueued, before.overflows),
        arrived(latest.enqueued, latest.overflows),
        now.since(from),
    )
}

fn describe(listener: &Listener, memory: &Trouble, world: &Correlator) -> Description {
    let subject = Party::of_listener(listener, world);
    let others = memory.members.saturating_sub(1);
    let drops = listener.overflows().total().saturating_sub(memory.drops_before);
    let uneven = !memory.stuck
        && matches!(
            (memory.arrivals, memory.others_arrivals),
            (Some(mine), Some(theirs)) if mine > theirs * TOO_MUCH
        );
    let rates = match (memory.arrivals, memory.others_arrivals) {
        (Some(mine), Some(theirs)) => {
            format!("{} arrive here, {} at each of the others on average", rate(mine), rate(theirs))
        }
        _ => "arrivals are not known".to_owned(),
    };
    let limit = listener.limit_seen.then_some(listener.limit);
    let knobs = world.namespace(listener.endpoints.netns).map(|namespace| &namespace.knobs);
    let value = |value: Option<u32>| value.map_or_else(String::new, |value| format!(" ({value})"));
    let mut remedy = Vec::new();
    let (cause, explanation) = if uneven {
        let explanation =
            format!("the hash of addresses and ports gives this member more than its share: {rates}");
        ("uneven-hash", explanation)
    } else {
        let reason = memory.owner.reason(subject.process.as_ref());
        let how = if memory.stuck {
            format!("has not accepted for {}{}", span(memory.longest), reason.words)
        } else {
            format!("accepts too slowly{}", reason.words)
        };
        remedy.push(reason.remedy);
        ("stuck-member", format!("this member {how}; the kernel goes on giving it its share: {rates}"))
    };
    remedy.push(Remedy::text(
        "let the members share one listener (accept from one queue), or choose the member by load \
         (SO_ATTACH_REUSEPORT_EBPF); a member that cannot accept should close its listener",
    ));
    remedy.push(Remedy::not(format!(
        "neither the backlog{} nor net.core.somaxconn{} is the cause: the other queues are empty",
        value(limit),
        value(knobs.and_then(|knobs| knobs.somaxconn))
    )));
    let observed = world.observes(observation::ACCEPT) && world.observes(observation::SYN_DROP);
    Description {
        severity: Severity::Warning,
        confidence: if observed && (uneven || memory.stuck) {
            Confidence::Certain
        } else {
            Confidence::Likely
        },
        title: format!(
            "{subject} keeps connections waiting while the {} of its reuseport group {} idle",
            count(others, "other member", "other members"),
            if others == 1 { "is" } else { "are" }
        ),
        subject,
        cause,
        numbers: vec![
            format!(
                "{} waiting here, {} at {}; {} dropped here",
                memory.deepest,
                memory.others_waiting,
                count(others, "other member", "other members"),
                count(drops, "connection", "connections")
            ),
            rates,
        ],
        evidence: memory
            .owner
            .add_to(
                Evidence::new()
                    .with("members", memory.members)
                    .with("queue", memory.deepest)
                    .with("queue_limit", limit)
                    .with("others_queue", memory.others_waiting)
                    .with("drops", drops)
                    .with("arrivals_per_s", memory.arrivals)
                    .with("others_arrivals_per_s", memory.others_arrivals)
                    .with("rates_over_s", memory.arrivals.map(|_| RATES_OVER.as_secs_f64()))
                    .with("no_accept_s", memory.stuck.then_some(memory.longest.as_secs_f64())),
            )
            .with("why", explanation.as_str()),
        remedy,
        explanation,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::event::Acceptor;
    use crate::finding::testing::{Play, Server, task};

    fn group(play: &mut Play) -> Vec<Server> {
        (0..4_u32)
            .map(|member| {
                let server = Server::new(100 + u64::from(member), "0.0.0.0:1080", 500);
                server.listen(play, task(6000 + member, "worker"), Some(500), 4096);
                server
            })
            .collect()
    }

    /// Every second each member gets `arrive` and accepts up to `accept`.
    fn run(play: &mut Play, group: &mut [Server], seconds: std::ops::Range<u64>, load: [(u32, u32); 4]) {
        for second in seconds {
            for ((member, (arrive, accept)), pid) in group.iter_mut().zip(load).zip(6000..) {
                for _ in 0..arrive {
                    member.client();
                }
                for _ in 0..accept {
                    let wait = u64::from(member.depth) * 1000 / u64::from(accept);
                    member.accept(second * 1000 - 50, Acceptor { pid, tid: pid }, wait.min(9000));
                }
                play.send(second * 1000 - 10, member.sample());
            }
            play.tick(second * 1000);
        }
    }

    #[test]
    fn a_stuck_member_is_named_and_told_once() {
        let mut play = Play::new(4096);
        let mut group = group(&mut play);
        run(&mut play, &mut group, 1..4, [(10, 10); 4]);
        run(&mut play, &mut group, 4..14, [(10, 10), (10, 10), (10, 0), (10, 10)]);
        let finding = play.only();
        assert_eq!((finding.code, finding.cause), ("reuseport-imbalance", "stuck-member"));
        assert_eq!(finding.confidence, Confidence::Certain);
        assert_eq!(finding.subject.process.as_ref().unwrap().pid, Some(6002));
        let evidence = &Play::json(finding)["evidence"];
        assert_eq!((&evidence["members"], &evidence["others_queue"]), (&json!(4), &json!(0)));
        assert!(finding.remedy[2].text.contains("neither the backlog (500)"), "{:?}", finding.remedy);
    }

    #[test]
    fn a_member_that_gets_too_much_is_the_hash_s_fault() {
        let mut play = Play::new(4096);
        let mut group = group(&mut play);
        run(&mut play, &mut group, 1..16, [(10, 10), (60, 40), (10, 10), (10, 10)]);
        let finding = play.only_of("reuseport-imbalance");
        assert_eq!((finding.cause, finding.severity), ("uneven-hash", Severity::Warning));
        assert!(finding.explanation.contains("60/s arrive here, 10/s at each"), "{}", finding.explanation);
    }

    #[test]
    fn even_groups_and_groups_that_all_suffer_are_quiet() {
        let mut play = Play::new(4096);
        let mut group = group(&mut play);
        run(&mut play, &mut group, 1..20, [(10, 10), (12, 12), (8, 8), (0, 0)]);
        assert!(play.findings.is_empty(), "{:#?}", play.findings);
        run(&mut play, &mut group, 20..30, [(10, 0); 4]);
        assert_eq!(play.codes(), ["accept-stall"]);
    }
}
