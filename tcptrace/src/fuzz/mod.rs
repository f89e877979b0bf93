//! Hostile input, by the thousand: whatever reads bytes that others wrote is given changed ones, and must neither panic, nor take
//! long, nor let anything through to a terminal.
//!
//! On stable Rust, and without coverage: what is changed is known to be right in the beginning, and the changes know the form. A
//! run is the same for the same seed; each execution has a number of its own, by which it is repeated alone.
//! `cargo xtask fuzz` runs it long and optimised, the unit tests run some of it.

mod dice;
mod hosts;
mod recording;
mod records;

use std::cell::RefCell;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

pub use dice::Dice;

/// No input may take longer.
pub const SLOWEST: Duration = Duration::from_secs(5);

/// Something that reads bytes.
pub struct Target {
    /// Its name on the command line, and of the directory of its inputs in `tests/fuzz`.
    pub name: &'static str,
    /// What it reads.
    pub what: &'static str,
    seeds: Vec<Vec<u8>>,
    change: fn(&[Vec<u8>], &mut Dice) -> Vec<u8>,
    run: fn(&[u8]),
}

/// An input that does harm.
#[derive(Debug)]
pub struct Found {
    /// The execution that made it.
    pub number: u64,
    /// The input.
    pub input: Vec<u8>,
    /// What it did.
    pub harm: String,
}

/// Everything that can be tried.
pub fn targets() -> Vec<Target> {
    let mut targets = Vec::from(recording::targets());
    targets.push(records::target());
    targets.extend(hosts::targets());
    targets
}

/// What this thread has used.
fn processor_time() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map_or(Duration::ZERO, Duration::from)
}

impl Target {
    /// The input of an execution.
    pub fn input(&self, seed: u64, number: u64) -> Vec<u8> {
        (self.change)(&self.seeds, &mut Dice::new(seed ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15)))
    }

    /// Tries one input: how long it took, in processor time, whatever else the machine does.
    ///
    /// # Errors
    /// What harm it did.
    pub fn attempt(&self, input: &[u8]) -> Result<Duration, String> {
        let begin = processor_time();
        let done = catch_unwind(AssertUnwindSafe(|| (self.run)(input)));
        let took = processor_time().saturating_sub(begin);
        match done {
            Err(panic) => {
                let text = panic.downcast_ref::<String>().map(String::as_str);
                let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
                Err(format!("panic: {}", text.unwrap_or("of another type")))
            }
            Ok(()) if took > SLOWEST => Err(format!("it took {:.1} s", took.as_secs_f64())),
            Ok(()) => Ok(took),
        }
    }

    /// Runs executions `from` to `to`: the slowest, and how long that took.
    ///
    /// # Errors
    /// The first input that does harm.
    pub fn fuzz(&self, seed: u64, from: u64, to: u64) -> Result<(u64, Duration), Found> {
        let mut slowest = (from, Duration::ZERO);
        for number in from..to {
            let input = self.input(seed, number);
            match self.attempt(&input) {
                Ok(took) if took > slowest.1 => slowest = (number, took),
                Ok(_) => {}
                Err(harm) => return Err(Found { number, input, harm }),
            }
        }
        Ok(slowest)
    }
}

/// What was written, for those who let something else write.
#[derive(Clone, Default)]
struct Paper(Rc<RefCell<Vec<u8>>>);

impl Paper {
    fn assert_harmless(&self) {
        assert_harmless(&String::from_utf8_lossy(&self.0.borrow()));
    }
}

impl io::Write for Paper {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.borrow_mut().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Complains of text in which anything is left that moves a terminal or deceives a reader.
fn assert_harmless(text: &str) {
    for line in text.split('\n') {
        let safe = crate::output::escape(line);
        assert!(safe == line, "raw characters reach the terminal: {safe}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How often each is tried here; `cargo xtask fuzz` goes on.
    fn share(target: &Target) -> u64 {
        match target.name {
            "report" => 40,
            "recording" => 1_000,
            "record" => 2_000,
            "btf" => 500,
            _ => 10_000,
        }
    }

    fn spare(chosen: impl Fn(&str) -> bool) {
        for target in targets().iter().filter(|target| chosen(target.name)) {
            if let Err(found) = target.fuzz(1, 0, share(target)) {
                panic!("{} {}: {}", target.name, found.number, found.harm);
            }
        }
    }

    #[test]
    fn changed_recordings_do_no_harm() {
        spare(|name| name == "recording");
    }

    #[test]
    fn changed_recordings_do_no_harm_in_any_output() {
        spare(|name| name == "report");
    }

    #[test]
    fn changed_records_and_answers_of_the_kernel_do_no_harm() {
        spare(|name| !matches!(name, "recording" | "report"));
    }

    /// Inputs that once did harm, and small ones of every form.
    #[test]
    fn known_inputs_do_no_harm() {
        let all = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz");
        for target in targets() {
            for entry in std::fs::read_dir(all.join(target.name)).unwrap() {
                let path = entry.unwrap().path();
                if let Err(harm) = target.attempt(&std::fs::read(&path).unwrap()) {
                    panic!("{}: {harm}", path.display());
                }
            }
        }
    }

    #[test]
    fn a_run_is_the_same_again() {
        for target in targets() {
            assert_eq!(target.input(3, 14), target.input(3, 14), "{}", target.name);
        }
    }
}
