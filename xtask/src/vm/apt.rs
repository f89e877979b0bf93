//! Debian packages of suites that this machine does not itself follow, with the machine's own apt and mirror.
//!
//! apt gets lists, state and cache directories of its own: nothing of the machine's set-up is read but where its
//! mirrors are and how they are reached, and nothing of it is changed. No privilege is needed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::arch::Arch;
use crate::{paths, term, tool};

/// Names a Debian mirror's main archive can go by in the sources of a machine.
const MAIN_SUITES: [&str; 11] = [
    "bullseye",
    "bookworm",
    "trixie",
    "forky",
    "duke",
    "sid",
    "unstable",
    "testing",
    "stable",
    "oldstable",
    "oldoldstable",
];
/// Signs every suite used here; named in the sources because the machine's own sources may name it only for theirs.
const KEYRINGS: [&str; 2] =
    ["/usr/share/keyrings/debian-archive-keyring.gpg", "/usr/share/keyrings/debian-archive-keyring.pgp"];

/// The mirrors of this machine.
struct Mirrors {
    main: String,
    /// Absent where the machine follows no security updates; then the suites' own kernels have to do.
    security: Option<String>,
}

impl Mirrors {
    fn of_this_machine() -> Result<Self> {
        let listing = tool::capture_text(Command::new("apt-get").args([
            "indextargets",
            "--format",
            "$(RELEASE) $(REPO_URI)",
            "Created-By: Packages",
        ]))
        .context("asking apt for this machine's mirrors")?;
        let first = |wanted: &dyn Fn(&str) -> bool| {
            listing
                .lines()
                .filter_map(|line| line.split_once(' '))
                .find(|(suite, _)| wanted(suite))
                .map(|(_, uri)| uri.to_owned())
        };
        let main = first(&|suite| MAIN_SUITES.contains(&suite)).context(
            "apt on this machine follows no Debian mirror; give a kernel with --vmlinuz FILE --modules DIR instead",
        )?;
        let security = first(&|suite| suite.ends_with("-security") || suite.ends_with("/updates"));
        Ok(Self { main, security })
    }
}

/// apt, looking at one suite and its security updates.
pub(crate) struct Apt {
    directory: PathBuf,
    arch: Arch,
}

impl Apt {
    /// Reads the suite's package lists for that architecture into `directory`.
    pub(crate) fn new(directory: &Path, suite: &str, arch: Arch) -> Result<Self> {
        if paths::find_program("apt-get").is_none() {
            bail!("there is no apt on this machine; give a kernel with --vmlinuz FILE --modules DIR instead");
        }
        let mirrors = Mirrors::of_this_machine()?;
        for sub in ["state/lists/partial", "cache/archives/partial"] {
            let path = directory.join(sub);
            fs::create_dir_all(&path).with_context(|| format!("creating {}", path.display()))?;
        }
        let option = KEYRINGS
            .into_iter()
            .find(|keyring| Path::new(keyring).exists())
            .map_or(String::new(), |keyring| format!("[signed-by={keyring}] "));
        let mut sources = format!("deb {option}{} {suite} main\n", mirrors.main);
        // sid and what is tried out before it have no security suite: fixes reach them directly.
        if let Some(security) = mirrors.security.filter(|_| !["sid", "experimental"].contains(&suite)) {
            sources.push_str(&format!("deb {option}{security} {suite}-security main\n"));
        }
        fs::write(directory.join("sources.list"), sources).context("writing apt sources")?;
        fs::write(directory.join("status"), "").context("writing apt state")?;
        let apt = Self { directory: directory.to_path_buf(), arch };
        term::note(format_args!("reading the package lists of Debian {suite}, {}", arch.debian()));
        tool::capture(apt.command("apt-get").args(["update", "-q", "--error-on=any"]))?;
        Ok(apt)
    }

    /// The packages that a package needs, as far as their names start like this.
    pub(crate) fn dependencies(&self, package: &str, prefixes: &[&str]) -> Result<Vec<String>> {
        let listing =
            tool::capture_text(self.command("apt-cache").args(["depends", "--important", package]))?;
        Ok(listing
            .lines()
            .filter_map(|line| line.trim().strip_prefix("Depends: "))
            .filter(|name| prefixes.iter().any(|prefix| name.starts_with(prefix)))
            .map(str::to_owned)
            .collect())
    }

    /// Packages, and all that they need on a machine that has nothing.
    pub(crate) fn closure(&self, packages: &[&str]) -> Result<Vec<String>> {
        let listing = tool::capture_text(
            self.command("apt-get").args(["install", "-s", "-q", "--no-install-recommends"]).args(packages),
        )?;
        // `Inst nginx-light (1.22.1-9 Debian:12/stable [amd64])`
        let installed = listing.lines().filter_map(|line| line.strip_prefix("Inst ")?.split(' ').next());
        let packages: Vec<String> = installed.map(str::to_owned).collect();
        if packages.is_empty() {
            bail!("apt names no package that would be installed");
        }
        Ok(packages)
    }

    /// Downloads packages into a directory of their own and gives their files.
    pub(crate) fn download(&self, packages: &[String]) -> Result<Vec<PathBuf>> {
        let into = self.directory.join("packages");
        fs::create_dir_all(&into).with_context(|| format!("creating {}", into.display()))?;
        tool::capture(self.command("apt-get").args(["download", "-q"]).args(packages).current_dir(&into))?;
        let mut files = Vec::new();
        for entry in fs::read_dir(&into).with_context(|| format!("reading {}", into.display()))? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "deb") {
                files.push(path);
            }
        }
        Ok(files)
    }

    fn command(&self, program: &str) -> Command {
        let at = |name: &str| self.directory.join(name).display().to_string();
        let mut command = Command::new(program);
        command.env("LC_ALL", "C");
        for option in [
            format!("Dir::State={}", at("state")),
            format!("Dir::State::status={}", at("status")),
            format!("Dir::Cache={}", at("cache")),
            format!("Dir::Etc::sourcelist={}", at("sources.list")),
            "Dir::Etc::sourceparts=-".into(),
            "Dir::Etc::preferences=-".into(),
            "Dir::Etc::preferencesparts=-".into(),
            format!("APT::Architecture={}", self.arch.debian()),
            format!("APT::Architectures={}", self.arch.debian()),
            // As root apt would drop to a user who cannot write here.
            "APT::Sandbox::User=root".into(),
            // Archived suites are no longer re-signed; their signature is checked all the same.
            "Acquire::Check-Valid-Until=false".into(),
            "Acquire::Languages=none".into(),
            "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false".into(),
            "Acquire::Retries=3".into(),
        ] {
            command.arg("-o").arg(option);
        }
        command
    }
}
