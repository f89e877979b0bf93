//! The virtual machine: QEMU's command line, and a process that never outlives us.

use std::fs::File;
use std::io::Write as _;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::unistd::dup;

use super::agent::PORT_NAME;
use super::kernel::Kernel;
use crate::arch::Arch;
use crate::paths;

/// What the machine is given.
#[derive(Clone, Debug)]
pub(crate) struct Hardware {
    /// In QEMU's notation: `1G`, `512M`.
    pub(crate) memory: String,
    pub(crate) cpus: u32,
    /// The guest's clock advances by one nanosecond an instruction, and jumps while all is idle: what else this machine
    /// does changes nothing, and a time in the guest is a number of instructions. Slower, as its processors take turns.
    pub(crate) counts_instructions: bool,
    /// More for the kernel's command line: `ipv6.disable=1`.
    pub(crate) kernel_arguments: Vec<String>,
}

const EMULATION: &[&str] = &["-accel", "tcg,thread=multi"];
const INSTRUCTION_CLOCK: &[&str] = &["-accel", "tcg,thread=single", "-icount", "shift=0,sleep=off"];

const KERNEL_ARGUMENTS: &str = "panic=-1 oops=panic mitigations=off";

/// The machine of an architecture, beside what all have.
struct Model {
    qemu: &'static str,
    arguments: &'static [&'static str],
    kernel_arguments: &'static str,
}

fn model(arch: Arch) -> Model {
    match arch {
        Arch::X86_64 => Model {
            qemu: "qemu-system-x86_64",
            // QEMU 7.2 corrupts the flags in an emulated cmpxchg16b, on which 6.12 panics: hide it from the guest.
            arguments: &["-cpu", "max,-cx16"],
            kernel_arguments: "console=ttyS0 unknown_nmi_panic no_timer_check tsc=reliable",
        },
        Arch::Arm64 => Model {
            qemu: "qemu-system-aarch64",
            // A processor without pointer authentication: with `max`, which has it, a boot takes ten times as long.
            arguments: &["-machine", "virt", "-cpu", "cortex-a72"],
            kernel_arguments: "console=ttyAMA0",
        },
    }
}

impl Default for Hardware {
    fn default() -> Self {
        Self { memory: "1G".into(), cpus: 2, counts_instructions: false, kernel_arguments: Vec::new() }
    }
}

/// What the machine reads and writes, all by descriptor: nothing lies about when somebody interrupts us.
pub(crate) struct Wiring {
    pub(crate) initramfs: File,
    /// Gets all that the kernel prints.
    pub(crate) console: File,
    /// QEMU's end of the agent's port.
    pub(crate) port: UnixStream,
}

/// A running QEMU; killed when dropped.
pub(crate) struct Machine {
    qemu: Child,
    /// QEMU's monitor, for people: a command a line.
    monitor: UnixStream,
}

impl Machine {
    pub(crate) fn start(hardware: &Hardware, kernel: &Kernel, wiring: &Wiring) -> Result<Self> {
        if !cfg!(target_arch = "x86_64") {
            bail!("programs of this machine run in x86-64 guests: it has to be x86-64 too");
        }
        let model = model(kernel.arch);
        let qemu = paths::find_program(model.qemu)
            .with_context(|| format!("{} is not installed; run: cargo xtask setup", model.qemu))?;
        // Unlike the originals, duplicates are inherited by children.
        let (initramfs, console, port) = (dup(&wiring.initramfs)?, dup(&wiring.console)?, dup(&wiring.port)?);
        let (monitor, its_monitor) = UnixStream::pair().context("making a socket pair")?;
        let its_monitor = dup(&its_monitor)?;
        let kernel_arguments =
            [model.kernel_arguments, KERNEL_ARGUMENTS, &hardware.kernel_arguments.join(" ")].join(" ");
        let mut command = Command::new(qemu);
        command
            // Emulation only: on many CI hosts /dev/kvm is missing, and on some it is there and does not work.
            .args(if hardware.counts_instructions { INSTRUCTION_CLOCK } else { EMULATION })
            .args(model.arguments)
            .args(["-m", &hardware.memory, "-smp", &hardware.cpus.to_string()])
            .args(["-nodefaults", "-no-user-config", "-display", "none", "-nic", "none"])
            // With `panic=-1` below, a panic ends QEMU at once.
            .arg("-no-reboot")
            .arg("-kernel")
            .arg(&kernel.image)
            .args(["-initrd", &path_of(&initramfs)])
            .args(["-append", &kernel_arguments])
            .args(["-chardev", &format!("file,id=console,path={}", path_of(&console))])
            .args(["-serial", "chardev:console"])
            .args(["-device", "virtio-serial-pci"])
            .args(["-chardev", &format!("socket,id=agent,fd={}", port.as_raw_fd())])
            .args(["-device", &format!("virtserialport,chardev=agent,name={PORT_NAME}")])
            .args(["-chardev", &format!("socket,id=monitor,fd={}", its_monitor.as_raw_fd())])
            .args(["-mon", "chardev=monitor,mode=readline"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        // SAFETY: between fork and exec only prctl is called, which is async-signal-safe and allocates nothing.
        unsafe {
            // If we are killed, even by SIGKILL, the machine must not stay behind and burn two cores.
            command.pre_exec(|| prctl::set_pdeathsig(Signal::SIGKILL).map_err(Into::into));
        }
        Ok(Self { qemu: command.spawn().context("starting QEMU")?, monitor })
    }

    /// Has a kernel that hangs say where: it takes this interrupt for the end of all things (`unknown_nmi_panic`).
    pub(crate) fn interrupt_for_good(&mut self) {
        // If QEMU does not listen, the console will have to do without.
        let _deaf = self.monitor.write_all(b"nmi\n");
    }

    /// The status, if QEMU ended within this time.
    pub(crate) fn ended_within(&mut self, time: Duration) -> Result<Option<ExitStatus>> {
        let start = Instant::now();
        loop {
            if let Some(status) = self.qemu.try_wait().context("waiting for QEMU")? {
                return Ok(Some(status));
            }
            if start.elapsed() >= time {
                return Ok(None);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// What QEMU itself complained about; to be asked only when it has ended.
    pub(crate) fn complaint(&mut self) -> String {
        let mut text = String::new();
        if let Some(mut stderr) = self.qemu.stderr.take() {
            let _unreadable = std::io::Read::read_to_string(&mut stderr, &mut text);
        }
        text.trim().to_owned()
    }
}

/// A name under which a child can open what it has inherited.
fn path_of(descriptor: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", descriptor.as_raw_fd())
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ended_already = self.qemu.kill();
        let _reaped = self.qemu.wait();
    }
}
