//! Actors: the separate, named processes of an incident. This file is the stage's end of the line.
//!
//! An actor is our own executable started again (`tt-proxy __actor tt-proxy`), so that nothing but one static binary is
//! needed. It lives in the stage's namespace because the thread that starts it does. It cannot outlive us: it ends
//! when its control pipe closes, it asks the kernel for SIGKILL when the namespace thread ends, and it is killed and
//! reaped when its [`Actor`] is dropped. SIGINT does not reach it (own process group, and blocked), so that Ctrl-C is
//! handled in one place.

mod bind;
mod browser;
mod connections;
mod crowd;
mod damaged;
mod frame;
mod guard;
mod order;
mod packets;
mod passing;
mod puppet;
mod redial;
mod ring;
mod service;
mod sockets;
mod steering;
mod storm;
mod takings;
mod web;

pub(super) use frame::checksum;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::cancel::{Cancel, TICK};
use super::error::{During, Error, Result};
use super::namespace::Namespace;
pub(super) use bind::can_confine;
pub(super) use order::{
    Accepting, Bind, BindAttempt, Check, Crowd, CrowdTally, Damaged, Door, Guard, Habit, Hello, Load, Manner,
    Order, Place, Race, Redial, Reply, Stamp, Storm, Take, Taken, Tally, Visit, Visits,
};
pub use puppet::actor_main;
pub(super) use puppet::raise_fd_limit;
pub(super) use sockets::{TcpDeferAccept, have_own_ranges, mptcp};

/// The hidden subcommand that makes our executable an actor; everything after it goes to [`actor_main`].
pub const ACTOR_SUBCOMMAND: &str = "__actor";

/// Option of an actor that inherits a listening socket (as its stderr) from a parent that is about to go.
const HEIR: &str = "--heir";

/// Option of a process that only accepts, from a socket that it inherits likewise; then the milliseconds that it takes for a
/// connection, and after how many it exits.
const WORKER: &str = "--worker";

/// How long an actor may take to answer. Generous: an emulated machine is twenty times slower than this one.
const PATIENCE: Duration = Duration::from_secs(60);

/// Who an actor is, for the ground truth.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Identity {
    /// Its part in the incident, which is also its `comm`.
    pub role: String,
    /// Process id, in our own pid namespace.
    pub pid: u32,
    /// `/proc/PID/comm`.
    pub comm: String,
    /// `/proc/PID/cmdline`, joined by spaces.
    pub command: String,
}

/// How a socket comes to a process that is no child of the one that made it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Passage {
    /// It is sent in a message (SCM_RIGHTS).
    Message,
    /// It is fetched (pidfd_getfd).
    Fetched,
}

/// A running actor. Dropping it ends the process.
#[derive(Debug)]
pub(super) struct Actor {
    identity: Identity,
    child: Child,
    orders: Option<ChildStdin>,
    replies: mpsc::Receiver<String>,
    cancel: Cancel,
    /// The process that we started has gone and left its sockets, and the line, to this one.
    heir: Option<Pid>,
}

impl Actor {
    /// Starts an actor inside `namespace` and waits until it is ready.
    pub(super) fn start(
        namespace: &Namespace,
        executable: &Path,
        role: &str,
        cancel: &Cancel,
    ) -> Result<Self> {
        let mut command = Command::new(executable);
        command
            .arg0(role)
            .args([ACTOR_SUBCOMMAND, role])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .process_group(0);
        // A child is in the namespace of the thread that made it; and that thread's end is its death signal.
        let mut child = namespace.run(move || command.spawn())?.during(format!("starting actor {role}"))?;
        let orders = child.stdin.take();
        let (lines, replies) = mpsc::channel();
        if let Some(output) = child.stdout.take() {
            std::thread::Builder::new()
                .name("tt-replies".into())
                .spawn(move || {
                    let mut output = BufReader::new(output).lines();
                    while let Some(Ok(line)) = output.next() {
                        if lines.send(line).is_err() {
                            break;
                        }
                    }
                })
                .during(format!("listening to actor {role}"))?;
        }
        let identity =
            Identity { role: role.to_owned(), pid: child.id(), comm: String::new(), command: String::new() };
        let mut actor = Self { identity, child, orders, replies, cancel: cancel.clone(), heir: None };
        let hello: Hello = actor.reply()?;
        actor.recognise(hello.pid);
        Ok(actor)
    }

