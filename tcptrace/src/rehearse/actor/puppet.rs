//! The actor's end of the line: takes orders from stdin, carries them out, answers on stdout.

use std::ffi::OsString;
use std::io::{self, BufRead, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode, Stdio};
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use nix::sys::prctl;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::socket::setsockopt;
use serde::Serialize;
use serde_json::Value;

use super::order::{Hello, Order, Reply};
use super::{
    ACTOR_SUBCOMMAND, HEIR, WORKER, bind, browser, connections::Connections, crowd, damaged, guard, passing,
    redial, ring, service, sockets, steering, storm, takings::Takings, web,
};

/// How long a connection that the stage waits for may take.
const CONNECT_PATIENCE: Duration = Duration::from_secs(30);

/// What our executable does when it was started as `… __actor ROLE`; `args` is what follows [`ACTOR_SUBCOMMAND`].
///
/// Call it before anything else: an actor has one thread at this point, no runtime and no logging of its own.
pub fn actor_main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let mut args = args.into_iter();
    let role = args.next().unwrap_or_default().to_string_lossy().into_owned();
    let option = args.next();
    if option.as_ref().is_some_and(|option| option == WORKER) {
        let mut number = || args.next()?.to_string_lossy().parse::<u64>().ok();
        let (every, customers) = (number().unwrap_or_default(), number().unwrap_or_default());
        return match work(&role, Duration::from_millis(every), customers) {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => ExitCode::FAILURE,
        };
    }
    let heir = option.is_some_and(|option| option == HEIR);
    match perform(&role, heir) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // The stage shows it; if the line itself is broken there is nobody left to tell.
            let _ = answer(&Reply::Failed(error.to_string()));
            ExitCode::FAILURE
        }
    }
}

fn perform(role: &str, heir: bool) -> io::Result<()> {
    // The stage's process deals with Ctrl-C; every thread started from here on inherits the mask.
    let mut blocked = SigSet::empty();
    blocked.add(Signal::SIGINT);
    blocked.thread_block()?;
    if !heir {
        // An heir's parent goes on purpose; it ends with its line alone.
        prctl::set_pdeathsig(Signal::SIGKILL)?;
    }
    let name = std::ffi::CString::new(role)?;
    prctl::set_name(&name)?;
    raise_fd_limit();

    let mut puppet = Puppet::default();
    if heir {
        puppet.bound = Some(io::stderr().as_fd().try_clone_to_owned()?);
    }
    let orders = orders()?;
    answer(&done(Hello { pid: std::process::id() })?)?;
    for line in orders {
        let reply = match serde_json::from_str(&line) {
            Ok(order) => match puppet.carry_out(order) {
                Ok(Some(value)) => Reply::Done(value),
                Ok(None) => return Ok(()),
                Err(error) => Reply::Failed(error.to_string()),
            },
            Err(error) => Reply::Failed(format!("cannot read the order {line:?}: {error}")),
        };
        answer(&reply)?;
    }
    Ok(())
}

/// What a hired process does: accepts from the socket that is its stderr.
fn work(role: &str, every: Duration, customers: u64) -> io::Result<()> {
    prctl::set_pdeathsig(Signal::SIGKILL)?;
    let name = std::ffi::CString::new(role)?;
    prctl::set_name(&name)?;
    let listener = TcpListener::from(io::stderr().as_fd().try_clone_to_owned()?);
    let mut served = 0;
    while customers == 0 || served < customers {
        let (mut connection, _) = listener.accept()?;
        served += 1;
        std::thread::sleep(every);
        // The client may have gone meanwhile.
        let _ = connection.write(b"!");
    }
    Ok(())
}

/// Reads orders on a thread of its own, so that the line's end ends the actor in the middle of anything.
fn orders() -> io::Result<mpsc::Receiver<String>> {
    let (send, orders) = mpsc::channel();
    std::thread::Builder::new().spawn(move || {
        let mut lines = io::stdin().lock().lines();
        while let Some(Ok(line)) = lines.next() {
            if send.send(line).is_err() {
                return;
            }
        }
        std::process::exit(0);
    })?;
    Ok(orders)
}

