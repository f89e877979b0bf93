//! The guest's side: one contender, one turn, one measurement on stdout.

mod bpf;
mod load;
mod process;
mod processors;
pub(crate) mod server;
mod tracer;

use std::fs;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::Args as ClapArgs;

use self::bpf::{Names, Snapshot};
use self::process::Cpu;
use self::processors::Processors;
use self::server::{Close, Server};
use self::tracer::Tracer;
use super::measurement::{Idle, Measurement, Tracer as TracerCost};

/// Connections before anything is measured, so that maps and caches have what they will have.
const WARM_UP: u64 = 1000;
/// From the last listen() until a tracer has dealt with it, and the kernel with what the boot or the last turn left to do.
const SETTLE: Duration = Duration::from_secs(5);
/// How long an idle tracer is watched.
const IDLE: Duration = Duration::from_secs(5);
/// Between the load's end and the books' closing, for what is done in the background.
const DRAIN: Duration = Duration::from_millis(500);

#[derive(ClapArgs)]
pub(crate) struct Args {
    /// How many listeners there are, one of which is used.
    #[arg(long)]
    listeners: u16,
    #[arg(long, value_enum)]
    close: Close,
    /// How many connections each of the two loads makes.
    #[arg(long)]
    connections: u64,
    /// Watch the tracer while it is idle, too.
    #[arg(long)]
    idle: bool,
    /// The tracer; none for the base line.
    #[arg(last = true)]
    tracer: Vec<String>,
}

/// Measures and prints.
pub(crate) fn main(args: &Args) -> Result<()> {
    println!("{}", serde_json::to_string(&measure(args)?)?);
    Ok(())
}

fn measure(args: &Args) -> Result<Measurement> {
    tune()?;
    let processors = Processors::split()?;
    processors.use_rest()?;
    // Before the listeners, so that it sees each of them come.
    let mut tracer = if args.tracer.is_empty() { None } else { Some(Tracer::start(&args.tracer)?) };
    processors.use_load()?;
    let server = Server::start(args.listeners, args.close)?;
    thread::sleep(SETTLE);
    let idle = match &tracer {
        Some(tracer) if args.idle => Some(watch_idle(tracer)?),
        _ => None,
    };
    load::run(Server::address(), WARM_UP)?;
    // One after the other: keeping the books takes time itself.
    let free = load::run(Server::address(), args.connections)?;
    let names = Names::read()?;
    set("kernel/bpf_stats_enabled", "1")?;
    let cpu_before = cpu(tracer.as_ref())?;
    let interrupts_before = irq_works()?;
    let before = Snapshot::take(&names)?;
    let counted = load::run(Server::address(), args.connections)?;
    thread::sleep(DRAIN);
    let programs = Snapshot::take(&names)?.since(&before);
    let interrupts = irq_works()?.saturating_sub(interrupts_before);
    let cpu = cpu(tracer.as_ref())?.saturating_sub(cpu_before);
    set("kernel/bpf_stats_enabled", "0")?;
    let cost = match &mut tracer {
        None => None,
        Some(tracer) => {
            tracer.must_run()?;
            if programs.is_empty() {
                bail!("no BPF program ran during the load");
            }
            Some(TracerCost {
                idle,
                cpu_us_per_connection: per_connection_us(cpu, counted),
                memory: process::memory(tracer.pid())?,
                maps_kib: process::maps_kib(tracer.pid())?,
                lost: Tracer::lost()?,
            })
        }
    };
    if let Some(tracer) = tracer {
        tracer.stop()?;
    }
    drop(server);
    Ok(Measurement {
        connections_per_s: free.per_second(),
        connections: counted.connections,
        programs,
        interrupts,
        tracer: cost,
    })
}

/// Settings of the guest for this load.
fn tune() -> Result<()> {
    // Above all listeners.
    set("net/ipv4/ip_local_port_range", "20480 65535")?;
    // With `Close::Fin`: reached within the first second, and from then on every connection finds as many of them.
    set("net/ipv4/tcp_max_tw_buckets", "500")?;
    set("kernel/bpf_stats_enabled", "0")
}

fn set(name: &str, value: &str) -> Result<()> {
    let path = format!("/proc/sys/{name}");
    fs::write(&path, value).with_context(|| format!("writing {value} to {path}"))
}

fn watch_idle(tracer: &Tracer) -> Result<Idle> {
    let before = Cpu::of(tracer.pid())?;
    thread::sleep(IDLE);
    let after = Cpu::of(tracer.pid())?;
    let per_second =
        |from: Duration, to: Duration| to.saturating_sub(from).as_secs_f64() * 1000.0 / IDLE.as_secs_f64();
    Ok(Idle {
        memory: process::memory(tracer.pid())?,
        user_ms: per_second(before.user, after.user),
        system_ms: per_second(before.system, after.system),
    })
}

/// The line `IWI: 12 7 IRQ work interrupts` of `/proc/interrupts`, summed over the processors: how the kernel has done what
/// may not be done in the context of a tracing program.
fn irq_works() -> Result<u64> {
    let text = fs::read_to_string("/proc/interrupts").context("reading /proc/interrupts")?;
    let line = text.lines().find_map(|line| line.trim_start().strip_prefix("IWI:")).unwrap_or_default();
    Ok(line.split_whitespace().map_while(|word| word.parse::<u64>().ok()).sum())
}

fn cpu(tracer: Option<&Tracer>) -> Result<Duration> {
    tracer.map_or(Ok(Duration::ZERO), |tracer| Ok(Cpu::of(tracer.pid())?.total()))
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
fn per_connection_us(time: Duration, load: load::Done) -> f64 {
    time.as_secs_f64() * 1e6 / load.connections.max(1) as f64
}
