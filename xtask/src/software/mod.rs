//! `cargo xtask software`: remedies proven with real servers.
//!
//! For each server: the incident is made with it, `tcptrace` names it and prints what to change in that server; the printed
//! setting is written, word for word, where it belongs, the server is reloaded or restarted as it says, and the same load is
//! made again, which must find nothing. In network and mount namespaces of their own, so nothing of this machine is changed.
//!
//! The servers are Debian's, unpacked below the cache and never installed, and two from the Python package index, in an
//! environment of their own.

mod load;
mod printed;
mod server;
mod stage;
mod tracer;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use clap::Args as ClapArgs;
use nix::unistd::Uid;
use sha2::{Digest as _, Sha256};

use crate::arch::Arch;
use crate::test::native;
use crate::test::tally::Tally;
use crate::vm::{Ending, Unpacked};
use crate::{binary, paths, term, tool};

use server::{Home, SERVERS, Server};

pub(crate) use stage::{Args as StageArgs, run as stage};

/// Where the servers come from.
const SUITE: &str = "bookworm";

/// Their packages; what these need comes with them.
const PACKAGES: [&str; 13] = [
    // What scripts of theirs are run by.
    "dash",
    "nginx-light",
    "apache2-bin",
    "haproxy",
    "lighttpd",
    "squid",
    "redis-server",
    "memcached",
    "postgresql-15",
    "php8.2-fpm",
    "uwsgi-core",
    "puma",
    "nodejs",
];

/// From the Python package index.
const MODULES: [&str; 2] = ["gunicorn", "uvicorn"];

/// One server's turn.
const TIMEOUT: Duration = Duration::from_secs(90);

/// Within the whole suite no new turn begins after this; `cargo xtask software` has no such limit.
const BUDGET: Duration = Duration::from_secs(240);

/// All servers, unless told otherwise.
#[derive(ClapArgs)]
pub(crate) struct Args {
    /// Only servers whose name contains this.
    #[arg(long, value_name = "NAME")]
    case: Option<String>,
    /// Test this `tcptrace` instead of building one.
    #[arg(long, value_name = "FILE")]
    program: Option<PathBuf>,
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let program = match &args.program {
        Some(program) => std::path::absolute(program).context("the program")?,
        None => binary::build(Arch::X86_64)?,
    };
    let mut tally = Tally::new()?;
    prove(&program, args.case.as_deref(), Duration::MAX, &mut tally)?;
    Ok(tally.close())
}

/// As a part of the whole suite.
pub(crate) fn suite(program: &Path, case: Option<&str>, tally: &mut Tally) -> Result<()> {
    prove(program, case, BUDGET, tally)
}

/// Everything that it needs, below the cache.
pub(crate) fn install() -> Result<()> {
    tree()?;
    python().map(|_| ())
}

fn prove(program: &Path, case: Option<&str>, budget: Duration, tally: &mut Tally) -> Result<()> {
    let name = |server: &Server| format!("native software {}", server.name);
    let asked: Vec<&Server> =
        SERVERS.iter().filter(|server| case.is_none_or(|part| name(server).contains(part))).collect();
    if asked.is_empty() {
        return Ok(());
    }
    let missing = if !Uid::effective().is_root() {
        Some("only root may load BPF programs; run the suite as root")
    } else if paths::find_program("apt-get").is_none() {
        Some("there is no apt-get here, which fetches the servers")
    } else {
        None
    };
    if let Some(missing) = missing {
        for server in asked {
            tally.skip(&name(server), missing);
        }
        return Ok(());
    }
    let (tree, python) = (tree()?, python()?);
    let own = std::env::current_exe().context("this program's own path")?;
    let start = Instant::now();
    for server in asked {
        if start.elapsed() > budget {
            tally.skip(&name(server), "no time is left for it; `cargo xtask software` runs all of them");
            continue;
        }
        let home = match server.home {
            Home::Debian => &tree,
            Home::Python => &python,
        };
        let mut argv = vec![own.display().to_string(), "software-stage".to_owned(), server.name.to_owned()];
        argv.extend([program, home].map(|path| path.display().to_string()));
        let report = native::execute(&argv, TIMEOUT)?;
        let mut problems: Vec<String> =
            String::from_utf8_lossy(&report.stdout).lines().filter_map(stage::problem).collect();
        if problems.is_empty() && report.ending != Some(Ending::Exited(0)) {
            problems.push("its turn did not end well; see its stderr".to_owned());
        }
        tally.case(&name(server), &report, &problems);
        for line in String::from_utf8_lossy(&report.stdout).lines().filter_map(stage::remark) {
            println!("       {line}");
        }
    }
    Ok(())
}

/// The root that Debian's servers run in.
fn tree() -> Result<PathBuf> {
    // A tree of other packages is another one.
    let digest = Sha256::digest(PACKAGES.join(" "));
    let digest: String = digest.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
    let unpacked = Unpacked::new("software", &format!("{SUITE}-{digest}"))?;
    let path = unpacked.tree(SUITE, |apt| apt.closure(&PACKAGES), whole)?;
    Ok(path.to_path_buf())
}

/// Refuses a tree without one of the servers.
fn whole(tree: &Path) -> Result<()> {
    for server in SERVERS.iter().filter(|server| matches!(server.home, Home::Debian)) {
        let program = server.command.first().context("a command")?;
        let path = tree.join(program.trim_start_matches('/'));
        ensure!(path.symlink_metadata().is_ok(), "the packages have no {program}");
    }
    Ok(())
}

/// The environment that those of the Python package index are in.
fn python() -> Result<PathBuf> {
    let place = paths::cache()?.join("software/python");
    let has = |module: &str| place.join("bin").join(module).exists();
    if !MODULES.iter().all(|module| has(module)) {
        term::note(format_args!("installing {}", MODULES.join(", ")));
        tool::capture(Command::new("python3").args(["-m", "venv"]).arg(&place))?;
        let pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--timeout", "20"];
        tool::capture(Command::new(place.join("bin/python")).args(pip).args(MODULES))?;
    }
    Ok(place)
}
