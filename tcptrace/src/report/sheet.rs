//! Text for people, line by line: whatever a name in a recording holds, it is made harmless here, by whoever wrote the line.

use std::fmt::{self, Write as _};

use crate::output::{Meaning, Row, escape};

use super::tables::is_number;

/// Lines of text, each with what it means. There is no other way in than a whole line, and nothing in it can move a terminal or begin
/// another line.
#[derive(Default)]
pub struct Sheet(Vec<Row>);

impl Sheet {
    /// Adds a line.
    pub(super) fn line(&mut self, line: fmt::Arguments<'_>) {
        self.row(&Row::of(None, line.to_string()));
    }

    /// Adds a line that means this.
    pub(crate) fn marked(&mut self, meaning: Meaning, line: fmt::Arguments<'_>) {
        self.row(&Row::of(Some(meaning), line.to_string()));
    }

    /// Adds a line with a lead.
    pub(super) fn row(&mut self, row: &Row) {
        let harmless = |text: &str| escape(text).into_owned();
        self.0.push(Row { lead: harmless(&row.lead), text: harmless(&row.text), meaning: row.meaning });
    }

    /// Adds an empty line.
    pub(super) fn gap(&mut self) {
        self.line(format_args!(""));
    }

    /// Everything.
    pub(crate) fn rows(&self) -> &[Row] {
        &self.0
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
        let line = |cells: &[String]| {
            let mut text = String::from(" ");
            for ((cell, width), right) in cells.iter().zip(&widths).zip(&numeric) {
                if *right {
                    let _ = write!(text, " {cell:>width$}");
                } else {
                    let _ = write!(text, " {cell:<width$}");
                }
            }
            text.trim_end().to_owned()
        };
        let head = line(&head.iter().map(|&name| name.to_owned()).collect::<Vec<_>>());
        self.marked(Meaning::Label, format_args!("{head}"));
        rows.iter().for_each(|row| self.line(format_args!("{}", line(row))));
    }
}

/// Without colours; every line has its end.
impl fmt::Display for Sheet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|row| writeln!(f, "{}{}", row.lead, row.text))
    }
}
