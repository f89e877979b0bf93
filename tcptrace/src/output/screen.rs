//! What text is printed on: how wide it is, whether it shows colours, whether lines can be written anew.

use std::{io, os::fd::AsFd};

use anstream::{AutoStream, ColorChoice, stream::RawStream};

/// Columns where there is no terminal to ask.
pub(super) const COLUMNS: usize = 100;

/// What text is printed on.
#[derive(Clone, Copy, Debug)]
pub struct Screen {
    /// Whether it shows colours.
    pub colour: bool,
    /// Whether a person looks on: it is a terminal that lets lines be written anew.
    pub terminal: bool,
    width: Width,
}

#[derive(Clone, Copy, Debug)]
enum Width {
    Fixed(usize),
    /// Of the terminal as it is at the moment: it may be resized.
    Terminal,
}

impl Screen {
    /// No terminal: without colours, so many columns wide.
    pub fn plain(columns: usize) -> Self {
        Self { colour: false, terminal: false, width: Width::Fixed(columns) }
    }

    /// A terminal of so many columns.
    pub fn terminal(columns: usize) -> Self {
        Self { colour: true, terminal: true, width: Width::Fixed(columns) }
    }

    /// Standard output.
    pub(super) fn of_stdout(out: &io::Stdout) -> Self {
        Self::of(out)
    }

    /// Standard error.
    pub(crate) fn of_stderr() -> Self {
        Self::of(&io::stderr())
    }

    fn of(stream: &(impl RawStream + AsFd)) -> Self {
        let terminal = stream.is_terminal();
        let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        let size = terminal_size::terminal_size_of(stream.as_fd()).filter(|_| terminal);
        let width = match (asked_columns(), size) {
            (Some(columns), _) => Width::Fixed(columns),
            (None, Some(_)) => Width::Terminal,
            (None, None) => Width::Fixed(COLUMNS),
        };
        Self { colour: shows_colour(stream), terminal: terminal && !dumb, width }
    }

    /// Columns, now.
    pub fn columns(&self) -> usize {
        match self.width {
            Width::Fixed(columns) => columns,
            Width::Terminal => terminal_size::terminal_size()
                .map_or(COLUMNS, |(width, _)| usize::from(width.0))
                .max(LEAST_COLUMNS),
        }
    }
}

/// A narrower terminal is not written for.
const LEAST_COLUMNS: usize = 30;

/// `COLUMNS`, where it is a width: shells do not export it, so that whoever sets it means it.
fn asked_columns() -> Option<usize> {
    let asked: usize = std::env::var("COLUMNS").ok()?.trim().parse().ok()?;
    (LEAST_COLUMNS..=10_000).contains(&asked).then_some(asked)
}

/// Whether `stream` is to have colours: what `--color` asks for, else `NO_COLOR`, `CLICOLOR_FORCE`, `CLICOLOR`, `TERM` and whether it
/// is a terminal decide.
pub(crate) fn shows_colour(stream: &impl RawStream) -> bool {
    AutoStream::choice(stream) != ColorChoice::Never
}
