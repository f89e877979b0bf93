//! One server's turn, in network and mount namespaces of its own.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use clap::Args as ClapArgs;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{Signal, kill};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use nix::unistd::Pid;

use super::load::{self, Load};
use super::printed::{Printed, Then};
use super::server::{ALSO, Home, NOTHING, PORT, SERVERS, SETTING, Server};
use super::tracer::{Seen, Tracer};
use crate::tool;

/// How long a server may take to listen, or to end.
const SOON: Duration = Duration::from_secs(15);

/// Nothing for people: `cargo xtask software` starts it.
#[derive(ClapArgs)]
pub(crate) struct Args {
    name: String,
    program: PathBuf,
    home: PathBuf,
}

const PROBLEM: &str = "problem: ";
const REMARK: &str = "remark: ";

/// What is wrong, of a line of its output.
pub(super) fn problem(line: &str) -> Option<String> {
    line.strip_prefix(PROBLEM).map(str::to_owned)
}

/// What else is to be told, of a line of its output.
pub(super) fn remark(line: &str) -> Option<String> {
    line.strip_prefix(REMARK).map(str::to_owned)
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let server = SERVERS.iter().find(|server| server.name == args.name).context("no such server")?;
    unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).context("new namespaces")?;
    let outcome = Stage::set(server, &args.home).and_then(|stage| {
        let outcome = stage.play(&args.program);
        stage.clear();
        outcome
    });
    match outcome {
        Ok(remarks) => {
            for remark in remarks {
                println!("{REMARK}{remark}");
            }
            Ok(ExitCode::SUCCESS)
        }
        Err(error) => {
            println!("{PROBLEM}{error:#}");
            Ok(ExitCode::FAILURE)
        }
    }
}

struct Stage {
    server: &'static Server,
    /// What the server has for its root, or where its files are.
    place: PathBuf,
    home: PathBuf,
    /// Where all of that is, in a tmpfs that only this process and its children see.
    work: PathBuf,
}

