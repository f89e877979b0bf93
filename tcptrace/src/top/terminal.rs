//! The terminal: taken over, drawn on, and given back as it was, however this program ends.

use std::io::{self, BufWriter, IsTerminal as _, Read as _, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::sys::termios::{self, InputFlags, LocalFlags, OutputFlags, SetArg, Termios};
use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::cursor::Show;
use ratatui::crossterm::event::{DisableMouseCapture, EnableMouseCapture};
use ratatui::crossterm::execute;
use ratatui::crossterm::terminal::{
    EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode,
};
use ratatui::{Frame, Terminal};

use crate::output::stdout_screen;

/// The hidden subcommand of the process that gives the terminal back where this one is killed.
pub(crate) const GUARD_SUBCOMMAND: &str = "__terminal-guard";

/// What the guard is told where there is nothing left to do for it.
const ALL_IS_WELL: u8 = b'q';

/// How long the guard tries to give the terminal back, seconds.
const GUARD_PATIENCE_S: u32 = 60;

/// Whether the terminal is ours, so that it is given back once.
static TAKEN: AtomicBool = AtomicBool::new(false);

/// Whether standard input and output are a terminal that a screen can be drawn on; why not, if not.
///
/// # Errors
/// In words.
pub fn is_usable() -> Result<(), String> {
    if !stdout_screen().is_terminal() || !io::stdin().is_terminal() {
        return Err("top draws on a terminal, and standard input or output is none; \
                    use tcptrace watch (or replay FILE) in pipes"
            .to_owned());
    }
    match std::env::var("TERM").as_deref() {
        Err(_) | Ok("" | "dumb") => Err("TERM says that this terminal cannot be drawn on; \
                                         use tcptrace watch (or replay FILE)"
            .to_owned()),
        Ok(_) => Ok(()),
    }
}

type Backend = CrosstermBackend<BufWriter<io::Stdout>>;

/// A terminal that is ours until this is dropped.
pub(crate) struct Screen {
    terminal: Terminal<Backend>,
    mouse: bool,
    guard: Option<Guard>,
}

impl Screen {
    /// Takes the terminal over.
    pub(crate) fn enter(mouse: bool) -> io::Result<Self> {
        give_back_on_panic();
        let guard = Guard::start();
        take(mouse)?;
        let terminal =
            Terminal::new(CrosstermBackend::new(BufWriter::with_capacity(1 << 16, stdout_screen())));
        match terminal {
            Ok(terminal) => Ok(Self { terminal, mouse, guard }),
            Err(error) => {
                give_back();
                Err(error)
            }
        }
    }

    /// Draws a frame; only what has changed is written.
    pub(crate) fn draw(&mut self, frame: impl FnOnce(&mut Frame<'_>)) -> io::Result<()> {
        self.terminal.draw(frame)?;
        Ok(())
    }

    /// The next frame is written whole. (`Terminal::clear` asks the terminal where its cursor is, and the answer would go to the
    /// thread that reads keys.)
    pub(crate) fn forget(&mut self) -> io::Result<()> {
        let size = self.terminal.size()?;
        self.terminal.resize(size.into())
    }

    /// Gives the terminal back, stops like any other program at Ctrl-Z, and takes the terminal again when it is continued.
    pub(crate) fn suspend(&mut self) -> io::Result<()> {
        give_back();
        nix::sys::signal::raise(nix::sys::signal::Signal::SIGSTOP)?;
        self.again()
    }

    /// Takes the terminal again, which a shell may have changed meanwhile.
    pub(crate) fn again(&mut self) -> io::Result<()> {
        take(self.mouse)?;
        self.forget()
    }

    /// Takes clicks and the wheel, or leaves them to the terminal again; whether they are taken now.
    pub(crate) fn turn_mouse(&mut self) -> io::Result<bool> {
        self.mouse = !self.mouse;
        let mut out = stdout_screen();
        if self.mouse {
            execute!(out, EnableMouseCapture)?;
        } else {
            execute!(out, DisableMouseCapture)?;
        }
        Ok(self.mouse)
    }

    /// Puts text on the clipboard of the terminal (OSC 52), where it lets programs do that.
    pub(crate) fn copy(&mut self, text: &str) -> io::Result<()> {
        let out = self.terminal.backend_mut();
        write!(out, "\x1b]52;c;{}\x07", base64(text.as_bytes()))?;
        Write::flush(out)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        give_back();
        if let Some(guard) = self.guard.take() {
            guard.dismiss();
        }
    }
}

fn take(mouse: bool) -> io::Result<()> {
    enable_raw_mode()?;
    TAKEN.store(true, Ordering::SeqCst);
    let mut out = stdout_screen();
    let taken = execute!(out, EnterAlternateScreen)
        .and_then(|()| if mouse { execute!(out, EnableMouseCapture) } else { Ok(()) });
    if taken.is_err() {
        give_back();
    }
    taken
}

/// Gives the terminal back, if it is ours. What fails on a terminal that is gone does not matter.
pub(crate) fn give_back() {
    if TAKEN.swap(false, Ordering::SeqCst) {
        let mut out = stdout_screen();
        let _gone = execute!(out, DisableMouseCapture, LeaveAlternateScreen, Show);
        let _gone = disable_raw_mode();
    }
}

/// A message of a panic belongs on a terminal that shows it.
fn give_back_on_panic() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            give_back();
            before(info);
        }));
    });
}

