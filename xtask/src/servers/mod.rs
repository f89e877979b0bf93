//! `cargo xtask servers`: `tcptrace why` about real servers, in a guest. Not part of `cargo xtask test`: it needs their packages, and
//! minutes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use clap::Args as ClapArgs;

use crate::arch::Arch;
use crate::vm::{self, Guest, Hardware, HostCopy, Kernel, Series, Unpacked};
use crate::{binary, tool};

/// In which Debian release they are.
const SUITE: &str = "bookworm";
/// The servers, a load and a firewall, and every library that these need.
const PACKAGES: &[&str] = &[
    "nginx",
    "nginx-common",
    "redis-server",
    "redis-tools",
    "openssh-server",
    "openssh-client",
    "iptables",
    "libatomic1",
    "libaudit1",
    "libbsd0",
    "libc6",
    "libcap-ng0",
    "libcap2",
    "libcom-err2",
    "libcrypt1",
    "libgcc-s1",
    "libgcrypt20",
    "libgpg-error0",
    "libgssapi-krb5-2",
    "libip4tc2",
    "libip6tc2",
    "libjemalloc2",
    "libk5crypto3",
    "libkeyutils1",
    "libkrb5-3",
    "libkrb5support0",
    "liblz4-1",
    "liblzf1",
    "liblzma5",
    "libmd0",
    "libmnl0",
    "libnetfilter-conntrack3",
    "libnfnetlink0",
    "libnftnl11",
    "libnsl2",
    "libpam0g",
    "libpcre2-8-0",
    "libselinux1",
    "libssl3",
    "libstdc++6",
    "libsystemd0",
    "libtirpc3",
    "libwrap0",
    "libxtables12",
    "libzstd1",
    "zlib1g",
];
/// What is done with them, and what `why` must say.
const SCRIPT: &str = include_str!("servers.sh");
/// Three tiers of some fifteen questions, each of which loads the programs anew.
const TIMEOUT: Duration = Duration::from_secs(1800);

#[derive(ClapArgs)]
pub(crate) struct Args {
    /// On which Debian kernel.
    #[arg(long, value_enum, default_value = "newest")]
    kernel: Series,
    /// Only in this tier (auto, kprobe or tracepoint); may be given several times.
    #[arg(long = "attach", value_name = "TIER")]
    tiers: Vec<String>,
    /// Test this static `tcptrace` instead of building one.
    #[arg(long, value_name = "FILE")]
    program: Option<PathBuf>,
}

/// The exit status counts the wrong answers.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let program = match &args.program {
        Some(program) => program.clone(),
        None => binary::build(Arch::X86_64)?,
    };
    let unpacked = Unpacked::new("servers", SUITE)?;
    let packages = PACKAGES.iter().map(|&package| package.to_owned()).collect();
    let tree = unpacked.tree(SUITE, |_| Ok(packages), whole)?;
    let work = tempfile::Builder::new().prefix("tcptrace-servers-").tempdir().context("a directory")?;
    // Packed, so that links stay links and nobody looks for libraries on this machine.
    let (pack, script) = (work.path().join("servers.tar"), work.path().join("servers.sh"));
    tool::capture(Command::new("tar").arg("-C").arg(tree).arg("-cf").arg(&pack).arg("."))?;
    fs::write(&script, SCRIPT).with_context(|| format!("writing {}", script.display()))?;

    let copy = |host: PathBuf, guest: &str| HostCopy { host, guest: PathBuf::from(guest) };
    let guest = Guest {
        hardware: Hardware { memory: "1500M".to_owned(), ..Hardware::default() },
        copies: vec![copy(program, "/usr/local/bin/tcptrace")],
        bare_copies: vec![copy(pack, "/servers.tar"), copy(script, "/servers.sh")],
        ..Guest::new(Kernel::of_series(args.kernel)?)
    };
    let tiers =
        if args.tiers.is_empty() { "auto kprobe tracepoint".to_owned() } else { args.tiers.join(" ") };
    let command = format!(
        "ip link set lo up; mkdir /servers && tar -xf /servers.tar -C /servers && rm /servers.tar || exit 1
         wrong=0; for tier in {tiers}; do sh /servers.sh /servers $tier; wrong=$((wrong + $?)); done; exit $wrong"
    );
    vm::cli::run_one(&guest, vec!["sh".to_owned(), "-c".to_owned(), command], TIMEOUT, false)
}

/// Refuses a tree without one of the servers.
fn whole(tree: &Path) -> Result<()> {
    for server in ["usr/sbin/nginx", "usr/bin/redis-server", "usr/sbin/sshd", "usr/sbin/iptables-nft"] {
        ensure!(tree.join(server).symlink_metadata().is_ok(), "the packages have no {server}");
    }
    Ok(())
}
