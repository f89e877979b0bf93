//! `tcptrace top` on a terminal that nobody sees.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::num::NonZeroU16;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::pty::{Winsize, openpty};

use crate::paths;

/// A screen that has not changed for this long is the answer to the last key. (A recording is drawn as soon as it is wound.)
const QUIET: Duration = Duration::from_millis(400);

/// How long a screen may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// The program, its terminal, and what is on that.
pub(super) struct Sitting {
    child: Child,
    keys: File,
    /// Kept open, so that the terminal outlives the program.
    _terminal: OwnedFd,
    written: Receiver<Vec<u8>>,
    parser: vt100::Parser,
}

impl Sitting {
    /// Opens a recording of `tcptrace/tests/recordings`, and waits until it is drawn.
    pub(super) fn begin(program: &Path, recording: &str, (width, height): (u16, u16)) -> Result<Self> {
        let pty =
            openpty(Some(&Winsize { ws_row: height, ws_col: width, ws_xpixel: 0, ws_ypixel: 0 }), None)?;
        for side in [&pty.master, &pty.slave] {
            fcntl(side, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
        }
        let place = paths::workspace()?.join("tcptrace/tests/recordings");
        ensure!(place.join(recording).exists(), "there is no {recording} in {}", place.display());
        let side = || -> Result<Stdio> { Ok(Stdio::from(pty.slave.try_clone()?)) };
        let child = Command::new(program)
            .args([
                "top",
                "--theme",
                "dark",
                "--color",
                "always",
                "--config",
                "/dev/null",
                "--utc",
                recording,
            ])
            .current_dir(place)
            .envs([("TERM", "xterm-256color"), ("LC_ALL", "C.UTF-8")])
            .env_remove("NO_COLOR")
            .stdin(side()?)
            .stdout(side()?)
            .stderr(side()?)
            .spawn()
            .with_context(|| format!("starting {}", program.display()))?;
        let mut screen = File::from(pty.master.try_clone()?);
        let (sender, written) = channel();
        thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(count @ 1..) = screen.read(&mut bytes) {
                let Some(bytes) = bytes.get(..count) else { return };
                if sender.send(bytes.to_vec()).is_err() {
                    return;
                }
            }
        });
        let size = |of| NonZeroU16::new(of).context("a screen of no size");
        let parser = vt100::Parser::new(size(height)?, size(width)?, 0);
        let keys = File::from(pty.master);
        let mut sitting = Self { child, keys, _terminal: pty.slave, written, parser };
        sitting.settle()?;
        Ok(sitting)
    }

    pub(super) fn screen(&self) -> &vt100::Screen {
        self.parser.screen()
    }

    /// Presses a key, or types a word, and waits until the screen is drawn.
    pub(super) fn press(&mut self, key: &str) -> Result<()> {
        let bytes = match key {
            "Enter" => "\r",
            "Esc" => "\u{1b}",
            "Down" => "\u{1b}[B",
            "Up" => "\u{1b}[A",
            "PgDn" => "\u{1b}[6~",
            "Space" => " ",
            typed => typed,
        };
        self.keys.write_all(bytes.as_bytes())?;
        self.settle()
    }

    /// Reads what is drawn until no more comes, and the recording is where it should be.
    fn settle(&mut self) -> Result<()> {
        let until = Instant::now() + PATIENCE;
        loop {
            match self.written.recv_timeout(QUIET) {
                Ok(bytes) => self.parser.process(&bytes),
                Err(RecvTimeoutError::Timeout) if self.is_drawn() => return Ok(()),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => bail!("the terminal is gone"),
            }
            ensure!(Instant::now() < until, "no screen: {}", self.screen().contents());
        }
    }

    fn is_drawn(&self) -> bool {
        let contents = self.screen().contents();
        let first = contents.lines().next().unwrap_or_default();
        first.starts_with("tcptrace top")
            && !contents.contains("before its first event")
            && ![": winding", ": playing"].iter().any(|word| first.ends_with(word))
    }
}

impl Drop for Sitting {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _gone = self.child.wait();
    }
}