    pub(super) fn identity(&self) -> &Identity {
        &self.identity
    }

    pub(super) fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.identity.pid).unwrap_or_default())
    }

    /// Gives an order and waits for what came of it.
    pub(super) fn ask<T: DeserializeOwned>(&mut self, order: &Order) -> Result<T> {
        self.tell(order)?;
        self.reply()
    }

    /// Gives an order; its [`Actor::reply`] must be fetched before the next one.
    #[expect(clippy::disallowed_methods, reason = "a pipe to the actor, which reads it as JSON; no terminal")]
    pub(super) fn tell(&mut self, order: &Order) -> Result<()> {
        let mut line = serde_json::to_vec(order).map_err(|error| self.problem(error.to_string()))?;
        line.push(b'\n');
        let sent = self.orders.as_mut().map_or(Ok(()), |orders| orders.write_all(&line));
        sent.map_err(|error| self.problem(format!("does not take orders: {error}")))
    }

    /// Waits for the answer to the order given last.
    pub(super) fn reply<T: DeserializeOwned>(&mut self) -> Result<T> {
        let until = Instant::now() + PATIENCE;
        let line = loop {
            self.cancel.check()?;
            match self.replies.recv_timeout(TICK) {
                Ok(line) => break line,
                Err(RecvTimeoutError::Timeout) if Instant::now() < until => {}
                Err(RecvTimeoutError::Timeout) => {
                    return Err(self.problem(format!("gives no answer for {} s", PATIENCE.as_secs())));
                }
                Err(RecvTimeoutError::Disconnected) => return Err(self.ended()),
            }
        };
        let understood = serde_json::from_str(&line).and_then(|reply| match reply {
            Reply::Done(value) => serde_json::from_value(value).map(Ok),
            Reply::Failed(problem) => Ok(Err(problem)),
        });
        match understood {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(problem)) => Err(self.problem(problem)),
            Err(error) => Err(self.problem(format!("answered {line:?}: {error}"))),
        }
    }

    /// Sends the process a signal.
    pub(super) fn signal(&self, signal: Signal) -> Result<()> {
        kill(self.pid(), signal).during(format!("sending {signal} to actor {}", self.identity.role))
    }

    /// Stops the process, and waits until it has: a thread that is just being woken would accept one connection more.
    pub(super) fn stop(&self) -> Result<()> {
        self.signal(Signal::SIGSTOP)?;
        self.await_stop(self.identity.pid)
    }

    /// Stops one of the processes that it has started, and waits likewise.
    pub(super) fn stop_hired(&self, hired: &Identity) -> Result<()> {
        let pid = Pid::from_raw(i32::try_from(hired.pid).unwrap_or_default());
        kill(pid, Signal::SIGSTOP).during(format!("stopping {}", hired.role))?;
        self.await_stop(hired.pid)
    }

    fn await_stop(&self, pid: u32) -> Result<()> {
        let stopped = self.cancel.wait(PATIENCE, || {
            let threads = fs::read_dir(format!("/proc/{pid}/task"));
            let threads = threads.during(format!("looking at process {pid}"))?;
            Ok(threads.flatten().all(|thread| is_stopped(&thread.path())))
        })?;
        if stopped { Ok(()) } else { Err(self.problem(format!("{pid} does not stop"))) }
    }

    /// Waits until the process has gone, by itself or killed by somebody else.
    pub(super) fn await_end(&mut self) -> Result<()> {
        let child = &mut self.child;
        let gone = self.cancel.wait(PATIENCE, || {
            child.try_wait().map(|status| status.is_some()).during("waiting for an actor to end")
        })?;
        if gone { Ok(()) } else { Err(self.problem("does not end".into())) }
    }

    /// Has the actor start processes that accept from its socket; who they are.
    pub(super) fn hire(
        &mut self,
        name: &str,
        workers: usize,
        every_ms: u64,
        customers: usize,
    ) -> Result<Vec<Identity>> {
        let order = Order::Hire { name: name.to_owned(), workers, every_ms, customers };
        let pids: Vec<u32> = self.ask(&order)?;
        let mut hired = Vec::with_capacity(pids.len());
        for pid in pids {
            // It takes its name when it begins.
            let comm = || fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            let begun = self.cancel.wait(PATIENCE, || Ok(comm().trim_end() == name))?;
            if !begun {
                return Err(self.problem(format!("its worker {pid} does not begin")));
            }
            hired.push(Identity {
                role: name.to_owned(),
                pid,
                comm: name.to_owned(),
                command: command_line(pid),
            });
        }
        Ok(hired)
    }

    /// Keeps it to the first processor that this process may use.
    pub(super) fn pin(&self) -> Result<()> {
        let pin = || {
            let allowed = sched_getaffinity(Pid::from_raw(0))?;
            let first = (0..CpuSet::count()).find(|cpu| allowed.is_set(*cpu).unwrap_or(false));
            let mut one = CpuSet::new();
            one.set(first.unwrap_or(0))?;
            sched_setaffinity(Pid::from_raw(self.identity.pid.cast_signed()), &one)
        };
        pin().during(format!("keeping {} to one processor", self.identity.role))
    }

    /// Has the actor leave its sockets to a child of its own and exit.
    pub(super) fn bequeath(&mut self, heir: &str) -> Result<()> {
        let hello: Hello = self.ask(&Order::Bequeath { heir: heir.to_owned() })?;
        // Only now does one process alone read the line.
        self.await_end()?;
        heir.clone_into(&mut self.identity.role);
        self.recognise(hello.pid);
        self.heir = Some(self.pid());
        Ok(())
    }

    /// Has the actor leave its listening socket to `heir`, which is not its child, and end.
    pub(super) fn hand_over(&mut self, heir: &mut Self, passage: Passage) -> Result<()> {
        match passage {
            Passage::Message => {
                let at = format!("tt-passage-{}", heir.identity.pid);
                heir.tell(&Order::Receive { at: at.clone() })?;
                self.ask::<()>(&Order::Pass { to: at })?;
                heir.reply::<()>()?;
            }
            Passage::Fetched => {
                let descriptor = self.ask(&Order::Descriptor)?;
                heir.ask::<()>(&Order::Fetch { pid: self.identity.pid, descriptor })?;
            }
        }
        self.signal(Signal::SIGTERM)?;
        self.await_end()
    }

    fn recognise(&mut self, pid: u32) {
        self.identity.pid = pid;
        self.identity.comm = fs::read_to_string(format!("/proc/{pid}/comm"))
            .map(|comm| comm.trim_end().to_owned())
            .unwrap_or_default();
        self.identity.command = command_line(pid);
    }

    fn problem(&self, problem: String) -> Error {
        Error::Actor { role: self.identity.role.clone(), problem }
    }

    fn ended(&mut self) -> Error {
        let how = match self.child.try_wait() {
            Ok(Some(status)) => match (status.code(), status.signal()) {
                (Some(code), _) => format!("ended with exit status {code}"),
                (None, Some(signal)) => format!("was killed by signal {signal}"),
                (None, None) => "ended".to_owned(),
            },
            _ => "closed its line".to_owned(),
        };
        self.problem(format!("{how} before it answered"))
    }
}

impl Drop for Actor {
    fn drop(&mut self) {
        self.orders = None;
        // An error means that it has gone already, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if let Some(heir) = self.heir {
            // Not our child, so not ours to reap, and its number could be reused once it is gone: it ends because its
            // line has closed, and only if it still goes by its name after a while is it killed.
            let until = Instant::now() + Duration::from_secs(1);
            while self.replies.recv_timeout(TICK) != Err(RecvTimeoutError::Disconnected)
                && Instant::now() < until
            {}
            if command_line(self.identity.pid) == self.identity.command && !self.identity.command.is_empty() {
                let _ = kill(heir, Signal::SIGKILL);
            }
        }
    }
}

/// Whether a thread, given by its directory in procfs, is stopped by a signal.
fn is_stopped(thread: &Path) -> bool {
    let stat = fs::read_to_string(thread.join("stat")).unwrap_or_default();
    // After the name, which may contain anything.
    stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T'))
}

fn command_line(pid: u32) -> String {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let words: Vec<_> = line.split(|&byte| byte == 0).map(String::from_utf8_lossy).collect();
    words.join(" ").trim_end().to_owned()
}
