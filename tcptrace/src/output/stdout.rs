//! Standard output, opened here and nowhere else: text goes through [`Lines`], JSON through [`JsonWriter`], and only an export is
//! written as it is.

use std::io::{self, BufWriter, IsTerminal as _, Write};
use std::ops::ControlFlow;

use super::json::JsonWriter;
use super::lines::Lines;
use super::sink::Written;
use super::text::TextWriter;
use super::{Output, zone};

#[expect(clippy::disallowed_methods, reason = "the one place that opens it")]
fn stdout() -> io::Stdout {
    io::stdout()
}

/// Lines of text on standard output.
pub fn stdout_lines() -> Lines<impl Write> {
    let out = stdout();
    let colour = out.is_terminal() && std::env::var_os("NO_COLOR").is_none();
    Lines::new(BufWriter::new(out), colour)
}

/// Lines of JSON on standard output.
pub fn stdout_json() -> JsonWriter<impl Write> {
    JsonWriter::new(BufWriter::new(stdout()))
}

/// Standard output for an export, whose writer makes text harmless by itself.
pub fn stdout_export() -> impl Write + Send {
    BufWriter::new(stdout())
}

/// Columns of the terminal that standard output is; `None` if it is none.
pub fn terminal_width() -> Option<usize> {
    terminal_size::terminal_size().filter(|_| stdout().is_terminal()).map(|(width, _)| usize::from(width.0))
}

/// Standard output in the form asked for.
pub fn stdout_output(json: bool) -> Output<impl Write> {
    let out = stdout();
    let colour = out.is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let out = BufWriter::new(out);
    if json {
        Output::Json(JsonWriter::new(out))
    } else {
        Output::Text(TextWriter::new(out, zone::local(), colour))
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
