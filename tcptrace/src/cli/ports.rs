//! `tcptrace ports`: who has the ephemeral ports now, where they lead, how many are left, and with `--for` how long they
//! will last.

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
    event::{DestinationUse, Owner, PortSurvey, SocketState, Timestamp},
    host::{netns::Netns, sock_diag},
    identity::process::Process,
    live::{
        Live,
        drive::{Ending, drive},
    },
    output::json::{
        Container, ContainerPortsLine, Endpoint, LaneLine, Missing, Netns as NetnsLine, PortRiskLine,
        Process as ProcessName, ProcessPortsLine, Range, SpaceLine, SummaryLine, TrendLine,
    },
    output::{ended, go_on, stdout_json},
    stock::{Gap, Namespace, Scope, Survey, Wanted, ports},
};

use text::text;
use trend::{round, trend_of};

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
    // Where there is such a socket, nothing needs to be tried: a network namespace would be made for it.
    let mut sockets = survey.namespaces.iter().flat_map(|namespace| &namespace.sockets);
    let seen = sockets.any(|socket| socket.diag.state == SocketState::Bound);
    match if seen { Some(true) } else { sock_diag::lists_bound_only() } {
        Some(true) => {}
        Some(false) => {
            gaps.push(Gap::new("sockets", "before 6.8 the kernel does not list sockets that are only bound"));
        }
        None => {
            let why = "whether the kernel lists sockets that are only bound cannot be tried here";
            gaps.push(Gap::new("sockets", why));
        }
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
        let owned = namespace.sockets.iter().map(|socket| {
            let first = socket.owners.first().map(|owner| &owner.process);
            (&socket.diag, first.map(|process| (process.pid, process.comm.as_str())))
        });
        let survey = ports::survey(namespace.id, &namespace.knobs, owned, usize::MAX)?;
        Some(Self { namespace, survey, processes, traced })
    }

    /// An owner of a port, with what was read of its process.
    fn name(&self, owner: Option<&Owner>) -> ProcessName {
        let read = owner.and_then(|owner| self.processes.get(&owner.pid));
        match (read, owner) {
            (Some(process), _) => ProcessName::read(process),
            (None, Some(owner)) => ProcessName::from(owner),
            (None, None) => ProcessName::default(),
        }
    }

    fn process(&self, holders: &crate::event::PortHolders) -> ProcessPortsLine {
        let pid = holders.owner.as_ref().map(|owner| owner.pid);
        ProcessPortsLine {
            process: self.name(holders.owner.as_ref()),
            ports: holders.ports,
            established: holders.established,
            close_wait: holders.close_wait,
            bound: holders.bound,
            time_wait: holders.time_wait,
            most_to: holders.most_to.map(|(remote, _)| Endpoint::from(remote)),
            trend: pid.and_then(|pid| self.trend(|other| other == pid)),
        }
    }

    /// How long was traced.
    fn traced_s(&self) -> Option<f64> {
        let world = &self.traced?.world;
        Some(round(world.now().since(world.start()).as_secs_f64()))
    }

    fn trend(&self, wanted: impl Fn(u32) -> bool) -> Option<TrendLine> {
        let world = &self.traced?.world;
        // What it did before it was traced is not known, and what it does from its first port on is.
        let span = world.now().since(world.start());
        let users = world.ports().users(self.namespace.id).filter(|(pid, _)| wanted(*pid));
        trend_of(users.map(|(_, ports)| ports), span.as_secs_f64(), self.survey.free())
    }

    /// Of every container whose processes took ports.
    fn container_trends(&self) -> BTreeMap<Container, TrendLine> {
        let Some(Traced { world, .. }) = self.traced else { return BTreeMap::new() };
        let container = |pid: u32| {
            let info = world.processes().info(pid)?;
            Container::of(info.container.as_deref(), &info.details)
        };
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

    /// What is in use by container or unit, the most first.
    fn containers(&self, processes: &[ProcessPortsLine]) -> Vec<ContainerPortsLine> {
        let mut ports: BTreeMap<&Container, u32> = BTreeMap::new();
        for of in processes {
            if let Some(container) = &of.process.container {
                *ports.entry(container).or_default() += of.ports;
            }
        }
        let mut trends = self.container_trends();
        let mut lines: Vec<ContainerPortsLine> = ports
            .into_iter()
            .map(|(container, ports)| ContainerPortsLine {
                container: container.clone(),
                ports,
                trend: trends.remove(container),
            })
            .collect();
        lines.sort_by(|a, b| b.ports.cmp(&a.ports).then_with(|| a.container.cmp(&b.container)));
        lines
    }

    fn line(&self) -> SpaceLine {
        let survey = &self.survey;
        let processes: Vec<ProcessPortsLine> =
            survey.processes.iter().map(|holders| self.process(holders)).collect();
        let containers = self.containers(&processes);
        let risks = check::risks(self.namespace, &Plan::default()).into_iter();
        SpaceLine {
            netns: NetnsLine::named(self.namespace.id, self.namespace.name.as_deref()),
            range: Range::from(survey.range),
            reserved: self.namespace.knobs.ip_local_reserved_ports.as_ref().map(Range::all),
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
            destinations: survey
                .destinations
                .iter()
                .map(|lane| LaneLine {
                    source: lane.source,
                    remote: lane.remote.into(),
                    used: lane.ports,
                    time_wait: lane.time_wait,
                    free: survey.free_toward(lane.ports),
                    process: lane.owner.as_ref().map(|owner| self.name(Some(owner))),
                    growth_per_s: self.growth(lane),
                })
                .collect(),
            risks: risks
                .filter(|risk| ["port-grab-risk", "small-range"].contains(&risk.code))
                .map(|risk| PortRiskLine { code: risk.code, title: risk.title })
                .collect(),
            missing: survey
                .incomplete
                .iter()
                .map(|why| Missing { what: "sockets".to_owned(), why: why.clone() })
                .collect(),
        }
    }
}

fn json(survey: &Survey, spaces: &[Space<'_>]) -> io::Result<()> {
    let (mut out, now) = (stdout_json("ports"), Timestamp::now());
    for space in spaces {
        go_on(out.write(now, &space.line().into()))?;
    }
    let namespaces = u64::try_from(survey.namespaces.len()).unwrap_or(u64::MAX);
    let line = SummaryLine {
        command: "ports",
        counts: SummaryLine::counts([("namespaces", namespaces)]),
        missing: survey.gaps.iter().map(Missing::from).collect(),
        duration_s: spaces.first().and_then(Space::traced_s),
        ..SummaryLine::default()
    };
    go_on(out.write(now, &line.into()))?;
    go_on(out.flush())
}
