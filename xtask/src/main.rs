//! Everything a contributor of tcptrace runs, as `cargo xtask COMMAND`.

mod arch;
mod bench;
mod binary;
mod dist;
mod ebpf;
mod fuzz;
mod pages;
mod paths;
mod readers;
mod servers;
mod setup;
mod software;
mod term;
mod test;
mod tool;
mod tour;
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
    /// Installs what building the eBPF object, QEMU guests and the tests need. Quick when nothing is missing.
    Setup(setup::Args),
    /// Builds `tcptrace` as a static program, for guests, and prints where it is.
    Static {
        /// The processor that it is for.
        #[arg(long, value_enum, default_value_t)]
        arch: arch::Arch,
    },
    /// Builds what people install: a static, stripped program, with completions and manual pages beside it, and prints where.
    Dist {
        /// The processor that it is for.
        #[arg(long, value_enum, default_value_t)]
        arch: arch::Arch,
    },
    /// Builds the committed eBPF object, or checks it.
    Ebpf(ebpf::Args),
    /// Tests everything: units, then the tracer live, in guests and on this machine.
    Test(test::Args),
    /// Plays the self-test and some rehearsals on every kernel, and writes a page of docs: what is observed where, and how exactly.
    Kernels(test::kernels::Args),
    /// Asks `tcptrace why` about nginx, redis and sshd as Debian has them, healthy and not, in a guest.
    Servers(servers::Args),
    /// Proves remedies with real servers: makes the incident, carries out what is printed, and makes the load again.
    Software(software::Args),
    /// One server's turn of `software`. Nothing for people.
    #[command(hide = true)]
    SoftwareStage(software::StageArgs),
    /// Measures what tracing costs, side by side with other tools, in a guest.
    Bench(bench::Args),
    /// Measures recordings: how fast they are written and read, how large they are.
    BenchRecording(bench::recording::Args),
    /// Measures `tcptrace who` beside `ss -tanp`, with many sockets, on this machine or in a guest.
    BenchWho(bench::who::Args),
    /// One process of the many that `bench-who` needs.
    #[command(hide = true)]
    BenchWhoMember(bench::who::MemberArgs),
    /// Gives changed recordings, records, BTF and the like to whatever reads them: none may panic, take long, or need much memory.
    Fuzz(fuzz::Args),
    /// Draws the pictures of docs/tour.md anew, or checks that they are of today's screens.
    Tour(tour::Args),
    /// Looks at the pages of `report --html` in Chromium: accessible (axe) light, dark and on a phone; with pictures, if asked for.
    Pages(pages::Args),
    /// Boots a Debian kernel in QEMU and runs a command in it, as if it were a local one.
    Vm(vm::cli::Args),
    /// The guest's end of `vm`: runs the jobs it finds and reports them. Nothing for people.
    #[command(hide = true)]
    GuestAgent,
    /// The guest's end of `bench`: one contender's turn.
    #[command(hide = true)]
    GuestLoad(bench::guest::Args),
    /// The guest's end of `bench-who`.
    #[command(hide = true)]
    GuestWho(bench::who::Args),
    /// What the load connects to.
    #[command(hide = true)]
    GuestServer(bench::guest::server::Args),
}

fn main() -> ExitCode {
    let command = Cli::parse().command;
    // A command in a guest has the other codes for itself.
    let failed = if matches!(command, Command::Vm(_)) { vm::cli::EXIT_HARNESS } else { 1 };
    dispatch(command).unwrap_or_else(|error| {
        term::note(format_args!("error: {error:#}"));
        ExitCode::from(failed)
    })
}

fn dispatch(command: Command) -> Result<ExitCode> {
    match command {
        Command::Setup(args) => setup::run(&args)?,
        Command::Static { arch } => println!("{}", binary::build(arch)?.display()),
        Command::Dist { arch } => println!("{}", dist::build(arch)?.display()),
        Command::Ebpf(args) => ebpf::run(&args)?,
        Command::Test(args) => return test::run(&args),
        Command::Kernels(args) => return test::kernels::run(&args),
        Command::Servers(args) => return servers::run(&args),
        Command::Software(args) => return software::run(&args),
        Command::SoftwareStage(args) => return software::stage(&args),
        Command::Bench(args) => return bench::run(&args),
        Command::BenchRecording(args) => return bench::recording::run(&args),
        Command::BenchWho(args) => return bench::who::run(&args),
        Command::BenchWhoMember(args) => bench::who::member(&args)?,
        Command::Fuzz(args) => return fuzz::run(&args),
        Command::Tour(args) => tour::run(&args)?,
        Command::Pages(args) => pages::run(&args)?,
        Command::Vm(args) => return vm::cli::run(&args),
        Command::GuestAgent => vm::agent::main()?,
        Command::GuestLoad(args) => bench::guest::main(&args)?,
        Command::GuestWho(args) => bench::who::run_in_guest(&args)?,
        Command::GuestServer(args) => bench::guest::server::main(&args)?,
    }
    Ok(ExitCode::SUCCESS)
}
