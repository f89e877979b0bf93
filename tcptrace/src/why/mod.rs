//! Why one destination does not answer: facts first (`gather`), then candidate causes in the order in which a connection
//! meets them (`cause`, one file each, pure), then one verdict.
//!
//! To add a cause: a file in `cause/` with a `judge` over [`Facts`], and its line in [`judge`].

mod cause;
mod facts;
mod far_end;
mod gather;
mod probe;
mod rules;
mod sampler;
mod steered;
mod verdict;

pub use facts::{AddressFacts, Facts, Pending, Place, ProbeOutcome, Ruled, Seen, Target};
pub use far_end::{FarEnd, Fate};
pub use gather::{Scope, look, look_after};
pub use probe::try_one;
pub use rules::VERDICTS;
pub use sampler::{Samples, sample};
pub use verdict::{Answer, Found, Step, Verdict};

/// Steps that look at the server's namespace.
const OF_SERVER: [&str; 5] = ["way-back", "listener", "syn-queue", "accept-queue", "accepting"];

/// Walks the candidate causes for one address of the target.
pub fn judge(facts: &Facts, address: &AddressFacts) -> Answer {
    let steps = [
        ("route", cause::route::judge as fn(&Facts, &AddressFacts) -> Found),
        ("translation", cause::steered::judge),
        ("way-back", cause::way_back::judge),
        ("listener", cause::listener::judge),
        ("firewall", cause::firewall::judge),
        ("syn-queue", cause::syn_queue::judge),
        ("accept-queue", cause::accept_queue::judge),
        ("accepting", cause::accepting::judge),
        ("answers", cause::answers::judge),
        ("arrivals", cause::arrivals::judge),
    ];
    let mut steps: Vec<Step> =
        steps.into_iter().map(|(name, judge)| Step { name, found: judge(facts, address) }).collect();
    if let Some(doubt) = address.doubt_of_server() {
        steps
            .iter_mut()
            .filter(|step| OF_SERVER.contains(&step.name))
            .for_each(|step| step.found.doubt(doubt));
    }
    steps.extend(cause::contradiction(facts, address).map(|found| Step { name: "contradiction", found }));
    Answer::of(address.to, steps)
}

/// The ports that matter for a target: the one that is called, and those at which connections end.
pub fn ports(facts: &Facts) -> Vec<u16> {
    gather::ports(facts.target.port, facts.addresses.as_deref().unwrap_or_default())
}

/// Judges every address of the target.
pub fn answers(facts: &Facts) -> Vec<Answer> {
    facts.addresses.iter().flatten().map(|address| judge(facts, address)).collect()
}

/// The answer that counts: clients try all addresses, so one that answers is enough.
pub fn decisive(answers: &[Answer]) -> Option<&Answer> {
    let with = |healthy| answers.iter().find(move |answer| answer.healthy == healthy);
    with(Some(true)).or_else(|| with(Some(false))).or_else(|| answers.first())
}

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
