//! Text for people, line by line: whatever a name in a recording holds, it is made harmless here, by whoever wrote the line.

use std::fmt::{self, Write as _};

use crate::output::escape;

use super::tables::is_number;

/// Lines of text. There is no other way in than a whole line, and nothing in it can move a terminal or begin another line.
#[derive(Default)]
pub(super) struct Sheet(String);

impl Sheet {
    /// Adds a line.
    pub(super) fn line(&mut self, line: fmt::Arguments<'_>) {
        let line = line.to_string();
        self.0.push_str(&escape(&line));
        self.0.push('\n');
    }

    /// Adds an empty line.
    pub(super) fn gap(&mut self) {
        self.0.push('\n');
    }

    /// Everything.
    pub(super) fn into_text(self) -> String {
        self.0
    }

    /// Adds columns as wide as what is in them; numbers to the right.
    pub(super) fn table(&mut self, head: &[&str], rows: &[Vec<String>]) {
        // As wide as they are shown.
        let rows: Vec<Vec<String>> =
            rows.iter().map(|row| row.iter().map(|cell| escape(cell).into_owned()).collect()).collect();
        let width = |column: usize| {
            let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
            cells.chain(head.get(column).map(|name| name.chars().count())).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..head.len()).map(width).collect();
        let numeric =
            |column: usize| rows.iter().filter_map(|row| row.get(column)).all(|cell| is_number(cell));
        let numeric: Vec<bool> = (0..head.len()).map(numeric).collect();
        let mut line = |cells: &[String]| {
            let mut text = String::from(" ");
            for ((cell, width), right) in cells.iter().zip(&widths).zip(&numeric) {
                if *right {
                    let _ = write!(text, " {cell:>width$}");
                } else {
                    let _ = write!(text, " {cell:<width$}");
                }
            }
            self.line(format_args!("{}", text.trim_end()));
        };
        line(&head.iter().map(|&name| name.to_owned()).collect::<Vec<_>>());
        rows.iter().for_each(|row| line(row));
    }
}
