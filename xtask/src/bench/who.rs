//! `cargo xtask bench-who`: the commands that look at the host as it is beside `ss -tanp`, with many sockets, in turn, in one run.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use clap::Args as ClapArgs;
use nix::sched::{CloneFlags, unshare};
use nix::sys::personality::{self, Persona};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, bind, socket};

use crate::arch::Arch;
use crate::vm::{AGENT, Ending, Guest, Hardware, HostCopy, Job, Kernel, Observer, Series, run_batch};
use crate::{binary, paths, term};

const PROGRAM: &str = "/usr/local/bin/tcptrace";
const SS: &str = "/usr/bin/ss";
const TIME: Duration = Duration::from_secs(900);
/// None of ours must take more than this part of the time of `ss`.
const BUDGET: f64 = 0.1;
/// Where the table stands in `docs/measurements.md`, and a row of it begins.
const BEGIN: &str = "<!-- begin bench who -->";
const END: &str = "<!-- end bench who -->";

/// What is measured beside `ss -tanp`: the arguments, in which PORT stands for the port that a process in the middle of the crowd
/// listens on.
const OURS: [&[&str]; 5] = [
    &["who", "PORT", "--json"],
    &["listeners", "--json"],
    &["ports", "--json"],
    &["check", "--json"],
    // What is traced would take as long as it is told to.
    &["why", "127.0.0.1:PORT", "--for", "0s", "--json"],
];

/// On this machine, or in a guest with `--kernel`. The exit status is 1 if the budget is missed.
#[derive(ClapArgs)]
pub(crate) struct Args {
    /// In a guest with this kernel.
    #[arg(long, value_enum)]
    kernel: Option<Series>,
    /// How many sockets there are.
    #[arg(long, value_name = "N", default_value_t = 50_000)]
    sockets: u32,
    /// How many processes have them.
    #[arg(long, value_name = "N", default_value_t = 200)]
    processes: u32,
    /// How often each has its turn.
    #[arg(long, value_name = "N", default_value_t = 7)]
    rounds: u32,
    /// Measure this static `tcptrace` instead of building one.
    #[arg(long, value_name = "FILE")]
    program: Option<PathBuf>,
    /// Print only; without this, the row of this kernel is written into docs/measurements.md.
    #[arg(long)]
    dry_run: bool,
}

/// One process of the crowd.
#[derive(ClapArgs)]
pub(crate) struct MemberArgs {
    /// How many sockets it has.
    sockets: u32,
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let program = match &args.program {
        Some(program) => program.clone(),
        None => binary::build(Arch::X86_64)?,
    };
    let rows = match args.kernel {
        None => measure(&program, args)?,
        Some(series) => in_guest(series, program, args)?,
    };
    if !args.dry_run {
        document(&rows)?;
    }
    Ok(ExitCode::from(u8::from(rows.iter().any(Row::is_missed))))
}

/// The guest's own end: it has no document to write into.
pub(crate) fn run_in_guest(args: &Args) -> Result<()> {
    let program = args.program.as_deref().context("--program is missing")?;
    for row in measure(program, args)? {
        println!("{}", serde_json::to_string(&row)?);
    }
    Ok(())
}

/// How long one of our commands took, and `ss`.
#[derive(serde::Serialize, serde::Deserialize)]
struct Row {
    kernel: String,
    command: String,
    ours_ms: f64,
    ss_ms: f64,
}

impl Row {
    fn ratio(&self) -> f64 {
        self.ours_ms / self.ss_ms
    }

    fn is_missed(&self) -> bool {
        self.ratio() > BUDGET
    }

    /// A row of the table.
    fn cells(&self) -> String {
        let verdict = if self.is_missed() { "**MISSED**" } else { "met" };
        format!(
            "| {} | `tcptrace {}` | {:.0} ms | {:.0} ms | {:.3} | {verdict} |",
            self.kernel,
            self.command,
            self.ours_ms,
            self.ss_ms,
            self.ratio()
        )
    }
}

