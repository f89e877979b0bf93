//! Arguments, and one file for each subcommand: it asks the room that knows, and prints the answer.

pub mod args;
mod check;
mod compare;
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
mod selection;
mod tape;
mod trace;
mod watch;
mod who;
mod why;

use std::{io::Write as _, process::ExitCode};

use clap::Parser as _;

pub use exit::{Exit, Failure};

use args::{Cli, Command};

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    // Before anything else: an actor of a rehearsal has one thread, no runtime and no logging.
    if arguments.next().is_some_and(|first| first == crate::rehearse::ACTOR_SUBCOMMAND) {
        return crate::rehearse::actor_main(arguments);
    }
    let cli = Cli::parse();
    env_logger::Builder::from_env(
        env_logger::Env::default().default_filter_or("warn,aya=error,aya_obj=error"),
    )
    .format(|out, record| {
        let time = out.timestamp_millis();
        let level = record.level();
        let style = out.default_level_style(level);
        for line in record.args().to_string().lines() {
            // What is told of names foreign to us.
            let line = crate::output::escape(line);
            writeln!(out, "[{time} {style}{level:<5}{style:#} {}] {line}", record.target())?;
        }
        Ok(())
    })
    .init();
    if let Err(error) = crate::software::add_user_files() {
        log::error!("{error}");
        return Exit::Usage.into();
    }
    let outcome = match cli.command {
        None => watch::run(&cli.watch),
        Some(Command::Watch(args)) => watch::live_or_recorded(&args),
        Some(Command::Record(args)) => record::run(&args),
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
    };
    match outcome {
        Ok(exit) => exit.into(),
        Err(failure) => {
            log::error!("{}", failure.message);
            failure.exit.into()
        }
    }
}
