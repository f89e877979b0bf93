//! `tcptrace ports`: who has the ephemeral ports now, where they lead, how many are left, and with `--for` how long they
//! will last.

mod line;
mod text;
mod trend;

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Instant;

use super::{
    args::PortsArgs,
    exit::{Exit, Failure},
    netns, trace,
};
use crate::{
    check::{self, Plan},
    correlate::Correlator,
    event::{DestinationUse, Owner, PortSurvey},
    host::{netns::Netns, sock_diag},
    identity::process::Process,
    live::{
        Live,
        drive::{Ending, drive},
    },
    output::{ended, go_on, stdout_json},
    stock::{Gap, Namespace, Opener, Scope, Survey, Wanted, ports},
};

use line::{DestinationLine, ProcessLine, RiskLine, SpaceLine, SummaryLine};
use text::text;
use trend::{Trend, round};

/// Lines of text for each list, unless all are asked for.
const SHOWN: usize = 10;

pub(super) fn run(args: &PortsArgs) -> Result<Exit, Failure> {
    let only = netns::find_all(&args.netns)?;
    let mut gaps = Vec::new();
    let scope = Scope { netns: only.clone(), ..Scope::default() };
    let traced = match args.limit {
        Some(_) => match watch(args, only, &scope) {
            Ok(traced) => Some(traced),
            Err(failure) => {
                gaps.push(Gap::new("traced", format!("rates and forecasts: {}", failure.message)));
                None
            }
        },
        None => None,
    };
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
        .filter(|space| space.survey.in_use > 0 || space.namespace.is_own || !args.netns.is_empty())
        .collect();
    let written = if args.json {
        json(&survey, &spaces)
    } else {
        text(&survey, &spaces, if args.all { usize::MAX } else { SHOWN })
    };
    ended(written).map_err(|error| trace::cannot_write(&error))?;
    Ok(Exit::Done)
}

/// What a trace adds.
struct Traced {
    world: Correlator,
    /// Ports in use between two ends when it began, by namespace.
    before: HashMap<(u32, IpAddr, SocketAddr), u32>,
    began: Instant,
}

/// Traces for the time asked for.
fn watch(args: &PortsArgs, only: Vec<Netns>, scope: &Scope) -> Result<Traced, Failure> {
    let filters = trace::Filters { netns: only, ..Default::default() };
    let options = trace::options(&args.trace, 0, filters);
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
        let began = Instant::now();
        let before = lanes(scope)?;
        let _goes_on = feed(&first).map_err(|error| trace::cannot_write(&error))?;
        let over = async {
            if let Some(limit) = args.limit {
                tokio::time::sleep(limit).await;
            }
        };
        let ending = drive(live, over, feed).await.map_err(|error| trace::cannot_write(&error))?;
        match ending {
            Ending::Over | Ending::OutputClosed | Ending::Interrupted => Ok(Traced { world, before, began }),
        }
    })
}

fn lanes(scope: &Scope) -> Result<HashMap<(u32, IpAddr, SocketAddr), u32>, Failure> {
    let survey =
        Survey::take(scope, &[Wanted::ALL]).map_err(|error| Failure::new(Exit::NotPermitted, error))?;
    let spaces = survey.namespaces.iter().filter_map(|namespace| Space::of(namespace, None));
    let mut lanes = HashMap::new();
    for space in spaces {
        let used = space.survey.destinations.iter();
        lanes.extend(used.map(|lane| ((space.namespace.id, lane.source, lane.remote), lane.ports)));
    }
    Ok(lanes)
}

/// A namespace and who has its ports.
struct Space<'a> {
    namespace: &'a Namespace,
    survey: PortSurvey,
    processes: HashMap<u32, &'a Arc<Process>>,
    traced: Option<&'a Traced>,
}

impl<'a> Space<'a> {
    fn of(namespace: &'a Namespace, traced: Option<&'a Traced>) -> Option<Self> {
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
            trend: pid.and_then(|pid| self.trend(|other| other == pid)),
        }
    }

    fn trend(&self, wanted: impl Fn(u32) -> bool) -> Option<Trend> {
        let world = &self.traced?.world;
        // What it did before it was traced is not known, and what it does from its first port on is.
        let span = world.now().since(world.start());
        let users = world.ports().users(self.namespace.id).filter(|(pid, _)| wanted(*pid));
        Trend::of(users.map(|(_, ports)| ports), span.as_secs_f64(), self.survey.free())
    }

    /// Of every container whose processes took ports.
    fn container_trends(&self) -> BTreeMap<String, Trend> {
        let Some(Traced { world, .. }) = self.traced else { return BTreeMap::new() };
        let container = |pid: u32| world.processes().info(pid).and_then(|info| info.container.clone());
        let mut trends = BTreeMap::new();
        for (pid, _) in world.ports().users(self.namespace.id) {
            let Some(name) = container(pid).filter(|name| !trends.contains_key(name)) else { continue };
            if let Some(trend) = self.trend(|other| container(other).as_ref() == Some(&name)) {
                trends.insert(name, trend);
            }
        }
        trends
    }

    /// By how many ports a second more are in use between two ends than when the trace began.
    fn growth(&self, lane: &DestinationUse) -> Option<f64> {
        let traced = self.traced?;
        let before = traced.before.get(&(self.namespace.id, lane.source, lane.remote)).copied().unwrap_or(0);
        Some(round((f64::from(lane.ports) - f64::from(before)) / traced.began.elapsed().as_secs_f64()))
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
            trend: self.trend(|_| true),
            container_trends: self.container_trends(),
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
                    growth_per_s: self.growth(lane),
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

fn json(survey: &Survey, spaces: &[Space<'_>]) -> io::Result<()> {
    let mut out = stdout_json();
    for space in spaces {
        go_on(out.write("ports", &space.line()))?;
    }
    let line = SummaryLine { namespaces: survey.namespaces.len(), gaps: Gap::reasons(&survey.gaps) };
    go_on(out.write("summary", &line))?;
    go_on(out.flush())
}