/// Puts the rows into the table, in the place of earlier ones of the same kernel.
fn document(rows: &[Row]) -> Result<()> {
    let path = paths::workspace()?.join("docs/measurements.md");
    let page = fs::read_to_string(&path)?;
    let no_place = || format!("{} has no place for it", path.display());
    let (before, rest) = page.split_once(BEGIN).with_context(no_place)?;
    let (table, after) = rest.split_once(END).with_context(no_place)?;
    let kernel = rows.first().map_or("", |row| row.kernel.as_str());
    let others = table.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| kernel"));
    let mut lines: Vec<String> =
        others.filter(|line| !line.starts_with(&format!("| {kernel} |"))).map(str::to_owned).collect();
    lines.extend(rows.iter().map(Row::cells));
    let heading = "| kernel | command | it | `ss -tanp` | of it | |\n|---|---|---:|---:|---:|---|";
    fs::write(&path, format!("{before}{BEGIN}\n{heading}\n{}\n{END}{after}", lines.join("\n")))?;
    term::note(format_args!("written into docs/measurements.md"));
    Ok(())
}

fn in_guest(series: Series, program: PathBuf, args: &Args) -> Result<Vec<Row>> {
    let guest = Guest {
        hardware: Hardware { memory: "2G".to_owned(), cpus: 2, ..Hardware::default() },
        copies: [(program, PROGRAM), (SS.into(), SS)]
            .into_iter()
            .map(|(host, guest)| HostCopy { host, guest: guest.into() })
            .collect(),
        ..Guest::new(Kernel::of_series(series)?)
    };
    let command = [AGENT, "guest-who", "--program", PROGRAM, "--sockets"];
    let mut argv: Vec<String> = command.map(str::to_owned).into();
    argv.extend([args.sockets.to_string(), "--processes".into(), args.processes.to_string()]);
    argv.extend(["--rounds".into(), args.rounds.to_string()]);
    struct Quiet;
    impl Observer for Quiet {
        fn booted(&mut self, release: &str, after: Duration) {
            term::note(format_args!("the guest is {release}, booted in {:.1} s", after.as_secs_f64()));
        }
    }
    let batch = run_batch(&guest, &[Job::new(argv, TIME)], &mut Quiet)?;
    let report = batch.reports.first().context("the guest ran nothing")?;
    match &report.ending {
        Some(Ending::Exited(0)) => {
            let lines = std::str::from_utf8(&report.stdout)?.lines();
            let rows: Vec<Row> = lines.map(serde_json::from_str).collect::<Result<_, _>>()?;
            rows.iter().for_each(|row| println!("{}", row.cells()));
            Ok(rows)
        }
        other => bail!("{other:?}\n{}", String::from_utf8_lossy(&report.stderr).trim()),
    }
}

/// In a network namespace of its own, so that no other traffic is in the way; processes are the whole machine's for both.
fn measure(program: &Path, args: &Args) -> Result<Vec<Row>> {
    unshare(CloneFlags::CLONE_NEWNET).context("a network namespace takes root")?;
    // For both programs: an emulator (QEMU's TCG 7.2) translates all of a program's code anew when it stands at another address,
    // which takes longer than the work of either.
    personality::set(personality::get()? | Persona::ADDR_NO_RANDOMIZE)?;
    let up = Command::new("ip").args(["link", "set", "lo", "up"]).status();
    ensure!(up.is_ok_and(|status| status.success()), "`ip link set lo up` failed");
    fs::write("/proc/sys/net/ipv4/ip_local_port_range", "1024 65000")?;
    let each = args.sockets / args.processes;
    let crowd = Crowd::gather(args.processes, each)?;
    let member = crowd.members.get(crowd.members.len() / 2).context("nobody came")?;
    let port = member.port.to_string();

    let mut ours: Vec<Vec<Duration>> = vec![Vec::new(); OURS.len()];
    let mut theirs = Vec::new();
    for round in 0..=args.rounds {
        // The first warms up.
        let warm = round == 0;
        for (command, times) in OURS.iter().zip(&mut ours) {
            let arguments = command.iter().map(|argument| argument.replace("PORT", &port));
            let (time, answer) = timed(Command::new(program).args(arguments))?;
            if warm {
                check(command, &answer, member).with_context(|| format!("tcptrace {}", command.join(" ")))?;
            } else {
                times.push(time);
            }
        }
        let (time, listing) = timed(Command::new(SS).arg("-tanp"))?;
        if warm { check_ss(&listing, member, each)? } else { theirs.push(time) }
    }
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease")?.trim().to_owned();
    let ss_ms = median(theirs).as_secs_f64() * 1e3;
    let row = |(command, times): (&&[&str], Vec<Duration>)| Row {
        kernel: kernel.clone(),
        command: command.join(" "),
        ours_ms: median(times).as_secs_f64() * 1e3,
        ss_ms,
    };
    let rows: Vec<Row> = OURS.iter().zip(ours).map(row).collect();
    if args.kernel.is_none() {
        rows.iter().for_each(|row| eprintln!("{}", row.cells()));
    }
    Ok(rows)
}

