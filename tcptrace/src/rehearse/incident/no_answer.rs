//! `no-answer`: "the server does not answer", for every reason: nobody listens, a packet does not get through, a queue is full,
//! nobody accepts.

mod ground;
mod kind;
mod scene;

use std::time::Duration;

use serde_json::json;

use super::{Entry, Family, Incident, Options, Variant, facts};
use crate::probe::btf::Btf;
use crate::rehearse::counters;
use crate::rehearse::error::{Error, Result};
use crate::rehearse::stage::{Layout, Stage};
use crate::rehearse::truth::GroundTruth;
use kind::{KINDS, Kind};
use scene::{Played, Scene};

pub(super) const ENTRY: Entry = Entry {
    name: "no-answer",
    aliases: &["syn-unanswered", "no-listener", "connect-refused"],
    summary: "connects fail: nobody listens there, a packet does not get through, or nobody accepts",
    variants: &VARIANTS,
    make: |variant, options| Ok(Box::new(NoAnswer::new(variant, options)?)),
};

/// Every reason, and all of them at once.
#[expect(clippy::indexing_slicing, reason = "evaluated by the compiler, which sees every index")]
const VARIANTS: [Variant; KINDS.len() + 1] = {
    let all = Variant {
        name: "every",
        summary: "all of the above that this kernel allows and that need no translation, in one run",
    };
    let mut variants = [all; KINDS.len() + 1];
    let mut at = 0;
    while at < KINDS.len() {
        variants[at] = KINDS[at].1;
        at += 1;
    }
    variants
};

struct NoAnswer {
    variant: &'static Variant,
    options: Options,
    /// Before the stage: actors go first.
    scenes: Vec<Scene>,
    stage: Stage,
}

impl NoAnswer {
    fn new(variant: &'static Variant, options: Options) -> Result<Self> {
        let ipv6 = options.family == Family::V6;
        let mut kinds: Vec<Kind> = match Kind::of(variant.name) {
            Some(kind) if kind.is_ipv4_only() && ipv6 => {
                return Err(Error::NotSupported(format!("{} is for IPv4 only", variant.name)));
            }
            Some(kind) if kind.needs_reasons() && !gives_reasons() => {
                return Err(Error::NotSupported(
                    "this kernel does not say why it drops a packet (from 5.17): a wrong checksum is not seen".into(),
                ));
            }
            Some(kind) => vec![kind],
            None => {
                let possible = |kind: &Kind| {
                    let unfit = kind.is_translated() || (kind.is_ipv4_only() && ipv6);
                    !unfit && (!kind.needs_reasons() || gives_reasons())
                };
                KINDS.iter().map(|(kind, _)| *kind).filter(possible).collect()
            }
        };
        let stage = options.stage(Layout::Pair)?;
        // A private namespace takes these from the host's: filtering must be where it is played only.
        for namespace in [stage.server(), stage.client()] {
            namespace.set_sysctl("net.ipv4.conf.all.rp_filter", "0")?;
        }
        stage.set_sysctl("net.ipv4.conf.tt-server.rp_filter", 0)?;
        if kinds.contains(&Kind::SynQueue) {
            stage.set_sysctl("net.ipv4.tcp_syncookies", 0)?;
            // All the room that one listener's small queue leaves.
            stage.set_sysctl("net.ipv4.tcp_max_syn_backlog", 1024)?;
        }
        if kinds.contains(&Kind::OtherVrf) {
            match ground::make_vrf(&stage) {
                Err(Error::NotSupported(_)) if kinds.len() > 1 => {
                    kinds.retain(|kind| *kind != Kind::OtherVrf);
                }
                made => made?,
            }
        }
        let scenes = kinds.into_iter().map(|kind| Scene::new(kind, options.family)).collect();
        Ok(Self { variant, options, scenes, stage })
    }

    fn open_for_business(&mut self) -> Result<()> {
        self.scenes.iter_mut().try_for_each(|scene| scene.open_for_business(&self.stage))
    }
}

/// Whether this kernel gives reasons for dropping packets, wrong checksums among them.
fn gives_reasons() -> bool {
    let reasons = Btf::load().map(|btf| btf.enum_names("skb_drop_reason", "SKB_DROP_REASON_"));
    reasons.is_ok_and(|reasons| reasons.values().any(|reason| reason == "TCP_CSUM"))
}

impl Incident for NoAnswer {
    fn name(&self) -> &'static str {
        ENTRY.name
    }

    fn variant(&self) -> &'static str {
        self.variant.name
    }

    fn describe(&self) -> String {
        let [scene] = self.scenes.as_slice() else {
            return format!(
                "{} servers do not answer their clients, each for a reason of its own.",
                self.scenes.len()
            );
        };
        let door = scene
            .door()
            .map_or_else(|| "nobody listens".to_owned(), |at| format!("tt-server listens on {at}"));
        let called = scene.called(&self.stage);
        format!("tt-client calls {called}; {door}.\nWhat goes wrong: {}.", self.variant.summary)
    }

    fn stage(&self) -> &Stage {
        &self.stage
    }

    fn prepare(&mut self) -> Result<()> {
        if self.options.older { self.open_for_business() } else { Ok(()) }
    }

    fn is_asked_why(&self) -> bool {
        true
    }

    fn play(&mut self) -> Result<GroundTruth> {
        self.open_for_business()?;
        self.scenes.iter_mut().try_for_each(|scene| scene.obstruct(&self.stage))?;
        let before = self.stage.counters()?;
        let stage = &self.stage;
        let played: Vec<Played> = std::thread::scope(|threads| {
            let playing: Vec<_> =
                self.scenes.iter_mut().map(|scene| threads.spawn(|| scene.play(stage))).collect();
            let ends = playing.into_iter().map(|thread| {
                thread.join().unwrap_or_else(|_| Err(Error::NotStaged("a scene's thread is gone".into())))
            });
            ends.collect::<Result<_>>()
        })?;
        // Long enough for what was called off to be seen.
        self.stage.cancel().sleep(Duration::from_millis(500))?;
        let counters = counters::growth(&before, &self.stage.counters()?);
        let mut truth = GroundTruth {
            counters,
            facts: facts(json!({
                "connects": played.iter().map(|scene| scene.opened).sum::<u64>(),
                "refused": played.iter().map(|scene| scene.tally.failed).sum::<u64>(),
                "called_off": played.iter().map(|scene| scene.tally.gave_up).sum::<u64>(),
            })),
            ..GroundTruth::of(ENTRY.name, self.variant.name, self.stage.netns_inode())
        };
        for scene in played {
            truth.actors.extend(scene.actors);
            truth.expect.extend(scene.expect);
            truth.allow_at.extend(scene.allow);
            truth.why.push(scene.question);
        }
        Ok(truth)
    }
}
