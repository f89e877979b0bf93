//! `tcptrace record`: a trace into a file, and a load test's while it runs.

use std::{
    borrow::Cow,
    ffi::{OsStr, OsString},
    io::{self, IsTerminal as _, Write as _},
    ops::ControlFlow,
    os::unix::process::ExitStatusExt as _,
    path::{Path, PathBuf},
    process::ExitStatus,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::{AccessFlags, Pid, access, setgroups, setresgid, setresuid},
};
use tokio::process::{Child, Command};

use super::{
    args::RecordArgs,
    exit::{Exit, Failure},
    report, selection, trace,
};
use crate::{
    correlate::{Change, Correlator},
    event::{Event, Kind, Timestamp},
    identity::invoker::Invoker,
    live::{
        self, Live,
        drive::{Ending, drive},
    },
    output::{Lines, Screen, Selection},
    record::{Metadata, Plan, Recorded, Recorder, part_path, write_failure},
};

/// How long is looked on after the command has ended: the samples and polls of its last second.
const SETTLE: Duration = Duration::from_millis(1200);

pub(super) fn run(args: &RecordArgs) -> Result<Exit, Failure> {
    selection::are_there(&args.parties.pid)?;
    let mut filters = trace::Filters::of(&args.filter.port, &args.filter.netns)?;
    filters.words.extend(selection::of_parties(&args.parties).words());
    let options = trace::options(&args.trace, trace::streams(args.all, args.syns), filters);
    // Before anything is attached: what would fail in the end fails at once, and leaves no file.
    plan(args).check().map_err(|error| cannot_make(&args.output, &error))?;
    let invoker = if args.as_root { None } else { Invoker::find() };
    if let Some(program) = args.command.first() {
        runnable(program, &search_path(invoker.as_ref()))?;
    }
    trace::runtime()?.block_on(record(args, invoker, &options))
}

fn plan(args: &RecordArgs) -> Plan {
    Plan { path: args.output.clone(), force: args.force, rotation: args.rotate, keep: args.keep }
}

fn cannot_make(path: &Path, error: &io::Error) -> Failure {
    let exit = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Exit::CannotWrite,
        _ => Exit::Usage,
    };
    Failure::new(exit, format!("{}: {}", path.display(), write_failure(error)))
}

/// Where the command is looked for: in the user's own PATH, if it is to run as the user.
fn search_path(invoker: Option<&Invoker>) -> OsString {
    let own = invoker.and_then(|invoker| invoker.variable("PATH")).map(OsStr::to_owned);
    own.or_else(|| std::env::var_os("PATH")).unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".into())
}

/// Whether there is a program of that name that may be run, as execvp(3) looks for it.
fn runnable(program: &OsStr, path: &OsStr) -> Result<(), Failure> {
    let shown = program.to_string_lossy();
    let candidates: Vec<PathBuf> = if program.as_encoded_bytes().contains(&b'/') {
        vec![PathBuf::from(program)]
    } else {
        std::env::split_paths(path).map(|directory| directory.join(program)).collect()
    };
    let there: Vec<&PathBuf> = candidates.iter().filter(|path| path.is_file()).collect();
    if there.iter().any(|path| access(path.as_path(), AccessFlags::X_OK).is_ok()) {
        return Ok(());
    }
    Err(if there.is_empty() {
        Failure::new(Exit::NoSuchCommand, format!("{shown} cannot be run: there is no such command"))
    } else {
        Failure::new(Exit::NotRunnable, format!("{shown} cannot be run: it may not be executed"))
    })
}

/// Whether that file can be made.
pub(super) fn check(path: &Path) -> Result<(), Failure> {
    let plan = Plan { path: path.to_owned(), ..Plan::default() };
    plan.check().map_err(|error| cannot_make(path, &error))
}

/// A recording of a trace that has begun.
pub(super) fn begin(path: &Path, live: &Live, first: &[Event]) -> Result<Recorder, Failure> {
    let plan = Plan { path: path.to_owned(), ..Plan::default() };
    start(plan, Vec::new(), live, first, &mut Sieve::new(Selection::default()))
}

