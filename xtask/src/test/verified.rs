//! How much the kernel's verifier has to do, which the start of a trace waits for: told after each self-test, and held to a limit.

use serde_json::Value;

/// What a program may take, where it is more than [`OTHERS`]: about a quarter above the most that was seen on any kernel.
const LIMITS: [(&str, u64); 7] = [
    // These walk a bind bucket.
    ("tp_exit_bind", 107_000),
    ("fexit_get_port", 103_000),
    ("kretprobe_get_port", 72_000),
    ("tp_set_state_port", 34_000),
    ("tp_set_state_port_stand_in", 34_000),
    ("fexit_hash_connect_v4", 14_000),
    ("fexit_hash_connect_v6", 14_000),
];
/// What any other program may take.
const OTHERS: u64 = 10_000;

/// The programs that took more than they may.
pub(super) fn jumps(probes: &[&Value]) -> Vec<String> {
    let jump = |(program, verified): (&str, u64)| {
        let limit = LIMITS.iter().find(|(name, _)| *name == program).map_or(OTHERS, |(_, limit)| *limit);
        let told =
            format!("the verifier goes through {verified} instructions of {program}, more than {limit}");
        (verified > limit).then_some(told)
    };
    programs(probes).filter_map(jump).collect()
}

/// How many instructions were verified in all, and which program took most; `None` where the kernel does not tell.
pub(super) fn told(probes: &[&Value]) -> Option<String> {
    let (most, by) = programs(probes).map(|(program, verified)| (verified, program)).max()?;
    let all: u64 = programs(probes).map(|(_, verified)| verified).sum();
    Some(format!("{all} instructions verified, {most} of them of {by}"))
}

/// Each program once, though it may be attached in several places.
fn programs<'a>(probes: &'a [&Value]) -> impl Iterator<Item = (&'a str, u64)> {
    let mut seen = std::collections::BTreeSet::new();
    probes.iter().filter_map(move |probe| {
        let program = probe["program"].as_str()?;
        let verified = probe["verified_instructions"].as_u64()?;
        seen.insert(program).then_some((program, verified))
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_program_that_takes_much_more_than_it_did_is_told() {
        let probe =
            |program: &str, verified: Value| json!({"program": program, "verified_instructions": verified});
        let probes = [probe("fexit_accept", json!(1_454)), probe("fexit_accept", json!(1_454))];
        let probes: Vec<&Value> = probes.iter().collect();
        assert_eq!(
            told(&probes).as_deref(),
            Some("1454 instructions verified, 1454 of them of fexit_accept")
        );
        assert!(jumps(&probes).is_empty());
        let jumped = probe("fexit_accept", json!(OTHERS + 1));
        assert_eq!(jumps(&[&jumped]).len(), 1);
        // Before 5.16 a kernel does not tell.
        let silent = probe("fexit_accept", Value::Null);
        assert!(jumps(&[&silent]).is_empty() && told(&[&silent]).is_none());
    }
}