impl Stage {
    fn set(server: &'static Server, home: &Path) -> Result<Self> {
        // Never removed with what is in it: other file systems are mounted there.
        let work =
            tempfile::Builder::new().prefix("tcptrace-software-").tempdir().context("a directory")?.keep();
        let none = None::<&str>;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).context("mounts of its own")?;
        mount(Some("tmpfs"), &work, Some("tmpfs"), MsFlags::empty(), none).context("a tmpfs")?;
        let at = |name: &str| -> Result<PathBuf> {
            let path = work.join(name);
            fs::create_dir_all(&path).with_context(|| format!("creating {}", path.display()))?;
            Ok(path)
        };
        let (upper, scratch, place) = (at("upper")?, at("scratch")?, at("place")?);
        if server.home == Home::Debian {
            let options = format!(
                "lowerdir={},upperdir={},workdir={}",
                home.display(),
                upper.display(),
                scratch.display()
            );
            mount(Some("overlay"), &place, Some("overlay"), MsFlags::empty(), Some(options.as_str()))
                .context("an overlay over the servers' tree")?;
            for directory in
                ["proc", "dev", "run", "tmp", "etc", "srv", "var/log/nginx", "var/lib/nginx", "var/log/squid"]
            {
                let path = place.join(directory);
                fs::create_dir_all(&path).with_context(|| format!("creating {}", path.display()))?;
            }
            mount(Some("proc"), &place.join("proc"), Some("proc"), MsFlags::empty(), none)
                .context("/proc")?;
            devices(&place.join("dev"))?;
            tool::capture(Command::new("chmod").args(["1777"]).args([place.join("tmp"), place.join("run")]))?;
            let users = [
                ("etc/passwd", "root:x:0:0::/root:/bin/sh\nnobody:x:65534:65534::/tmp:/bin/false\n"),
                ("etc/group", "root:x:0:\nnogroup:x:65534:\n"),
            ];
            for (path, text) in users {
                fs::write(place.join(path), text).with_context(|| format!("writing {path}"))?;
            }
        }
        tool::capture(Command::new("ip").args(["link", "set", "lo", "up"]))?;
        if let Load::Proxied { .. } | Load::Idle { .. } = server.load {
            load::serve_upstream()?;
        }
        if let Load::Proxied { .. } | Load::Churn { .. } = server.load {
            fs::write("/proc/sys/net/ipv4/ip_local_port_range", load::UPSTREAM_RANGE)
                .context("the range of ports")?;
        }
        Ok(Self { server, place, home: home.to_path_buf(), work })
    }

    /// The incident, its remedy, and no incident. Gives what was seen, in short.
    fn play(&self, program: &Path) -> Result<Vec<String>> {
        let server = self.server;
        if !server.before.is_empty() {
            tool::capture(&mut self.command(server.before)?)?;
        }
        let mut running = self.start(server.spoilt, &[])?;
        let seen = watch(program, server.load)?;
        if server.code == NOTHING {
            running.stop(server.end)?;
            ensure!(seen.findings.is_empty(), "nothing is wrong, and there is {:?}", seen.in_short());
            // What would have been taken for trouble has happened.
            let (times, what) = match server.load {
                Load::Churn { .. } => (seen.taken_over, "connections in TIME_WAIT taken over"),
                _ => (seen.cut_short, "handshakes reset before they were complete"),
            };
            ensure!(times > 0, "there were no {what}");
            return Ok(vec![format!("no finding; {times} {what}")]);
        }
        let found = seen.findings.iter().find(|finding| finding["code"] == server.code);
        let finding =
            found.with_context(|| format!("no {} was found: {:?}", server.code, seen.in_short()))?;
        ensure!(finding["cause"] == server.cause, "its cause is {}, not {}", finding["cause"], server.cause);
        ensure!(
            seen.overflows > 0 || server.code != "accept-queue-overflow",
            "an overflow was found, and the kernel counted none"
        );
        let printed = Printed::find(&Seen::remedies(finding), server.remedy)?;
        let mut remarks = vec![format!(
            "{} {} ({}); {} dropped by the kernel",
            server.code,
            server.cause,
            finding["confidence"].as_str().unwrap_or_default(),
            seen.overflows
        )];

        self.carry_out(&printed, &mut running)?;
        let has_more = server.files.iter().any(|(_, text)| text.contains(ALSO));
        let more = if has_more { format!(" {}", printed.also.join(" ")) } else { String::new() };
        remarks.push(format!("carried out: {}{more}", printed.setting));
        let again = watch(program, server.load)?;
        running.stop(server.end)?;
        ensure!(
            again.findings.is_empty() && again.overflows == 0,
            "after `{}`: {} dropped, {:?}",
            printed.setting,
            again.overflows,
            again.in_short()
        );
        Ok(remarks)
    }

    fn carry_out(&self, printed: &Printed, running: &mut Running) -> Result<()> {
        match &printed.then {
            Then::Restart => {
                running.stop(self.server.end)?;
                *running = self.start(&printed.setting, &printed.also)?;
            }
            Then::Reload(command) => {
                self.write(&printed.setting, &printed.also)?;
                // There is no systemd here: what its unit does.
                if let Some(unit) = command.strip_prefix("systemctl reload ") {
                    ensure!(unit == "haproxy", "nothing is known of the unit {unit}");
                    running.signal(Signal::SIGUSR2)?;
                } else {
                    let words: Vec<&str> = command.split(' ').collect();
                    tool::capture(&mut self.command(&words)?)?;
                }
                // Old workers go when the new ones are there.
                thread::sleep(Duration::from_secs(2));
            }
        }
        Ok(())
    }

    /// Its files, the setting at its place.
    fn write(&self, setting: &str, also: &[String]) -> Result<()> {
        for (path, text) in self.server.files {
            let path = self.place.join(path);
            if let Some(directory) = path.parent() {
                fs::create_dir_all(directory).with_context(|| format!("creating {}", directory.display()))?;
            }
            let text = text.replace(SETTING, setting).replace(ALSO, &also.join("\n"));
            fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
        }
        Ok(())
    }

    fn start(&self, setting: &str, also: &[String]) -> Result<Running> {
        self.write(setting, also)?;
        let words: Vec<&str> = self
            .server
            .command
            .iter()
            .flat_map(|word| if *word == SETTING { setting.split(' ').collect() } else { vec![*word] })
            .collect();
        let child = self
            .command(&words)?
            .stdout(Stdio::null())
            .spawn()
            .with_context(|| format!("starting {words:?}"))?;
        let mut running = Running { child };
        let begun = Instant::now();
        while !is_listened_on(PORT)? {
            if let Some(status) = running.child.try_wait().context("looking for the server")? {
                bail!("{words:?} ended before it listened ({status})");
            }
            ensure!(begun.elapsed() < SOON, "{words:?} does not listen on port {PORT}");
            thread::sleep(Duration::from_millis(50));
        }
        // Its workers are there a moment later.
        thread::sleep(Duration::from_millis(500));
        Ok(running)
    }

    /// A command where the server is at home.
    fn command(&self, words: &[&str]) -> Result<Command> {
        let (program, arguments) = words.split_first().context("an empty command")?;
        let mut command = match self.server.home {
            Home::Debian => {
                let mut command = Command::new("chroot");
                if let Some(user) = self.server.user {
                    command.arg(format!("--userspec={user}:{user}"));
                }
                command.arg(&self.place).arg(program);
                command
            }
            Home::Python => {
                let mut command = Command::new(self.home.join("bin").join(program));
                command.current_dir(&self.place);
                command
            }
        };
        command.args(arguments).stdin(Stdio::null()).env("LC_ALL", "C").env("HOME", "/tmp").env("PWD", "/");
        command.env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        Ok(command)
    }

    /// Ends whatever is left in the network namespace, and takes its place away.
    fn clear(&self) {
        self.end_all();
        let _gone = umount2(&self.work, MntFlags::MNT_DETACH);
        // If it is not empty, it stays.
        let _gone = fs::remove_dir(&self.work);
    }

    fn end_all(&self) {
        let Ok(own) = fs::read_link("/proc/self/ns/net") else { return };
        for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let pid = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok());
            let is_here = fs::read_link(entry.path().join("ns/net")).is_ok_and(|other| other == own);
            if let Some(pid) = pid.filter(|pid| is_here && u32::try_from(*pid) != Ok(std::process::id())) {
                let _gone = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
        }
    }
}

