//! `tcptrace top` on a terminal of its own: it draws, follows keys and sizes, and gives the terminal back, however it ends.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use nix::pty::{Winsize, openpty};
use nix::sys::signal::{Signal, kill};
use nix::sys::termios::{LocalFlags, tcgetattr};
use nix::unistd::Pid;

/// How long anything may take: the machine may be busy, and this build is not optimized.
const PATIENCE: Duration = Duration::from_secs(20);

/// What leaves the alternate screen, as terminfo calls it `rmcup`.
const BACK: &str = "\u{1b}[?1049l";

/// The program on a terminal.
struct Sitting {
    child: Child,
    keys: File,
    terminal: OwnedFd,
    drawn: Arc<Mutex<Vec<u8>>>,
    begun: Instant,
}

impl Sitting {
    fn begin(arguments: &[&str]) -> Result<Self> {
        let size = Winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 };
        let pty = openpty(Some(&size), None)?;
        let begun = Instant::now();
        let child = Command::new(env!("CARGO_BIN_EXE_tcptrace"))
            .arg("top")
            .args(arguments)
            .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recordings"))
            .env("TERM", "xterm-256color")
            .env("LC_ALL", "C.UTF-8")
            .env_remove("NO_COLOR")
            .stdin(Stdio::from(pty.slave.try_clone()?))
            .stdout(Stdio::from(pty.slave.try_clone()?))
            .stderr(Stdio::from(pty.slave.try_clone()?))
            .spawn()?;
        let drawn = Arc::new(Mutex::new(Vec::new()));
        let mut screen = File::from(pty.master.try_clone()?);
        let into = Arc::clone(&drawn);
        thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(count @ 1..) = screen.read(&mut bytes) {
                into.lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .extend_from_slice(bytes.get(..count).unwrap_or_default());
            }
        });
        Ok(Self { child, keys: File::from(pty.master), terminal: pty.slave, drawn, begun })
    }

    fn screen(&self) -> MutexGuard<'_, Vec<u8>> {
        self.drawn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn seen(&self) -> String {
        String::from_utf8_lossy(&self.screen()).into_owned()
    }

    fn wait_for(&self, text: &str) -> Result<()> {
        let until = Instant::now() + PATIENCE;
        while !self.seen().contains(text) {
            ensure!(Instant::now() < until, "{text:?} is not drawn: {:?}", self.seen());
            thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// Presses keys, and waits until this word is drawn after them. Only what has changed is drawn, and of that no blanks, so that
    /// everything must be drawn anew (Ctrl-L).
    fn press(&mut self, keys: &str, until: &str) -> Result<()> {
        self.screen().clear();
        self.keys.write_all(keys.as_bytes())?;
        let until_then = Instant::now() + PATIENCE;
        while !self.seen().contains(until) {
            ensure!(Instant::now() < until_then, "after {keys:?}, {until:?} is not drawn: {:?}", self.seen());
            // A key that comes at the same moment as a new size is read with the next one.
            self.keys.write_all(b"\x0c")?;
            thread::sleep(Duration::from_millis(200));
        }
        Ok(())
    }

    fn resize(&self, columns: u16, lines: u16) -> Result<()> {
        let size =
            [("cols", columns), ("rows", lines)].map(|(name, size)| [name.to_owned(), size.to_string()]);
        let set =
            Command::new("stty").args(size.as_flattened()).stdin(self.terminal.try_clone()?).status()?;
        ensure!(set.success());
        // No shell is there to tell it.
        self.signal(Signal::SIGWINCH)
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        Ok(kill(Pid::from_raw(i32::try_from(self.child.id())?), signal)?)
    }

    fn end(&mut self) -> Result<ExitStatus> {
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            if Instant::now() >= until {
                self.child.kill()?;
                bail!("it does not end: {:?}", self.seen());
            }
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// The terminal shows what was there before, and lines can be typed again.
    fn is_given_back(&self) -> Result<()> {
        self.wait_for(BACK)?;
        let until = Instant::now() + PATIENCE;
        let wanted = LocalFlags::ICANON | LocalFlags::ECHO | LocalFlags::ISIG;
        while !tcgetattr(&self.terminal)?.local_flags.contains(wanted) {
            ensure!(Instant::now() < until, "the terminal stays raw");
            thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }
}

#[test]
fn it_draws_follows_keys_and_gives_the_terminal_back() -> Result<()> {
    let mut sitting = Sitting::begin(&["accept-overflow.arrows"])?;
    sitting.wait_for("6 connections")?;
    println!("first screen after {:?}", sitting.begun.elapsed());
    sitting.wait_for("backlog-argument")?;
    // Backspace is Escape without the wait for what else may come.
    for (keys, drawn) in [
        ("2", "depth/limit"),
        ("3", "destination"),
        ("4", "longest"),
        ("5", "unanswered"),
        ("6", "server"),
        ("\r", "(--all"),
        ("\u{7f}", "server"),
        ("1", "whom"),
        ("?", "OSC"),
    ] {
        sitting.press(keys, drawn)?;
    }
    sitting.keys.write_all(b"q")?;
    ensure!(sitting.end()?.code() == Some(0));
    sitting.is_given_back()
}

#[test]
fn a_storm_of_sizes_is_survived() -> Result<()> {
    let mut sitting = Sitting::begin(&["accept-overflow.arrows"])?;
    sitting.wait_for("backlog-argument")?;
    for step in 0..60_u16 {
        sitting.resize(1 + step * 37 % 180, 1 + step * 13 % 60)?;
    }
    sitting.resize(100, 30)?;
    sitting.press("2", "depth/limit")?;
    sitting.signal(Signal::SIGTERM)?;
    ensure!(sitting.end()?.code() == Some(0));
    sitting.is_given_back()
}

#[test]
fn whoever_is_killed_leaves_the_terminal_as_it_was() -> Result<()> {
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGKILL] {
        let mut sitting = Sitting::begin(&["accept-overflow.arrows"])?;
        sitting.wait_for("backlog-argument")?;
        ensure!(!tcgetattr(&sitting.terminal)?.local_flags.contains(LocalFlags::ICANON), "{signal}");
        sitting.signal(signal)?;
        let status = sitting.end()?;
        ensure!(signal == Signal::SIGKILL || status.code() == Some(0), "{signal}: {status}");
        sitting.is_given_back().with_context(|| format!("{signal}"))?;
    }
    Ok(())
}

#[test]
fn it_says_why_it_cannot_draw() -> Result<()> {
    let output = Command::new(env!("CARGO_BIN_EXE_tcptrace")).arg("top").stdin(Stdio::null()).output()?;
    let said = String::from_utf8(output.stderr)?;
    ensure!(output.status.code() == Some(2) && said.contains("tcptrace watch"), "{said}");
    let mut sitting = Sitting::begin(&["no-such-file.arrows"])?;
    ensure!(sitting.end()?.code() == Some(5));
    sitting.wait_for("No such file")
}