fn start(
    plan: Plan,
    command: Vec<String>,
    live: &Live,
    first: &[Event],
    sieve: &mut Sieve,
) -> Result<Recorder, Failure> {
    let coverage = first.iter().find_map(|event| match &event.kind {
        Kind::Coverage(coverage) => Some((**coverage).clone()),
        _ => None,
    });
    let began = first.first().map_or(Timestamp::default(), |event| event.time);
    let metadata = Metadata {
        command: (!command.is_empty()).then_some(command),
        ..Metadata::of_this_host(live.clock(), began, coverage)
    };
    let path = plan.path.clone();
    let mut recorder = Recorder::begin(plan, metadata).map_err(|error| cannot_make(&path, &error))?;
    recorder.record(&sieve.sift(first)).map_err(|error| failed(&error))?;
    Ok(recorder)
}

/// A recording that failed; what was written is whole.
pub(super) fn failed(error: &io::Error) -> Failure {
    let full = trace::full(error);
    Failure::new(
        Exit::CannotWrite,
        format!(
            "the recording has ended early: {}; what was recorded before can be read{full}",
            write_failure(error)
        ),
    )
}

async fn record(
    args: &RecordArgs,
    invoker: Option<Invoker>,
    options: &live::Options,
) -> Result<Exit, Failure> {
    let (live, first) = Live::start(options)?;
    let words = args.command.iter().map(|word| word.to_string_lossy().into_owned()).collect();
    let mut sieve = Sieve::new(selection::of_parties(&args.parties));
    let mut recorder = start(plan(args), words, &live, &first, &mut sieve)?;
    // Only now, so that its first connection is traced, too.
    let mut child = match spawn(args, invoker) {
        Ok(child) => child,
        Err(failure) => {
            // A file in which nothing happened would only be in the way of the next try.
            if let Ok(recorded) = recorder.finish() {
                for path in files_of(args, &recorded) {
                    std::fs::remove_file(&path)
                        .unwrap_or_else(|error| log::warn!("{}: {error}", path.display()));
                }
            }
            return Err(failure);
        }
    };
    let mut status: Option<io::Result<ExitStatus>> = None;
    let mut progress = Progress::new();
    let over = async {
        let limit = async {
            match args.limit {
                Some(limit) => tokio::time::sleep(limit).await,
                None => std::future::pending().await,
            }
        };
        let command = async {
            match &mut child {
                Some(child) => {
                    status = Some(child.wait().await);
                    tokio::time::sleep(SETTLE).await;
                }
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = limit => {}
            () = command => {}
        }
    };
    let ending = drive(live, over, |events| {
        recorder.record(&sieve.sift(events))?;
        progress.show(&recorder);
        Ok(ControlFlow::Continue(()))
    })
    .await;
    progress.clear();
    let status = match (status, child) {
        (Some(status), _) => Some(status),
        // A recording that fails (the disk is full) does not end the load test.
        (None, Some(mut child)) if ending.is_err() => Some(child.wait().await),
        // The time is up, or we were interrupted: so shall the command be.
        (None, Some(child)) => Some(end(child).await),
        (None, None) => None,
    };
    let recorded = match ending {
        Ok(Ending::Over | Ending::Interrupted | Ending::OutputClosed) => recorder.finish(),
        Err(error) => Err(error),
    };
    let recorded = recorded.map_err(|error| failed(&error))?;
    // After SIGHUP there is no terminal to say it on.
    let _unread = tell(args, &recorded);
    let Some(status) = status else { return Ok(Exit::Done) };
    // The command's own output is on stdout.
    let report = report::of_file(&files_of(args, &recorded))?;
    let mut err = Lines::new(io::stderr().lock(), Screen::of_stderr().colour);
    let _unread = err.line("").and_then(|_gone| err.rows(report.rows()));
    let status = status.map_err(|error| Failure::new(Exit::NotSupported, format!("the command: {error}")))?;
    Ok(Exit::Command(exit_code(status)))
}

fn spawn(args: &RecordArgs, invoker: Option<Invoker>) -> Result<Option<Child>, Failure> {
    let Some((program, arguments)) = args.command.split_first() else { return Ok(None) };
    let mut command = Command::new(program);
    command.args(arguments).kill_on_drop(true);
    give_up_privileges(&mut command, invoker);
    command.spawn().map(Some).map_err(|error| {
        let exit = match error.kind() {
            io::ErrorKind::NotFound => Exit::NoSuchCommand,
            _ => Exit::NotRunnable,
        };
        Failure::new(exit, format!("{} cannot be run: {error}", program.to_string_lossy()))
    })
}

/// The command gets none of what tracing needs: it runs as the user who called sudo, and without the capabilities that a user who
/// is not root was given for us. (All our descriptors close at exec.)
fn give_up_privileges(command: &mut Command, invoker: Option<Invoker>) {
    if let Some(invoker) = &invoker {
        command.envs(invoker.environment.iter().map(|(name, value)| (name, value)));
    }
    let give_up = move || {
        if let Some(Invoker { uid, gid, groups, .. }) = &invoker {
            setgroups(groups)?;
            setresgid(*gid, *gid, *gid)?;
            setresuid(*uid, *uid, *uid)?;
        }
        let unused: libc::c_ulong = 0;
        // SAFETY: prctl(2) with four numbers; it touches no memory.
        unsafe {
            libc::prctl(
                libc::PR_CAP_AMBIENT,
                libc::PR_CAP_AMBIENT_CLEAR_ALL as libc::c_ulong,
                unused,
                unused,
                unused,
            )
        };
        Ok(())
    };
    // SAFETY: between fork and exec, where only this thread is left: it makes system calls alone, and takes no lock and no memory.
    unsafe { command.pre_exec(give_up) };
}

/// Asks the command to end, and waits for it.
async fn end(mut child: Child) -> io::Result<ExitStatus> {
    /// After so long it is not asked any more.
    const PATIENCE: Duration = Duration::from_secs(10);
    if let Some(pid) = child.id().and_then(|pid| i32::try_from(pid).ok()) {
        // Fails when it has just ended by itself.
        let _gone = kill(Pid::from_raw(pid), Signal::SIGTERM);
    }
    if let Ok(status) = tokio::time::timeout(PATIENCE, child.wait()).await {
        return status;
    }
    child.start_kill()?;
    child.wait().await
}

/// As a shell has it: 128 and the signal, for a command that a signal ended.
fn exit_code(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(1);
    u8::try_from(code).unwrap_or(1)
}

/// The files that were made and are still there.
fn files_of(args: &RecordArgs, recorded: &Recorded) -> Vec<PathBuf> {
    let Some(_) = args.rotate else { return vec![args.output.clone()] };
    let first = u32::try_from(recorded.deleted).unwrap_or(u32::MAX).saturating_add(1);
    (first..=recorded.parts).map(|part| part_path(&args.output, part)).collect()
}

fn tell(args: &RecordArgs, recorded: &Recorded) -> io::Result<()> {
    let mut err = Lines::new(io::stderr().lock(), false);
    let path = match args.rotate {
        Some(_) => format!("{} files up to {}", recorded.parts, recorded.path.display()),
        None => recorded.path.display().to_string(),
    };
    let gone = match recorded.deleted {
        0 => String::new(),
        deleted => format!(", {deleted} of them deleted again to make room"),
    };
    err.say(format_args!(
        "recorded {} events, {}, into {path}{gone}",
        recorded.events,
        crate::output::bytes_in_words(recorded.bytes)
    ))
}

/// Leaves out what was not asked for. Who has which listener is learnt from all events; without a filter they just pass.
struct Sieve {
    selection: Selection,
    world: Correlator,
    changes: Vec<Change>,
}

impl Sieve {
    fn new(selection: Selection) -> Self {
        Self { selection, world: Correlator::default(), changes: Vec::new() }
    }

    fn sift<'a>(&mut self, events: &'a [Event]) -> Cow<'a, [Event]> {
        if self.selection.is_everybody() {
            return Cow::Borrowed(events);
        }
        let wanted = events.iter().filter(|event| {
            self.changes.clear();
            self.world.on_event(event, &mut self.changes);
            self.selection.wants_event(event, &self.world)
        });
        Cow::Owned(wanted.cloned().collect())
    }
}

/// A line on stderr that is overwritten once a second, where a person looks on.
struct Progress {
    began: Instant,
    said: Option<Instant>,
    shown: bool,
}

impl Progress {
    fn new() -> Self {
        Self { began: Instant::now(), said: None, shown: io::stderr().is_terminal() }
    }

    fn show(&mut self, recorder: &Recorder) {
        if !self.shown || self.said.is_some_and(|said| said.elapsed() < Duration::from_secs(1)) {
            return;
        }
        self.said = Some(Instant::now());
        let (events, bytes) = recorder.progress();
        // Who has no terminal any more needs no progress.
        let _unseen = write!(
            io::stderr(),
            "\r\x1b[Krecording {} s, {events} events, {}",
            self.began.elapsed().as_secs(),
            crate::output::bytes_in_words(bytes)
        );
    }

    fn clear(&self) {
        if self.said.is_some() {
            let _unseen = write!(io::stderr(), "\r\x1b[K");
        }
    }
}
