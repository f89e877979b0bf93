//! `tcptrace ports`: who has the ephemeral ports now, where they lead, how many are left, and with `--for` how long they
//! will last.

use std::collections::{BTreeMap, HashMap};
use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr};
use std::ops::ControlFlow;
use std::sync::Arc;

use serde::Serialize;

use super::{
    args::PortsArgs,
    exit::{Exit, Failure},
    netns, trace,
};
use crate::{
    check::{self, Plan},
    correlate::{Correlator, ProcessPorts},
    event::{Owner, PortSurvey},
    host::{netns::Netns, sock_diag},
    identity::process::Process,
    live::{
        Live,
        drive::{Ending, drive},
    },
    output::escape,
    stock::{Gap, Namespace, Opener, Scope, Survey, Wanted, ports},
};

/// Lines of text for each list, unless all are asked for.
const SHOWN: usize = 10;

/// A namespace, as `--json` prints it.
#[derive(Serialize)]
struct SpaceLine<'a> {
    r#type: &'static str,
    netns: u32,
    namespace: Option<&'a str>,
    range: String,
    reserved: Option<String>,
    /// Ports that the kernel may choose.
    capacity: u32,
    in_use: u32,
    free: u32,
    /// Ports that nothing but TIME_WAIT has.
    time_wait: u32,
    /// Ports that listening and bound-only sockets have: connect() is given none of these.
    blocked: u32,
    /// Of the ports in use: those of the parity that connect() prefers, and the others, which bind() to port 0 prefers.
    in_use_connect_half: u32,
    in_use_bind_half: u32,
    processes: Vec<ProcessLine<'a>>,
    containers: BTreeMap<String, u32>,
    destinations: Vec<DestinationLine<'a>>,
    risks: Vec<RiskLine>,
    incomplete: Option<&'a str>,
}

/// A process and its ports; pid null: sockets that no process has open.
#[derive(Serialize)]
struct ProcessLine<'a> {
    pid: Option<u32>,
    comm: Option<&'a str>,
    command: Option<&'a str>,
    container: Option<String>,
    ports: u32,
    established: u32,
    close_wait: u32,
    bound: u32,
    time_wait: u32,
    most_to: Option<SocketAddr>,
    /// With `--for`.
    #[serde(skip_serializing_if = "Option::is_none")]
    trend: Option<Trend>,
}

/// What a process did while it was traced.
#[derive(Clone, Copy, Serialize)]
struct Trend {
    taken: u64,
    released: u64,
    taken_per_s: f64,
    released_per_s: f64,
    /// Only if what it holds only grows.
    growth_per_s: Option<f64>,
    growth_error_per_s: Option<f64>,
    seconds_left: Option<f64>,
    seconds_left_min: Option<f64>,
    seconds_left_max: Option<f64>,
}

/// A destination and the room toward it.
#[derive(Serialize)]
struct DestinationLine<'a> {
    source: IpAddr,
    remote: SocketAddr,
    used: u32,
    time_wait: u32,
    free: u32,
    owner: Option<&'a Owner>,
}

#[derive(Serialize)]
struct RiskLine {
    code: &'static str,
    title: String,
}

/// The last line.
#[derive(Serialize)]
struct SummaryLine<'a> {
    r#type: &'static str,
    namespaces: usize,
    /// What could not be looked at.
    gaps: Vec<&'a str>,
}