#[expect(clippy::disallowed_methods, reason = "a pipe to the rehearsal, which reads it as JSON; no terminal")]
fn answer(reply: &Reply) -> io::Result<()> {
    let mut line = serde_json::to_vec(reply)?;
    line.push(b'\n');
    let mut out = io::stdout().lock();
    out.write_all(&line)?;
    out.flush()
}

fn done(value: impl Serialize) -> io::Result<Reply> {
    Ok(Reply::Done(serde_json::to_value(value)?))
}

/// Hundreds of held connections do not fit under the usual soft limit of 1024 for long.
pub(in crate::rehearse) fn raise_fd_limit() {
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        // If it is refused the incident may still fit; if not, the failing socket() says so.
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard.min(65536), hard);
    }
}

/// The actor's state: what it has bound, whom it serves, whom it has called.
#[derive(Default)]
struct Puppet {
    bound: Option<OwnedFd>,
    workers: Option<Arc<service::Books>>,
    web: Option<web::Service>,
    takings: Takings,
    connections: Connections,
    /// What it has accepted and does nothing with.
    kept: Vec<TcpStream>,
    crowd: Option<crowd::Loose>,
    /// Keeps the listening socket as well.
    ring: Option<OwnedFd>,
    /// Gives connections to other ports to the listening socket.
    steering: Option<steering::Steering>,
}

impl Puppet {
    /// None: the actor has handed over to its heir, who answers instead.
    fn carry_out(&mut self, order: Order) -> io::Result<Option<Value>> {
        let value = match order {
            Order::Bind(order) => {
                let (attempts, socket) = bind::take_port(&order)?;
                self.bound = socket.or(self.bound.take());
                serde_json::to_value(attempts)?
            }
            Order::Open(door) => {
                self.bound = Some(bind::open(&door)?);
                Value::Null
            }
            Order::Listen { backlog } => serde_json::to_value(bind::listen_on(self.socket()?, backlog)?)?,
            Order::DeferAccept { seconds } => {
                setsockopt(self.socket()?, sockets::TcpDeferAccept, &seconds)?;
                Value::Null
            }
            Order::Guard(guard) => {
                guard::set(self.socket()?, guard)?;
                Value::Null
            }
            Order::Steer { from } => {
                self.steering = Some(steering::steer(self.socket()?, from)?);
                Value::Null
            }
            Order::Entrust => {
                self.ring = Some(ring::keeping(self.socket()?)?);
                Value::Null
            }
            Order::Accept { workers, every_ms } => {
                let busy = Duration::from_millis(every_ms);
                self.workers = Some(service::start(&self.listener()?, workers, busy)?);
                Value::Null
            }
            Order::Pace { every_ms } => {
                self.books()?.set_pace(Duration::from_millis(every_ms));
                Value::Null
            }
            Order::Hoard { spare } => {
                let (books, limit) = service::hoard(self.listener()?, spare)?;
                self.workers = Some(books);
                limit.into()
            }
            Order::AcceptAs { manner } => {
                let (books, limit) = service::accept_as(self.listener()?, manner)?;
                self.workers = Some(books);
                limit.into()
            }
            Order::Hire { name, workers, every_ms, customers } => {
                serde_json::to_value(self.hire(&name, workers, every_ms, customers)?)?
            }
            Order::AcceptOne => {
                self.kept.push(self.listener()?.accept()?.0);
                Value::Null
            }
            Order::Accepted => self.workers.as_ref().map_or(0, |books| books.accepted()).into(),
            Order::Refused => self.books()?.refused().into(),
            Order::Acceptances => serde_json::to_value(self.books()?.acceptances())?,
            Order::Serve { workers } => {
                self.web = Some(web::Service::start(&self.listener()?, workers)?);
                Value::Null
            }
            Order::Close => {
                self.web = None;
                self.bound = None;
                self.ring = None;
                Value::Null
            }
            Order::Bequeath { heir } => {
                self.bequeath(&heir)?;
                return Ok(None);
            }
            Order::Receive { at } => {
                self.bound = Some(passing::receive(&at)?);
                Value::Null
            }
            Order::Pass { to } => {
                passing::send(self.socket()?, &to)?;
                Value::Null
            }
            Order::Descriptor => self.socket()?.as_raw_fd().into(),
            Order::Fetch { pid, descriptor } => {
                self.bound = Some(passing::fetch(pid, descriptor)?);
                Value::Null
            }
            Order::Connect { to, count } => {
                for _ in 0..count {
                    self.connections.open(to)?;
                }
                match self.connections.settle(CONNECT_PATIENCE)? {
                    0 => serde_json::to_value(self.connections.addresses())?,
                    pending => {
                        return Err(io::Error::other(format!(
                            "{pending} connections to {to} do not come about"
                        )));
                    }
                }
            }
            Order::Dial { to, ports, every_ms } => {
                self.connections.dial(to, &ports, Duration::from_millis(every_ms))?.into()
            }
            Order::Connections => serde_json::to_value(self.connections.stamps())?,
            Order::Send => self.connections.send_late().into(),
            Order::Load(load) => self.connections.load(&load)?.into(),
            Order::HangUp { reset } => serde_json::to_value(self.connections.hang_up(reset)?)?,
            Order::Visit(order) => serde_json::to_value(web::visit(&order)?)?,
            Order::Race(order) => serde_json::to_value(browser::race(&order)?)?,
            Order::Knock { at } => serde_json::to_value(browser::knock(&at)?)?,
            Order::Check(order) => {
                browser::check(&order)?;
                Value::Null
            }
            Order::Redial(order) => {
                let (answers, kept) = redial::redial(&order)?;
                self.kept.extend(kept);
                serde_json::to_value(answers)?
            }
            Order::Take(order) => serde_json::to_value(self.takings.take(&order)?)?,
            Order::Crowd(order) => {
                self.crowd = Some(crowd::Loose::start(order)?);
                Value::Null
            }
            Order::CrowdBusy => self.crowd.as_ref().is_some_and(crowd::Loose::is_busy).into(),
            Order::Disperse => {
                let crowd = self.crowd.take().ok_or_else(|| io::Error::other("there is no crowd"))?;
                serde_json::to_value(crowd.disperse()?)?
            }
            Order::Storm(order) => storm::rage(&order)?.into(),
            Order::Damaged(order) => damaged::send(&order)?.into(),
        };
        Ok(Some(value))
    }

