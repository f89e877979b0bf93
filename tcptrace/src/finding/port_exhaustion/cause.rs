//! Why there is no port left.

use crate::correlate::ProcessPorts;
use crate::event::PortSurvey;
use crate::finding::Confidence;

use super::{Account, Holder, sure};

/// The kernel's own range has so many ports.
pub(super) const USUAL: u64 = 28_232;

/// The cause of an exhaustion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    /// One process takes ports and does not give them back.
    Leak,
    /// Short connections: TIME_WAIT keeps their ports for a minute.
    Churn,
    /// bind() to port 0 before connect(): such a port serves one destination alone.
    BindBeforeConnect,
    /// There are few.
    SmallRange,
    /// All are in use toward one destination; toward others they are not.
    HotDestination,
}

impl Cause {
    pub(super) fn code(self) -> &'static str {
        match self {
            Self::Leak => "leak",
            Self::Churn => "churn",
            Self::BindBeforeConnect => "bind-before-connect",
            Self::SmallRange => "small-range",
            Self::HotDestination => "hot-destination",
        }
    }

    /// Whether it is about one destination rather than about the whole namespace.
    pub(super) fn is_of_destination(self) -> bool {
        self == Self::HotDestination
    }
}

/// Whether ports would be left if connect() had chosen them: then connections to several destinations share one.
fn would_share(survey: &PortSurvey) -> bool {
    let busiest = survey.destinations.first().map_or(0, |lane| u64::from(lane.ports));
    survey.destinations_total > 1 && busiest * 10 < u64::from(survey.capacity) * 9
}

/// Whether `part` is at least half of `whole`.
fn most(part: u64, whole: u64) -> bool {
    whole > 0 && part * 2 >= whole
}