pub(super) fn run(args: &PortsArgs) -> Result<Exit, Failure> {
    let only = args.netns.as_deref().map(netns::find).transpose()?;
    let mut gaps = Vec::new();
    let traced = match args.limit {
        Some(_) => match watch(args, only.clone()) {
            Ok(world) => Some(world),
            Err(failure) => {
                gaps.push(Gap::new("traced", format!("rates and forecasts: {}", failure.message)));
                None
            }
        },
        None => None,
    };
    let scope = Scope { netns: only, ..Scope::default() };
    let mut survey =
        Survey::take(&scope, &[Wanted::ALL]).map_err(|error| Failure::new(Exit::NotPermitted, error))?;
    if survey.namespaces.is_empty() {
        return Err(Failure::new(Exit::NotPermitted, Gap::reasons(&survey.gaps).join("; ")));
    }
    match sock_diag::lists_bound_only() {
        Some(false) => {
            gaps.push(Gap::new("sockets", "before 6.8 the kernel does not list sockets that are only bound"));
        }
        None => {
            let why = "whether the kernel lists sockets that are only bound cannot be tried here";
            gaps.push(Gap::new("sockets", why));
        }
        Some(true) => {}
    }
    survey.gaps.extend(gaps);
    let spaces: Vec<Space<'_>> = survey
        .namespaces
        .iter()
        .filter_map(|namespace| Space::of(namespace, traced.as_ref()))
        // Somebody else's idle namespace is of no interest, unless it was asked for.
        .filter(|space| space.survey.in_use > 0 || space.namespace.is_own || args.netns.is_some())
        .collect();
    let written = if args.json {
        json(&survey, &spaces)
    } else {
        text(&survey, &spaces, if args.all { usize::MAX } else { SHOWN })
    };
    match written {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(trace::cannot_write(&error)),
        _ => Ok(Exit::Done),
    }
}

/// Traces for the time asked for.
fn watch(args: &PortsArgs, only: Option<Netns>) -> Result<Correlator, Failure> {
    let filters = trace::Filters { netns: only, ..Default::default() };
    let options = trace::options(&args.trace, 0, filters)?;
    trace::runtime()?.block_on(async {
        let mut world = Correlator::default();
        let mut changes = Vec::new();
        let (live, first) = Live::start(&options)?;
        let mut feed = |events: &[crate::event::Event]| {
            for event in events {
                changes.clear();
                world.on_event(event, &mut changes);
            }
            Ok(ControlFlow::Continue(()))
        };
        let _goes_on = feed(&first).map_err(|error| trace::cannot_write(&error))?;
        let over = async {
            if let Some(limit) = args.limit {
                tokio::time::sleep(limit).await;
            }
        };
        let ending = drive(live, over, feed).await.map_err(|error| trace::cannot_write(&error))?;
        match ending {
            Ending::Over | Ending::OutputClosed | Ending::Interrupted => Ok(world),
        }
    })
}

/// A namespace and who has its ports.
struct Space<'a> {
    namespace: &'a Namespace,
    survey: PortSurvey,
    processes: HashMap<u32, &'a Arc<Process>>,
    traced: Option<&'a Correlator>,
}

impl<'a> Space<'a> {
    fn of(namespace: &'a Namespace, traced: Option<&'a Correlator>) -> Option<Self> {
        let processes: HashMap<u32, &Arc<Process>> = namespace
            .sockets
            .iter()
            .filter_map(|socket| Some(&socket.owners.first()?.process))
            .map(|process| (process.pid, process))
            .collect();
        let owned: Vec<(&sock_diag::DiagSocket, Vec<Owner>)> = namespace
            .sockets
            .iter()
            .map(|socket| (&socket.diag, socket.owners.first().map(Opener::owner).into_iter().collect()))
            .collect();
        let listed = owned.iter().map(|(socket, owners)| (*socket, owners.as_slice()));
        let survey = ports::survey(namespace.id, &namespace.knobs, listed, usize::MAX)?;
        Some(Self { namespace, survey, processes, traced })
    }

    fn process<'b>(&'b self, holders: &'b crate::event::PortHolders) -> ProcessLine<'b> {
        let pid = holders.owner.as_ref().map(|owner| owner.pid);
        let process = pid.and_then(|pid| self.processes.get(&pid));
        ProcessLine {
            pid,
            comm: holders.owner.as_ref().map(|owner| owner.comm.as_str()),
            command: process.and_then(|process| process.command.as_deref()),
            container: process.and_then(|process| process.place()),
            ports: holders.ports,
            established: holders.established,
            close_wait: holders.close_wait,
            bound: holders.bound,
            time_wait: holders.time_wait,
            most_to: holders.most_to.map(|(remote, _)| remote),
            trend: pid.and_then(|pid| self.trend(pid)),
        }
    }