    fn books(&self) -> io::Result<&service::Books> {
        self.workers.as_deref().ok_or_else(|| io::Error::other("nobody works here"))
    }

    fn socket(&self) -> io::Result<&OwnedFd> {
        self.bound.as_ref().ok_or_else(|| io::Error::other("no port is bound"))
    }

    fn listener(&self) -> io::Result<TcpListener> {
        Ok(self.socket()?.try_clone()?.into())
    }

    /// Starts processes that accept from the socket.
    fn hire(&self, name: &str, workers: usize, every_ms: u64, customers: usize) -> io::Result<Vec<u32>> {
        (0..workers)
            .map(|_| {
                let mut child = Command::new("/proc/self/exe")
                    .arg0(name)
                    .args([ACTOR_SUBCOMMAND, name, WORKER, &every_ms.to_string(), &customers.to_string()])
                    .stdin(Stdio::null())
                    .stdout(Stdio::null())
                    .stderr(Stdio::from(self.socket()?.try_clone()?))
                    .spawn()?;
                let pid = child.id();
                // One that has exited is to be gone, not a zombie.
                std::thread::Builder::new().spawn(move || child.wait())?;
                Ok(pid)
            })
            .collect()
    }

    /// The socket becomes the heir's stderr: the one inherited descriptor, beside the line, that std can pass on.
    fn bequeath(&mut self, heir: &str) -> io::Result<()> {
        let socket = self.bound.take().ok_or_else(|| io::Error::other("no port is bound"))?;
        Command::new("/proc/self/exe")
            .arg0(heir)
            .args([ACTOR_SUBCOMMAND, heir, HEIR])
            .stderr(Stdio::from(socket))
            .spawn()
            .map(drop)
    }
}