/// Each must have told the truth: that this process has the port, wherever the command names processes.
fn check(command: &[&str], answer: &str, member: &Member) -> Result<()> {
    let pid = member.child.id();
    let lines = answer.lines().map(serde_json::from_str::<serde_json::Value>);
    let lines: Vec<_> = lines.collect::<Result<_, _>>().context("odd JSON")?;
    let name = command.first().copied().unwrap_or_default();
    let is = |line: &serde_json::Value, pointer: &str, wanted: serde_json::Value| {
        line.pointer(pointer) == Some(&wanted)
    };
    let told = lines.iter().any(|line| match name {
        "who" => is(line, "/subject/process/pid", pid.into()) && is(line, "/subject/state", "listen".into()),
        "listeners" => {
            is(line, "/subject/process/pid", pid.into()) && is(line, "/subject/port", member.port.into())
        }
        // It lists them by the number of their ports, and all have as many.
        "ports" => line.pointer("/processes/0/process/pid").is_some_and(serde_json::Value::is_u64),
        // Of a range that has all of their ports.
        "check" => is(line, "/type", "risk".into()) && line.pointer("/listeners/0/process/pid").is_some(),
        _ => is(line, "/type", "why".into()) && line.to_string().contains(&format!("[{pid}]")),
    });
    ensure!(told, "it does not name process {pid}, which has the port {}: {answer}", member.port);
    Ok(())
}

/// `ss` shows as many sockets as there are.
fn check_ss(listing: &str, member: &Member, each: u32) -> Result<()> {
    let pid = member.child.id();
    let theirs = listing.lines().filter(|line| line.contains(&format!("pid={pid},"))).count();
    // ss of before 6.8 has no bound-only sockets.
    ensure!(theirs + 1 >= each as usize, "ss -tanp shows {theirs} of the {each} sockets of process {pid}");
    Ok(())
}

fn timed(command: &mut Command) -> Result<(Duration, String)> {
    let start = Instant::now();
    let output = command.stderr(Stdio::inherit()).output().with_context(|| format!("{command:?}"))?;
    let time = start.elapsed();
    // 1: `check` has found risks, `why` a cause.
    ensure!(matches!(output.status.code(), Some(0 | 1)), "{command:?}: {}", output.status);
    Ok((time, String::from_utf8_lossy(&output.stdout).into_owned()))
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

struct Crowd {
    members: Vec<Member>,
}

struct Member {
    child: Child,
    /// What it listens on.
    port: u16,
}

impl Crowd {
    fn gather(processes: u32, each: u32) -> Result<Self> {
        let program = std::env::current_exe()?;
        let mut members = Vec::new();
        for _ in 0..processes {
            let child = Command::new(&program)
                .args(["bench-who-member", &each.to_string()])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .context("a process of the crowd")?;
            members.push(Member { child, port: 0 });
        }
        let mut crowd = Self { members };
        for member in &mut crowd.members {
            let mut port = [0; 2];
            let stdout = member.child.stdout.as_mut().context("a process without stdout")?;
            stdout.read_exact(&mut port).context("a process of the crowd has failed")?;
            member.port = u16::from_be_bytes(port);
        }
        Ok(crowd)
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        for member in &mut self.members {
            let _gone = member.child.kill();
            let _gone = member.child.wait();
        }
    }
}

/// One listener, one socket that is only bound, and both ends of connections; until stdin ends.
pub(crate) fn member(args: &MemberArgs) -> Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let bound = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    bind(bound.as_raw_fd(), &SockaddrIn::new(127, 0, 0, 1, 0))?;
    let port = listener.local_addr()?.port();
    let mut connections = Vec::new();
    for _ in 0..args.sockets.saturating_sub(2) / 2 {
        connections.push(TcpStream::connect((Ipv4Addr::LOCALHOST, port))?);
        connections.push(listener.accept()?.0);
    }
    std::io::stdout().write_all(&port.to_be_bytes())?;
    std::io::stdout().flush()?;
    let mut rest = Vec::new();
    let _gone = std::io::stdin().read_to_end(&mut rest);
    Ok(())
}