    fn trend(&self, pid: u32) -> Option<Trend> {
        let world = self.traced?;
        let ports = world.ports().user((self.namespace.id, pid))?;
        // What it did before it was traced is not known, and what it does from its first port on is.
        let span = world.now().since(world.start());
        Some(Trend::of(ports, span.as_secs_f64(), self.survey.free()))
    }

    fn line(&self) -> SpaceLine<'_> {
        let survey = &self.survey;
        let mut containers = BTreeMap::new();
        let processes: Vec<ProcessLine<'_>> =
            survey.processes.iter().map(|holders| self.process(holders)).collect();
        for process in &processes {
            if let Some(container) = &process.container {
                *containers.entry(container.clone()).or_default() += process.ports;
            }
        }
        let risks = check::risks(self.namespace, &Plan::default()).into_iter();
        SpaceLine {
            r#type: "ports",
            netns: self.namespace.id,
            namespace: self.namespace.name.as_deref(),
            range: survey.range.to_string(),
            reserved: self.namespace.knobs.ip_local_reserved_ports.as_ref().map(ToString::to_string),
            capacity: survey.capacity,
            in_use: survey.in_use,
            free: survey.free(),
            time_wait: survey.time_wait,
            blocked: survey.blocked,
            in_use_connect_half: survey.in_use_connect_half,
            in_use_bind_half: survey.in_use - survey.in_use_connect_half,
            processes,
            containers,
            destinations: survey
                .destinations
                .iter()
                .map(|lane| DestinationLine {
                    source: lane.source,
                    remote: lane.remote,
                    used: lane.ports,
                    time_wait: lane.time_wait,
                    free: survey.free_toward(lane.ports),
                    owner: lane.owner.as_ref(),
                })
                .collect(),
            risks: risks
                .filter(|risk| ["port-grab-risk", "small-range"].contains(&risk.code))
                .map(|risk| RiskLine { code: risk.code, title: risk.title })
                .collect(),
            incomplete: survey.incomplete.as_deref(),
        }
    }
}

impl Trend {
    /// `span` in seconds.
    fn of(ports: &ProcessPorts, span: f64, free: u32) -> Self {
        let latest = &ports.latest;
        let growth = ports.growth();
        let forecast = growth.and_then(|growth| growth.forecast(free.into()));
        #[expect(clippy::cast_precision_loss, reason = "a rate has few significant digits")]
        let rate = |count: u64| if span > 0.0 { round(count as f64 / span) } else { 0.0 };
        Self {
            taken: latest.taken(),
            released: latest.released,
            taken_per_s: rate(latest.taken()),
            released_per_s: rate(latest.released),
            growth_per_s: growth.map(|growth| round(growth.per_s)),
            growth_error_per_s: growth.map(|growth| round(growth.error_per_s)),
            seconds_left: forecast.map(|(_, likely, _)| round(likely.as_secs_f64())),
            seconds_left_min: forecast.map(|(least, ..)| round(least.as_secs_f64())),
            seconds_left_max: forecast.and_then(|(.., most)| most).map(|most| round(most.as_secs_f64())),
        }
    }
}

/// To a tenth.
fn round(number: f64) -> f64 {
    (number * 10.0).round() / 10.0
}

