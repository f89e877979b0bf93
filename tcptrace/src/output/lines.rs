//! Text for people, line by line: the one way for text to standard output.
//!
//! Every line is made harmless here, whatever it was put together from: a process, a container or a file is called what
//! somebody chose. Whoever makes a line escapes a name before that only where a line end in it must not end the line.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::ops::ControlFlow;

use super::account::Row;
use super::escape::escape;
use super::meaning::Meaning;
use super::sink::{LineSink, Written};
use super::stdout::go_on;

/// Writes lines of text.
#[derive(Debug)]
pub struct Lines<W: Write> {
    to: LineSink<W>,
    colour: bool,
}

impl<W: Write> Lines<W> {
    /// Writes to `to`, with colours if `colour`.
    pub fn new(to: W, colour: bool) -> Self {
        Self { to: LineSink::new(to), colour }
    }

    /// One line. A line end within is written as `\n`.
    ///
    /// # Errors
    /// When it cannot be written; a reader that has gone is none.
    pub fn line(&mut self, text: &str) -> Written {
        self.parts(&[(None, text)])
    }

    /// One line, for those whom nothing but going on concerns: a reader that has gone is an error, of kind `BrokenPipe`.
    ///
    /// # Errors
    /// When it cannot be written, or is not read.
    pub fn say(&mut self, text: std::fmt::Arguments<'_>) -> io::Result<()> {
        go_on(self.line(&text.to_string()))
    }

    /// Several lines, each ended by a line end. Foreign text in them must have been escaped before.
    ///
    /// # Errors
    /// When it cannot be written; a reader that has gone is none.
    pub fn text(&mut self, text: &str) -> Written {
        for line in text.lines() {
            if self.line(line)?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// One line, all of it in the colour of its meaning.
    ///
    /// # Errors
    /// When it cannot be written; a reader that has gone is none.
    pub(crate) fn marked(&mut self, meaning: Meaning, text: &str) -> Written {
        self.parts(&[(Some(meaning), text)])
    }

    /// Lines with their leads, which are labels.
    ///
    /// # Errors
    /// When they cannot be written; a reader that has gone is none.
    pub(crate) fn rows<'a>(&mut self, rows: impl IntoIterator<Item = &'a Row>) -> Written {
        for row in rows {
            if self.parts(&[(Some(Meaning::Label), &row.lead), (row.meaning, &row.text)])?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// One line of parts, each in the colour of its meaning.
    pub(super) fn parts(&mut self, parts: &[(Option<Meaning>, &str)]) -> Written {
        let mut line = self.coloured(parts);
        line.push('\n');
        self.to.write(line.as_bytes())
    }

    /// A line that is not over, at the end of which the cursor stays. For terminals.
    pub(super) fn unended(&mut self, parts: &[(Option<Meaning>, &str)]) -> Written {
        let line = self.coloured(parts);
        self.to.write(line.as_bytes())
    }

    /// Takes back the line that the cursor is in, and `above` lines above it. For terminals.
    pub(super) fn take_back(&mut self, above: usize) -> Written {
        let mut codes = String::from("\r\u{1b}[K");
        codes.extend(std::iter::repeat_n("\u{1b}[1A\u{1b}[K", above));
        self.to.write(codes.as_bytes())
    }

    fn coloured(&self, parts: &[(Option<Meaning>, &str)]) -> String {
        let mut line = String::new();
        for (meaning, text) in parts {
            let text = escape(text);
            match meaning.filter(|_| self.colour && !text.trim().is_empty()) {
                Some(meaning) => {
                    let style = meaning.style();
                    // Writing to a String does not fail.
                    let _ = write!(line, "{style}{text}{style:#}");
                }
                None => line.push_str(&text),
            }
        }
        line
    }

    /// Passes on what was written.
    ///
    /// # Errors
    /// When it cannot be written; a reader that has gone is none.
    pub fn flush(&mut self) -> Written {
        self.to.flush()
    }

    /// The writer.
    pub fn into_inner(self) -> W {
        self.to.into_inner()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(colour: bool, write: impl FnOnce(&mut Lines<Vec<u8>>)) -> String {
        let mut lines = Lines::new(Vec::new(), colour);
        write(&mut lines);
        String::from_utf8(lines.into_inner()).unwrap()
    }

    #[test]
    fn nothing_foreign_moves_a_terminal_or_turns_a_line_round() {
        let said = written(false, |to| drop(to.line("a\u{1b}[2Jb\u{9b}c\u{202e}d\ne")));
        assert_eq!(said, "a\\x1b[2Jb\\x9bc\\u{202e}d\\ne\n");
        assert_eq!(written(false, |to| drop(to.text("a\u{9b}\nb\u{202e}"))), "a\\x9b\nb\\u{202e}\n");
    }

    #[test]
    fn what_was_escaped_before_stays_as_it_is() {
        assert_eq!(written(false, |to| drop(to.line(&escape("a\u{1b}\\n")))), "a\\x1b\\n\n");
    }

    #[test]
    fn only_our_own_colours_are_colours() {
        let said =
            written(true, |to| drop(to.parts(&[(Some(Meaning::Critical), "x"), (None, "\u{1b}[31my")])));
        assert_eq!(said, "\u{1b}[1m\u{1b}[31mx\u{1b}[0m\\x1b[31my\n");
    }
}
