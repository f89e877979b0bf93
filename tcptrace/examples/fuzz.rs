//! Hostile input, long and optimised: `cargo xtask fuzz` runs this.
//!
//! `TARGET SEED FROM TO` runs executions of one target, and prints one JSON object; an input that does harm is written to
//! `fuzz-TARGET.input` in the working directory. `list` names the targets.

use std::fs;
use std::time::Instant;

use anyhow::{Context as _, Result, bail, ensure};
use tcptrace::fuzz::targets;

/// No run may ever have needed more memory.
const MOST_MEMORY_KB: u64 = 256 << 10;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["list"] => {
            for target in targets() {
                println!("{}\t{}", target.name, target.what);
            }
            Ok(())
        }
        [name, seed, from, to] => fuzz(name, seed.parse()?, from.parse()?, to.parse()?),
        _ => bail!("list | TARGET SEED FROM TO"),
    }
}

fn fuzz(name: &str, seed: u64, from: u64, to: u64) -> Result<()> {
    let target = targets().into_iter().find(|target| target.name == name).context("no such target")?;
    let begin = Instant::now();
    let (slowest, took) = match target.fuzz(seed, from, to) {
        Ok(slowest) => slowest,
        Err(found) => {
            let path = format!("fuzz-{name}.input");
            fs::write(&path, &found.input)?;
            bail!("{name}: execution {} of seed {seed}: {}; the input is {path}", found.number, found.harm);
        }
    };
    let memory = peak_kb().context("the most memory is not known")?;
    println!(
        "{}",
        serde_json::json!({"target": name, "executions": to - from, "seconds": begin.elapsed().as_secs_f64(),
            "slowest": slowest, "slowest_ms": took.as_secs_f64() * 1e3, "most_memory_mb": memory >> 10})
    );
    ensure!(memory <= MOST_MEMORY_KB, "{name}: it needed {} MB at some time", memory >> 10);
    Ok(())
}

fn peak_kb() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.split_whitespace().next()?.parse().ok()
}