/// A process that waits for the end of this one. If that comes without a word (SIGKILL), it gives the terminal back.
struct Guard {
    child: Child,
    line: ChildStdin,
}

impl Guard {
    /// `None` where it cannot be had: then there is none.
    fn start() -> Option<Self> {
        let settings = termios::tcgetattr(stdout_screen().as_fd()).ok()?;
        let terminal: OwnedFd = stdout_screen().as_fd().try_clone_to_owned().ok()?;
        let mut child = Command::new("/proc/self/exe")
            .arg(GUARD_SUBCOMMAND)
            .args([
                settings.input_flags.bits().to_string(),
                settings.output_flags.bits().to_string(),
                settings.local_flags.bits().to_string(),
            ])
            .stdin(Stdio::piped())
            .stdout(Stdio::from(terminal))
            .stderr(Stdio::null())
            .spawn()
            .ok()?;
        let line = child.stdin.take()?;
        Some(Self { child, line })
    }

    fn dismiss(mut self) {
        // If it is gone, it needs no word.
        let _gone = self.line.write_all(&[ALL_IS_WELL]);
        drop(self.line);
        let _gone = self.child.wait();
    }
}

/// What our executable does as a guard: its arguments are the settings of the terminal as they were.
pub(crate) fn guard_main(mut arguments: impl Iterator<Item = std::ffi::OsString>) -> std::process::ExitCode {
    // Signals for the terminal's jobs are not for this process; and in a session of its own it may change the terminal whoever has it.
    let _gone = nix::unistd::setsid();
    let mut flag = || arguments.next()?.to_str()?.parse::<u32>().ok();
    let (input, output, local) = (flag(), flag(), flag());
    let mut word = Vec::new();
    let _gone = io::stdin().take(1).read_to_end(&mut word);
    if word.first() == Some(&ALL_IS_WELL) {
        return std::process::ExitCode::SUCCESS;
    }
    // A terminal that takes nothing (Ctrl-S) is waited for, but not for ever.
    nix::unistd::alarm::set(GUARD_PATIENCE_S);
    let mut out = stdout_screen();
    // The settings first: they never have to wait.
    if let (Some(input), Some(output), Some(local)) = (input, output, local)
        && let Ok(mut settings) = termios::tcgetattr(out.as_fd())
    {
        set(&mut settings, input, output, local);
        let _gone = termios::tcsetattr(out.as_fd(), SetArg::TCSANOW, &settings);
    }
    let _gone = execute!(out, DisableMouseCapture, LeaveAlternateScreen, Show);
    std::process::ExitCode::SUCCESS
}

fn set(settings: &mut Termios, input: u32, output: u32, local: u32) {
    settings.input_flags = InputFlags::from_bits_retain(input);
    settings.output_flags = OutputFlags::from_bits_retain(output);
    settings.local_flags = LocalFlags::from_bits_retain(local);
}

/// Base 64 (RFC 4648), as OSC 52 wants it.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let byte = |index: usize| u32::from(chunk.get(index).copied().unwrap_or(0));
        let group = byte(0) << 16 | byte(1) << 8 | byte(2);
        for digit in 0..4 {
            let value = usize::try_from(group >> (18 - 6 * digit) & 63).unwrap_or(0);
            let sign = if digit <= chunk.len() { DIGITS.get(value).copied().unwrap_or(b'=') } else { b'=' };
            text.push(char::from(sign));
        }
    }
    text
}

/// Whether the locale has characters beyond ASCII.
pub(crate) fn shows_unicode() -> bool {
    let set = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    // As setlocale(3) does: the first that is set decides.
    let locale = set("LC_ALL").or_else(|| set("LC_CTYPE")).or_else(|| set("LANG")).unwrap_or_default();
    let locale = locale.to_lowercase();
    locale.contains("utf-8") || locale.contains("utf8")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_that_of_the_rfc() {
        for (plain, coded) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
            ("sysctl -w \u{fc}", "c3lzY3RsIC13IMO8"),
        ] {
            assert_eq!(base64(plain.as_bytes()), coded);
        }
    }
}
