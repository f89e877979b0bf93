//! Arguments, and one file for each subcommand: it asks the room that knows, and prints the answer.

mod agent;
pub mod args;
mod check;
mod compare;
mod examples;
mod exit;
mod explain;
mod export;
mod listeners;
mod moment;
mod netns;
mod ports;
mod probes;
mod record;
mod rehearse;
mod replay;
mod report;
mod schema;
mod selection;
mod settings;
mod shell;
mod stderr;
mod tape;
mod top;
mod trace;
mod watch;
mod who;
mod why;

use std::process::ExitCode;

use clap::FromArgMatches as _;

pub use exit::{Exit, Failure};

use args::{Cli, Command};

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    // Before anything else: an actor of a rehearsal has one thread, no runtime and no logging.
    match arguments.next() {
        Some(first) if first == crate::rehearse::ACTOR_SUBCOMMAND => {
            return crate::rehearse::actor_main(arguments);
        }
        Some(first) if first == crate::top::GUARD_SUBCOMMAND => return crate::top::guard_main(arguments),
        _ => {}
    }
    let mut cli =
        Cli::from_arg_matches(&examples::command().get_matches()).unwrap_or_else(|error| error.exit());
    let settings = settings::of(&cli.look);
    // An error is to be coloured as well, or not.
    settings::colours(&cli.look, settings.as_ref().ok()).write_global();
    stderr::begin();
    let settings = match settings {
        Ok(settings) => settings,
        Err(error) => {
            stderr::error(&error.to_string());
            return Exit::Usage.into();
        }
    };
    if settings.config.look.utc {
        crate::output::zone::tell_utc();
    }
    settings::fill_in(&mut cli, &settings);
    if let Err(error) = crate::software::add_user_files() {
        stderr::error(&error.to_string());
        return Exit::Usage.into();
    }
    let outcome = match cli.command {
        None => watch::run(&cli.watch),
        Some(Command::Watch(args)) => watch::live_or_recorded(&args),
        Some(Command::Top(args)) => top::run(&args),
        Some(Command::Record(args)) => record::run(&args),
        Some(Command::Agent(args)) => agent::run(&args, &cli.look, settings),
        Some(Command::Replay(args)) => replay::run(&args),
        Some(Command::Report(args)) => report::run(&args),
        Some(Command::Compare(args)) => compare::run(&args),
        Some(Command::Explain(args)) => explain::run(&args),
        Some(Command::Export(args)) => export::run(&args),
        Some(Command::Listeners(args)) => listeners::run(&args),
        Some(Command::Why(args)) => why::run(&args),
        Some(Command::Probes(args)) => probes::run(&args),
        Some(Command::Rehearse(args)) => rehearse::run(&args),
        Some(Command::Who(args)) => who::run(&args),
        Some(Command::Check(args)) => check::run(&args),
        Some(Command::Ports(args)) => ports::run(&args),
        Some(Command::Config) => settings::run(&settings),
        Some(Command::Schema(args)) => schema::run(&args),
        Some(Command::Completions(args)) => shell::completions(&args),
        Some(Command::Man(args)) => shell::manual(&args),
    };
    match outcome {
        Ok(exit) => exit.into(),
        Err(failure) => {
            stderr::error(&failure.message);
            failure.exit.into()
        }
    }
}
