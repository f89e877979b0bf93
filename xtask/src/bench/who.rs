//! `cargo xtask bench-who`: `tcptrace who` beside `ss -tanp` on a host with many sockets, in turn, in one run.

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
use crate::{binary, term};

const PROGRAM: &str = "/usr/local/bin/tcptrace";
const SS: &str = "/usr/bin/ss";
const TIME: Duration = Duration::from_secs(900);
/// `who` must not take more than this part of the time of `ss`.
const BUDGET: f64 = 0.1;

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
    match args.kernel {
        None => measure(&program, args),
        Some(series) => in_guest(series, program, args),
    }
}

fn in_guest(series: Series, program: PathBuf, args: &Args) -> Result<ExitCode> {
    let guest = Guest {
        hardware: Hardware { memory: "2G".to_owned(), cpus: 2, ..Hardware::default() },
        copies: [(program, PROGRAM), (SS.into(), SS)]
            .into_iter()
            .map(|(host, guest)| HostCopy { host, guest: guest.into() })
            .collect(),
        ..Guest::new(Kernel::of_series(series)?)
    };
    let command = [AGENT, "bench-who", "--program", PROGRAM, "--sockets"];
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
    print!("{}", String::from_utf8_lossy(&report.stdout));
    match &report.ending {
        Some(Ending::Exited(0)) => Ok(ExitCode::SUCCESS),
        Some(Ending::Exited(1)) => Ok(ExitCode::FAILURE),
        other => bail!("{other:?}\n{}", String::from_utf8_lossy(&report.stderr).trim()),
    }
}

/// In a network namespace of its own, so that no other traffic is in the way; processes are the whole machine's for both.
fn measure(program: &Path, args: &Args) -> Result<ExitCode> {
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

    let mut who = Vec::new();
    let mut ss = Vec::new();
    for round in 0..=args.rounds {
        let (ours, answer) = timed(Command::new(program).args(["who", &port, "--json"]))?;
        let (theirs, listing) = timed(Command::new(SS).arg("-tanp"))?;
        // The first warms up.
        if round == 0 {
            check(&answer, &listing, member, each)?;
            continue;
        }
        who.push(ours);
        ss.push(theirs);
    }
    let (who, ss) = (median(who), median(ss));
    let ratio = who.as_secs_f64() / ss.as_secs_f64();
    println!(
        "{} sockets of {} processes, kernel {}, median of {} rounds: tcptrace who {:.1} ms, ss -tanp {:.1} ms: {ratio:.3} of it ({} {BUDGET})",
        each * args.processes,
        args.processes,
        fs::read_to_string("/proc/sys/kernel/osrelease")?.trim(),
        args.rounds,
        who.as_secs_f64() * 1e3,
        ss.as_secs_f64() * 1e3,
        if ratio <= BUDGET { "within" } else { "MISSED:" },
    );
    Ok(ExitCode::from(u8::from(ratio > BUDGET)))
}

/// Both must have told the truth: the process that has the port; and `ss`, that there are as many sockets as said.
fn check(answer: &str, listing: &str, member: &Member, each: u32) -> Result<()> {
    let pid = member.child.id();
    let lines = answer.lines().map(serde_json::from_str::<serde_json::Value>);
    let lines: Vec<_> = lines.collect::<Result<_, _>>().context("odd JSON from tcptrace who")?;
    let holders: Vec<_> = lines.iter().filter(|line| line["type"] == "holder").collect();
    ensure!(
        holders.iter().any(|holder| {
            holder.pointer("/subject/process/pid").is_some_and(|of| *of == pid)
                && holder.pointer("/subject/state").is_some_and(|state| state == "listen")
        }),
        "tcptrace who does not name process {pid}: {answer}"
    );
    let ours = listing.lines().filter(|line| line.contains(&format!("pid={pid},"))).count();
    // ss of before 6.8 has no bound-only sockets.
    ensure!(ours + 1 >= each as usize, "ss -tanp shows {ours} of the {each} sockets of process {pid}");
    Ok(())
}

fn timed(command: &mut Command) -> Result<(Duration, String)> {
    let start = Instant::now();
    let output = command.stderr(Stdio::inherit()).output().with_context(|| format!("{command:?}"))?;
    let time = start.elapsed();
    ensure!(output.status.success(), "{command:?}: {}", output.status);
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
