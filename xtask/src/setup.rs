//! `cargo xtask setup`: everything that building the object, the guests and the tests need, on a fresh machine.
//!
//! It asks for abilities, not for packages: what is there already, from wherever, is left alone, and a second run has
//! nothing to do.

use std::process::Command;

use anyhow::{Context as _, Result, bail};
use clap::Args as ClapArgs;
use nix::unistd::Uid;

use crate::arch::Arch;
use crate::ebpf::toolchain::{self, LINKER_VERSION};
use crate::vm::{self, Kernel, Series};
use crate::{binary, paths, readers, software, term, tool};

/// Without options: everything.
#[derive(ClapArgs)]
pub(crate) struct Args {
    /// Only what building the eBPF object needs.
    #[arg(long)]
    ebpf: bool,
    /// Only what running guests needs: QEMU, busybox, the kernels.
    #[arg(long, conflicts_with = "ebpf")]
    vm: bool,
    /// Look up each series' newest kernel again, instead of keeping the one that was newest once.
    #[arg(long)]
    refresh: bool,
}

/// Something a program here must be able to do, and the Debian packages that bring it.
pub(crate) struct Need {
    pub(crate) what: &'static str,
    pub(crate) packages: &'static [&'static str],
    pub(crate) is_met: fn() -> bool,
}

const EBPF_NEEDS: [Need; 1] = [Need {
    what: "a rustc that comes with its library's sources",
    // Debian's backport of a recent compiler to its stable releases. (The plain `rustc` there is too old.)
    packages: &["rustc-web", "cargo-web", "rust-web-src"],
    is_met: || toolchain::find_rustc().is_ok_and(|rustc| rustc.with_file_name("cargo").is_file()),
}];

const VM_NEEDS: [Need; 4] = [
    Need { what: "QEMU", packages: &["qemu-system-x86"], is_met: || has_program("qemu-system-x86_64") },
    Need { what: "a static busybox", packages: &["busybox-static"], is_met: || has_program("busybox") },
    Need { what: "xz", packages: &["xz-utils"], is_met: || has_program("xz") },
    Need { what: "strip", packages: &["binutils"], is_met: || has_program("strip") },
];

const ARM64_NEEDS: [Need; 2] = [
    Need {
        what: "QEMU for arm64",
        packages: &["qemu-system-arm"],
        is_met: || has_program("qemu-system-aarch64"),
    },
    Need {
        what: "a C compiler and library for arm64",
        packages: &["gcc-aarch64-linux-gnu", "libc6-dev-arm64-cross"],
        is_met: binary::has_compiler,
    },
];

/// What the tests compare with.
const TEST_NEEDS: [Need; 2] = [
    Need { what: "ss", packages: &["iproute2"], is_met: || has_program("ss") },
    Need { what: "lsof", packages: &["lsof"], is_met: || has_program("lsof") },
];

/// What scrapes the agent, and checks its metrics and rules. Tests that find none say so.
const METRICS_NEEDS: [Need; 2] = [
    Need {
        what: "Prometheus",
        packages: &["prometheus"],
        is_met: || has_program("prometheus") && has_program("promtool"),
    },
    Need {
        what: "VictoriaMetrics",
        packages: &["victoria-metrics"],
        is_met: || has_program("victoria-metrics"),
    },
];

fn has_program(name: &str) -> bool {
    paths::find_program(name).is_some()
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let everything = !args.ebpf && !args.vm;
    let mut needs = Vec::new();
    if everything || args.ebpf {
        needs.extend(&EBPF_NEEDS);
    }
    if everything || args.vm {
        needs.extend(&VM_NEEDS);
    }
    if everything {
        needs.extend(&TEST_NEEDS);
    }
    install(&needs)?;
    if everything || args.ebpf {
        install_linker()?;
    }
    if everything || args.vm {
        kernels(Arch::X86_64, &Series::ALL, args.refresh)?;
        if let Err(error) = arm64(args.refresh) {
            term::note(format_args!("there will be no guests of arm64: {error:#}"));
        }
    }
    if everything {
        for need in &METRICS_NEEDS {
            if let Err(error) = install(&[need]) {
                term::note(format_args!("metrics will be tested without {}: {error:#}", need.what));
            }
        }
        readers::install();
        software::install()?;
    }
    term::note("everything is set up");
    Ok(())
}

/// Everything for guests of arm64. They are beside the others: a machine that cannot have them has all the rest.
pub(crate) fn arm64(refresh: bool) -> Result<()> {
    install(&ARM64_NEEDS.iter().collect::<Vec<_>>())?;
    binary::install_library()?;
    vm::busybox(Arch::Arm64)?;
    kernels(Arch::Arm64, &Series::ARM64, refresh)
}

fn kernels(arch: Arch, wanted: &[Series], refresh: bool) -> Result<()> {
    for &series in wanted {
        if refresh {
            Kernel::forget(arch, series)?;
        }
        let kernel = Kernel::of(arch, series)?;
        term::note(format_args!("kernel {}: {}", kernel.name, kernel.release));
    }
    Ok(())
}

/// Installs what is missing, where that can be done.
pub(crate) fn install(needs: &[&Need]) -> Result<()> {
    let unmet: Vec<&Need> = needs.iter().copied().filter(|need| !(need.is_met)()).collect();
    if unmet.is_empty() {
        return Ok(());
    }
    let missing = unmet.iter().map(|need| need.what).collect::<Vec<_>>().join(", ");
    let packages: Vec<&str> = unmet.iter().flat_map(|need| need.packages).copied().collect();
    if !has_program("apt-get") {
        bail!(
            "missing: {missing}. This machine has no apt; install what Debian has in: {}",
            packages.join(" ")
        );
    }
    if !Uid::effective().is_root() {
        bail!(
            "missing: {missing}. Run this as root, then `cargo xtask setup` again:\n\n    \
             apt-get update && apt-get install -y --no-install-recommends {}\n",
            packages.join(" ")
        );
    }
    term::note(format_args!("missing: {missing}; installing {}", packages.join(" ")));
    tool::capture(Command::new("apt-get").args(["update", "-q"]))?;
    tool::capture(
        Command::new("apt-get")
            .env("DEBIAN_FRONTEND", "noninteractive")
            .args(["install", "-y", "-q", "--no-install-recommends"])
            .args(&packages),
    )?;
    match unmet.iter().find(|need| !(need.is_met)()) {
        None => Ok(()),
        Some(need) => {
            bail!("{} were installed, and still there is not: {}", need.packages.join(", "), need.what)
        }
    }
}

/// By cargo, into the cache: it is not this machine's business which linker the project uses.
fn install_linker() -> Result<()> {
    if let Some(linker) = toolchain::find_linker() {
        let version = tool::capture_text(Command::new(&linker).arg("--version"))?;
        if version.trim().ends_with(&format!(" {LINKER_VERSION}")) {
            return Ok(());
        }
    }
    let root = toolchain::linker_root()?;
    term::note(format_args!("installing bpf-linker {LINKER_VERSION} (some minutes)"));
    tool::capture(
        paths::cargo()
            .args(["install", "--quiet", "--locked", "bpf-linker", "--version", LINKER_VERSION, "--root"])
            .arg(&root)
            // Flags and wrappers meant for this workspace are not meant for it.
            .env_remove("RUSTFLAGS")
            .env_remove("CARGO_ENCODED_RUSTFLAGS"),
    )
    .context("installing bpf-linker")?;
    Ok(())
}