fn json(survey: &Survey, spaces: &[Space<'_>]) -> io::Result<()> {
    let mut out = io::BufWriter::new(io::stdout().lock());
    for space in spaces {
        serde_json::to_writer(&mut out, &space.line())?;
        writeln!(out)?;
    }
    let line = SummaryLine {
        r#type: "summary",
        namespaces: survey.namespaces.len(),
        gaps: Gap::reasons(&survey.gaps),
    };
    serde_json::to_writer(&mut out, &line)?;
    writeln!(out)?;
    out.flush()
}

fn text(survey: &Survey, spaces: &[Space<'_>], shown: usize) -> io::Result<()> {
    let mut out = io::BufWriter::new(io::stdout().lock());
    for space in spaces {
        let line = space.line();
        let own = if space.namespace.is_own { " (this one)" } else { "" };
        writeln!(out, "network namespace {}{own}", escape(&space.namespace.to_string()))?;
        let reserved = match line.reserved.as_deref() {
            Some("") => "nothing reserved".to_owned(),
            Some(reserved) => format!("reserved {reserved}"),
            None => "what is reserved is not known".to_owned(),
        };
        writeln!(out, "  {} ports: range {}, {reserved}", line.capacity, line.range)?;
        let percent = f64::from(line.in_use) * 100.0 / f64::from(line.capacity.max(1));
        writeln!(
            out,
            "  {} in use ({percent:.1} %): {} by TIME_WAIT alone, {} by sockets that listen or are only bound; {} free",
            line.in_use, line.time_wait, line.blocked, line.free
        )?;
        let half = line.capacity.div_ceil(2);
        writeln!(
            out,
            "  of about {half} each: {} in the half that connect() prefers, {} in the half of bind() to port 0",
            line.in_use_connect_half, line.in_use_bind_half
        )?;
        if !line.processes.is_empty() {
            writeln!(out, "  PORTS ESTAB CLOSE-WAIT BOUND TIME-WAIT PROCESS")?;
        }
        for process in line.processes.iter().take(shown) {
            process_text(&mut out, process)?;
        }
        more(&mut out, line.processes.len(), shown)?;
        for (container, ports) in line.containers.iter().take(shown) {
            writeln!(out, "  {ports:5} in {}", escape(container))?;
        }
        if !line.destinations.is_empty() {
            writeln!(out, "   USED TIME-WAIT  FREE DESTINATION")?;
        }
        for lane in line.destinations.iter().take(shown) {
            let owner = lane.owner.map_or_else(String::new, |owner| {
                format!(", mostly {}", escape(&format!("{}[{}]", owner.comm, owner.pid)))
            });
            writeln!(
                out,
                "  {:5} {:9} {:5} {} from {}{owner}",
                lane.used, lane.time_wait, lane.free, lane.remote, lane.source
            )?;
        }
        more(&mut out, line.destinations.len(), shown)?;
        for risk in &line.risks {
            writeln!(out, "  risk {}: {} (tcptrace check says what to do)", risk.code, escape(&risk.title))?;
        }
    }
    for gap in &survey.gaps {
        writeln!(out, "not looked at: {}", escape(&gap.why))?;
    }
    out.flush()
}

fn process_text(out: &mut impl Write, process: &ProcessLine<'_>) -> io::Result<()> {
    let name = match (process.comm, process.pid) {
        (Some(comm), Some(pid)) => escape(&format!("{comm}[{pid}]")).into_owned(),
        _ => "no process (TIME_WAIT, closing)".to_owned(),
    };
    let to = process.most_to.map_or_else(String::new, |remote| format!(", mostly to {remote}"));
    writeln!(
        out,
        "  {:5} {:5} {:10} {:5} {:9} {name}{to}",
        process.ports, process.established, process.close_wait, process.bound, process.time_wait
    )?;
    let Some(trend) = process.trend else { return Ok(()) };
    write!(
        out,
        "        took {} ({}/s), gave back {} ({}/s)",
        trend.taken, trend.taken_per_s, trend.released, trend.released_per_s
    )?;
    match (trend.growth_per_s, trend.seconds_left) {
        (Some(growth), Some(left)) => {
            let error = trend.growth_error_per_s.unwrap_or(0.0);
            let least = trend.seconds_left_min.unwrap_or(left);
            let most =
                trend.seconds_left_max.map_or_else(|| "much later".to_owned(), |most| format!("{most} s"));
            writeln!(
                out,
                "; only grows, {growth} ± {error}/s: none is left in {left} s ({least} s to {most})"
            )
        }
        _ => writeln!(out),
    }
}

fn more(out: &mut impl Write, all: usize, shown: usize) -> io::Result<()> {
    if all > shown { writeln!(out, "  … and {} more (--all)", all - shown) } else { Ok(()) }
}
