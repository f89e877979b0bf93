//! Text in columns and paragraphs, fitted to the width of the terminal if there is one.

use super::escape::escape;
use super::wrap::cells as cells_of;

/// A column of a table.
#[derive(Debug, Clone, Copy)]
pub(super) struct Column {
    /// What stands above it.
    pub(super) title: &'static str,
    /// Numbers stand at its right edge.
    pub(super) right: bool,
}

/// Rows of cells, each with lines of its own below.
#[derive(Debug, Default)]
pub(super) struct Table {
    columns: Vec<Column>,
    rows: Vec<(Vec<String>, Vec<String>)>,
}

/// How far lines below a row stand in.
const INDENT: &str = "      ";

impl Table {
    pub(super) fn new(columns: Vec<Column>) -> Self {
        Self { columns, rows: Vec::new() }
    }

    /// Adds a row with one cell for each column, and paragraphs below it. Whatever is in them is made harmless.
    pub(super) fn row(&mut self, cells: Vec<String>, below: Vec<String>) {
        let safe = |texts: Vec<String>| texts.iter().map(|text| escape(text).into_owned()).collect();
        self.rows.push((safe(cells), safe(below)));
    }

    /// The lines. The last column takes what is left of `width`; without a width nothing is cut.
    pub(super) fn lines(&self, width: Option<usize>) -> Vec<String> {
        let widths: Vec<usize> = self
            .columns
            .iter()
            .enumerate()
            .map(|(index, column)| {
                let cells = self.rows.iter().filter_map(|(cells, _)| cells.get(index));
                cells.map(|cell| cells_of(cell)).chain([column.title.len()]).max().unwrap_or(0)
            })
            .collect();
        let titles: Vec<String> = self.columns.iter().map(|column| column.title.to_owned()).collect();
        let mut lines = vec![self.line(&titles, &widths, width)];
        for (cells, below) in &self.rows {
            lines.push(self.line(cells, &widths, width));
            lines.extend(below.iter().flat_map(|text| wrap(text, INDENT, width)));
        }
        lines
    }

    fn line(&self, cells: &[String], widths: &[usize], width: Option<usize>) -> String {
        let mut line = String::new();
        for (index, ((cell, column), wide)) in cells.iter().zip(&self.columns).zip(widths).enumerate() {
            if index > 0 {
                line.push(' ');
            }
            let padding = " ".repeat(wide.saturating_sub(cells_of(cell)));
            let parts = if column.right { [padding.as_str(), cell] } else { [cell, padding.as_str()] };
            line.extend(parts);
        }
        cut(line.trim_end(), width)
    }
}

/// At most `width` cells of `line`, with an ellipsis where something was cut.
pub(super) fn cut(line: &str, width: Option<usize>) -> String {
    let Some(width) = width.filter(|width| cells_of(line) > *width) else { return line.to_owned() };
    let mut short = String::new();
    for character in line.chars() {
        short.push(character);
        if cells_of(&short) >= width {
            short.pop();
            break;
        }
    }
    short.push('…');
    short
}

/// `text` in lines of at most `width` cells; all lines stand in by `indent`, those that continue by two more.
pub(super) fn wrap(text: &str, indent: &str, width: Option<usize>) -> Vec<String> {
    super::wrap::wrap(text, indent, &format!("{indent}  "), width.unwrap_or(usize::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let column = |title, right| Column { title, right };
        let mut table = Table::new(vec![column("N", true), column("NAME", false), column("WHAT", false)]);
        table.row(vec!["7".into(), "a".into(), "something long".into()], vec!["one two three".into()]);
        table.row(vec!["1234".into(), "evil\u{1b}[2J".into(), String::new()], vec![]);
        table
    }

    #[test]
    fn columns_are_as_wide_as_their_cells() {
        let expected = [
            "   N NAME        WHAT",
            "   7 a           something long",
            "      one two three",
            "1234 evil\\x1b[2J",
        ];
        assert_eq!(table().lines(None), expected);
    }

    #[test]
    fn no_line_is_wider_than_the_terminal() {
        for width in 40..90 {
            let long = "word ".repeat(40);
            let mut table = table();
            table.row(vec!["1".into(), "b".into(), long.clone()], vec![long]);
            for line in table.lines(Some(width)) {
                assert!(cells_of(&line) <= width, "{width}: {line:?}");
            }
        }
    }

    #[test]
    fn paragraphs_break_at_blanks_and_lose_nothing() {
        let text = "the quick brown fox jumps over the lazy dog and then some more of it";
        let lines = wrap(text, "    ", Some(40));
        assert!(lines.len() > 1);
        let joined: Vec<&str> = lines.iter().flat_map(|line| line.split_whitespace()).collect();
        assert_eq!(joined.join(" "), text);
    }
}