/// The devices that a server needs. Not this machine's own directory: whoever clears the stage must not be able to reach that.
fn devices(place: &Path) -> Result<()> {
    const DEVICES: [(&str, u64); 5] = [("null", 3), ("zero", 5), ("full", 7), ("random", 8), ("urandom", 9)];
    const LINKS: [(&str, &str); 4] =
        [("fd", "fd"), ("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2")];
    let mode = Mode::from_bits_truncate(0o666);
    for (name, minor) in DEVICES {
        let path = place.join(name);
        mknod(&path, SFlag::S_IFCHR, mode, makedev(1, minor))
            .with_context(|| format!("making {}", path.display()))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).context("permissions of a device")?;
    }
    for (name, to) in LINKS {
        symlink(Path::new("/proc/self").join(to), place.join(name))
            .with_context(|| format!("making /dev/{name}"))?;
    }
    let shm = place.join("shm");
    fs::create_dir(&shm).context("making /dev/shm")?;
    fs::set_permissions(&shm, fs::Permissions::from_mode(0o1777)).context("permissions of /dev/shm")
}

/// The load, and what was seen of it.
fn watch(program: &Path, load: Load) -> Result<Seen> {
    let tracer = Tracer::start(program)?;
    load.run()?;
    // What is polled once a second, and what is told at the next tick.
    thread::sleep(Duration::from_millis(2200));
    tracer.end()
}

struct Running {
    child: Child,
}

impl Running {
    fn signal(&self, signal: Signal) -> Result<()> {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).context("a process id")?);
        kill(pid, signal).context("a signal to the server")
    }

    fn stop(&mut self, by: Signal) -> Result<()> {
        self.signal(by)?;
        let begun = Instant::now();
        while self.child.try_wait().context("waiting for the server")?.is_none() || is_listened_on(PORT)? {
            ensure!(begun.elapsed() < SOON, "the server does not end");
            thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }
}

/// Whether a socket of this network namespace listens on `port`.
fn is_listened_on(port: u16) -> Result<bool> {
    const LISTEN: &str = "0A";
    let port = format!(":{port:04X}");
    for table in ["/proc/self/net/tcp", "/proc/self/net/tcp6"] {
        let text = fs::read_to_string(table).with_context(|| format!("reading {table}"))?;
        let mut rows = text.lines().map(|line| line.split_ascii_whitespace().collect::<Vec<_>>());
        if rows
            .any(|row| row.get(1).is_some_and(|local| local.ends_with(&port)) && row.get(3) == Some(&LISTEN))
        {
            return Ok(true);
        }
    }
    Ok(false)
}