impl Account<'_> {
    /// The process that has most of the ports, if one has at least half.
    pub(super) fn dominant(&self) -> Option<(&Holder, Option<&ProcessPorts>)> {
        let holder = self.holders.iter().find(|holder| holder.owner.is_some())?;
        let in_use = self.survey.map_or(0, |survey| u64::from(survey.in_use));
        let whole = match self.lane() {
            Some(lane) => u64::from(lane.ports),
            None => in_use.max(self.capacity().unwrap_or(0)),
        };
        let pid = holder.owner.as_ref()?.pid;
        let counts = self.memory.users.get(&pid).or_else(|| self.world.ports().user((self.netns, pid)));
        most(holder.ports, whole).then_some((holder, counts))
    }

    pub(super) fn cause(&self) -> (Cause, Confidence) {
        let complete = self.survey.is_some_and(|survey| survey.incomplete.is_none());
        if self.is_free_after_all() {
            // With a range of its own the kernel looked nowhere else.
            let own = self.exhaustion.own_range.is_some();
            return (Cause::SmallRange, if own { sure(complete) } else { Confidence::Possible });
        }
        if let Some(survey) = self.survey {
            let (time_wait, ports) = match self.lane() {
                Some(lane) => (lane.time_wait, lane.ports),
                None => (survey.time_wait, survey.in_use),
            };
            if ports > 0 && most(time_wait.into(), ports.into()) {
                return (Cause::Churn, sure(complete));
            }
            if would_share(survey) {
                if self.was_bound_before_connect(survey) {
                    return (Cause::BindBeforeConnect, sure(complete));
                }
                if self.requester_has_most() {
                    return (Cause::BindBeforeConnect, Confidence::Likely);
                }
            }
        }
        if let Some((holder, counts)) = self.dominant() {
            let not_closing = most(holder.close_wait.into(), holder.ports);
            let growing = counts.is_some_and(|counts| counts.growth().is_some());
            let keeps = counts.is_some_and(|counts| {
                let latest = &counts.latest;
                latest.released * 10 <= latest.taken() && most(latest.taken(), holder.ports)
            });
            if not_closing || growing || keeps {
                return (Cause::Leak, sure((not_closing || growing) && complete));
            }
            // It had them before it was traced, and has given back few since.
            if counts.is_none_or(|counts| counts.latest.released * 10 <= holder.ports) {
                return (Cause::Leak, Confidence::Possible);
            }
        }
        let Some(survey) = self.survey else { return (Cause::SmallRange, Confidence::Possible) };
        let others = self.destination.is_some()
            && survey
                .destinations
                .iter()
                .any(|lane| Some(lane.remote) != self.destination && survey.free_toward(lane.ports) > 0);
        let small = u64::from(survey.capacity) < USUAL;
        if others || (self.destination.is_some() && !small) {
            (Cause::HotDestination, sure(complete))
        } else {
            (Cause::SmallRange, if small { sure(complete) } else { Confidence::Possible })
        }
    }

    /// Whether most ports were seen being taken by bind() before connect().
    fn was_bound_before_connect(&self, survey: &PortSurvey) -> bool {
        let (mut bound, mut taken) = (0, 0);
        for (_, ports) in self.world.ports().users(self.netns) {
            bound += ports.latest.bound_connects;
            taken += ports.latest.taken();
        }
        most(bound, taken) && most(bound, survey.in_use.into())
    }

    /// Whether it is the process with most of the ports, all older than the tracer, whose own bind() to port 0 fails.
    fn requester_has_most(&self) -> bool {
        self.exhaustion.endpoints.remote.is_none()
            && self.dominant().is_some_and(|(holder, counts)| {
                let requester = self.exhaustion.requester.pid;
                holder.owner.as_ref().is_some_and(|owner| owner.pid == requester)
                    && counts.is_none_or(|counts| !most(counts.latest.taken(), holder.ports))
            })
    }

    /// The cause in words.
    pub(super) fn explain(&self, cause: Cause) -> String {
        let who = |holder: &Holder| {
            holder.owner.as_ref().map_or_else(String::new, |owner| self.process_name(owner).to_string())
        };
        match cause {
            Cause::Leak => {
                let Some((holder, counts)) = self.dominant() else { return String::new() };
                let counted = counts.map_or_else(String::new, |counts| {
                    let latest = &counts.latest;
                    format!("; since it is traced it took {} and gave back {}", latest.taken(), latest.released)
                });
                let closed = if holder.close_wait > 0 {
                    format!("; the peers of {} have closed, and it has not", holder.close_wait)
                } else {
                    String::new()
                };
                format!("{} has {} ports and keeps them{closed}{counted}", who(holder), holder.ports)
            }
            Cause::Churn => {
                let (time_wait, ports) = match (self.lane(), self.survey) {
                    (Some(lane), _) => (lane.time_wait, lane.ports),
                    (None, Some(survey)) => (survey.time_wait, survey.in_use),
                    (None, None) => (0, 0),
                };
                format!(
                    "{time_wait} of {ports} ports are in TIME_WAIT: short connections that this side closed first, each of \
                     which keeps its port for {}",
                    self.time_in_time_wait()
                )
            }
            Cause::BindBeforeConnect => {
                "ports are taken by bind() to port 0 before connect(): such a port serves one connection alone, while those \
                 that connect() chooses serve one to each destination"
                    .to_owned()
            }
            Cause::SmallRange if self.is_free_after_all() => match self.exhaustion.own_range {
                Some(own) => format!(
                    "its socket takes ports from {own} alone ({} ports, by IP_LOCAL_PORT_RANGE): outside of it there are free \
                     ones",
                    own.len()
                ),
                None => "a moment later ports were free: they were given back in between".to_owned(),
            },
            Cause::SmallRange if self.survey.is_none() => {
                "who has the ports could not be looked up: any cause is possible".to_owned()
            }
            Cause::SmallRange => format!(
                "there are {} ephemeral ports, and no process has most of them",
                self.capacity().map_or_else(|| "few".to_owned(), |capacity| capacity.to_string())
            ),
            Cause::HotDestination => format!(
                "a port serves one connection to each destination: toward {} all are in use, toward others they are not",
                self.destination.map_or_else(|| "it".to_owned(), |remote| remote.to_string())
            ),
        }
    }
}
