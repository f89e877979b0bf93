//! Everything a contributor of tcptrace runs, as `cargo xtask COMMAND`.

mod paths;
mod term;
mod tool;
mod vm;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// The project's own tasks. Run them as `cargo xtask COMMAND`.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Boots a Debian kernel in QEMU and runs a command in it, as if it were a local one.
    Vm(vm::cli::Args),
    /// The guest's end of `vm`: runs the jobs it finds and reports them. Nothing for people.
    #[command(hide = true)]
    GuestAgent,
}

fn main() -> ExitCode {
    match dispatch(Cli::parse().command) {
        Ok(code) => code,
        Err(error) => {
            term::note(format_args!("error: {error:#}"));
            ExitCode::from(vm::cli::EXIT_HARNESS)
        }
    }
}

fn dispatch(command: Command) -> Result<ExitCode> {
    match command {
        Command::Vm(args) => vm::cli::run(&args),
        Command::GuestAgent => vm::agent::main().map(|()| ExitCode::SUCCESS),
    }
}
