//! Standard output, opened here and nowhere else: text goes through [`Lines`], JSON through [`JsonWriter`], and only an export is
//! written as it is.

use std::io::{self, BufWriter, IsTerminal as _, Write};
use std::ops::ControlFlow;

use super::json::JsonWriter;
use super::lines::Lines;
use super::screen::Screen;
use super::sink::Written;
use super::text::{Look, TextWriter};
use super::{Output, zone};

#[expect(clippy::disallowed_methods, reason = "the one place that opens it")]
fn stdout() -> io::Stdout {
    io::stdout()
}

/// Lines of text on standard output.
pub fn stdout_lines() -> Lines<impl Write> {
    let out = stdout();
    let colour = Screen::of_stdout(&out).colour;
    Lines::new(BufWriter::new(out), colour)
}

/// Lines of JSON on standard output: what `command` has to say of this host.
pub fn stdout_json(command: &'static str) -> JsonWriter<impl Write> {
    JsonWriter::new(BufWriter::new(stdout()), this_host(), command)
}

/// This host's name.
fn this_host() -> String {
    let name = nix::sys::utsname::uname().ok();
    name.map(|name| name.nodename().to_string_lossy().into_owned()).unwrap_or_default()
}

/// Standard output for an export, whose writer makes text harmless by itself.
pub fn stdout_export() -> impl Write + Send {
    BufWriter::new(stdout())
}

/// Standard output as the terminal that [`crate::top`] draws on, which makes text harmless by itself.
pub(crate) fn stdout_screen() -> io::Stdout {
    stdout()
}

/// Columns of the terminal that standard output is; `None` if it is none, where a table may be as wide as it likes.
pub fn terminal_width() -> Option<usize> {
    let out = stdout();
    out.is_terminal().then(|| Screen::of_stdout(&out).columns())
}

/// Columns of standard output: of the terminal that it is, else as many as texts have there.
pub fn columns() -> usize {
    Screen::of_stdout(&stdout()).columns()
}

/// Standard output of `command` in the form asked for. With `counters` the summary lists every kernel counter.
pub fn stdout_output(command: &'static str, json: bool, counters: bool) -> Output<impl Write> {
    let out = stdout();
    let screen = Screen::of_stdout(&out);
    let out = BufWriter::new(out);
    if json {
        Output::Json(JsonWriter::new(out, this_host(), command))
    } else {
        Output::Text(TextWriter::new(out, Look { zone: zone::local(), screen, counters }))
    }
}

/// A reader that is gone, as an error, so that `?` leaves whatever was going to be written; [`ended`] takes it for the
/// normal end that it is.
///
/// # Errors
/// When nobody reads any more, or it cannot be written.
pub fn go_on(written: Written) -> io::Result<()> {
    match written? {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(()) => Err(io::ErrorKind::BrokenPipe.into()),
    }
}

/// What was written, where a reader that is gone is a normal end.
///
/// # Errors
/// When it could not be written, for another reason.
pub fn ended(written: io::Result<()>) -> io::Result<()> {
    written.or_else(|error| if error.kind() == io::ErrorKind::BrokenPipe { Ok(()) } else { Err(error) })
}
