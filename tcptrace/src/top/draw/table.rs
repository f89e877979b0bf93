//! Rows and columns: as many columns as there is room for, the most important ones last to go.

use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::Span;

use crate::output::{Meaning, wrap};

use super::super::desk::Desk;
use super::super::ink::{fitted, ink};
use super::super::scene::{Cell, Cx, Layout, Mode, Table};
use super::super::theme::Palette;
use super::{Page, split};

/// Cells between two columns.
const GAP: u16 = 1;

/// Cells for the sign at the cursor's row.
const POINTER: u16 = 2;

/// Which columns are shown, and how wide.
pub(crate) fn columns(layout: &[Layout], width: u16) -> Vec<(usize, u16)> {
    let mut kept: Vec<(usize, Layout)> = layout.iter().copied().enumerate().collect();
    let needed = |kept: &[(usize, Layout)]| -> u16 {
        kept.iter().map(|(_, column)| column.width.saturating_add(GAP)).sum::<u16>().saturating_sub(GAP)
    };
    while needed(&kept) > width {
        let last = kept.iter().map(|(_, column)| column.rank).max().unwrap_or(0);
        if last == 0 {
            break;
        }
        let Some(at) = kept.iter().rposition(|(_, column)| column.rank == last) else { break };
        kept.remove(at);
    }
    let mut left = width.saturating_sub(needed(&kept));
    let mut shares: u16 = kept.iter().map(|(_, column)| column.grow).sum();
    kept.into_iter()
        .map(|(index, column)| {
            let more = left.saturating_mul(column.grow).checked_div(shares).unwrap_or(0);
            left -= more;
            shares -= column.grow;
            (index, column.width + more)
        })
        .collect()
}

impl Page<'_, '_> {
    pub(super) fn table(&mut self, area: Rect, table: &dyn Table, rows: &[usize], cx: &Cx<'_>, desk: &Desk) {
        let (heading, body) = split(area, 1);
        let layout = table.layout();
        let shown = columns(&layout, area.width.saturating_sub(POINTER));
        self.headings(heading, &layout, &shown, desk);
        self.geometry.rows = (body.y, body.height);
        if rows.is_empty() {
            self.nothing(body, table, cx);
            return;
        }
        let cursor = desk.cursor(table, rows);
        let height = usize::from(body.height);
        let top = desk.top(cursor, rows.len(), height);
        for ((at, row), number) in (body.y..body.bottom()).zip(rows.iter().skip(top)).zip(top..) {
            let here = number == cursor;
            let base = if here { self.palette.cursor() } else { Style::new() };
            let pointer = if here { self.palette.pointer() } else { " " };
            let mut spans = vec![ink(&format!("{pointer} "), base)];
            for (index, width) in &shown {
                let cell = table.cell(*row, *index, cx);
                let right = layout.get(*index).is_some_and(|column| column.right);
                spans.push(self.cell(&cell, usize::from(*width), right, base));
                spans.push(ink(" ", base));
            }
            self.line(Rect { y: at, height: 1, ..body }, spans);
        }
        if rows.len() > height {
            // Where rows do not fit, it is said how many there are: beside the views, or at the right of the headings.
            let text = format!(" {}-{} of {} ", top + 1, (top + height).min(rows.len()), rows.len());
            let width = u16::try_from(text.len()).unwrap_or(0).min(heading.width);
            let (tabs, spans) = &self.geometry.tabs;
            let free = spans.last().is_none_or(|(_, end)| heading.right() - width > *end);
            let y = if free { *tabs } else { heading.y };
            let place = Rect { x: heading.right() - width, y, width, height: 1 };
            self.line(place, vec![ink(&text, self.palette.tab())]);
        }
    }

    fn headings(&mut self, area: Rect, layout: &[Layout], shown: &[(usize, u16)], desk: &Desk) {
        let style = self.palette.heading();
        let mut spans = vec![ink("  ", Style::new())];
        for (index, width) in shown {
            let Some(column) = layout.get(*index) else { continue };
            let mark = match desk.sort() {
                Some((sorted, back)) if sorted == *index => {
                    if back {
                        "^"
                    } else {
                        "v"
                    }
                }
                _ => "",
            };
            let title = format!("{}{mark}", column.title);
            let text = fitted(&title, usize::from(*width), column.right, self.palette.ellipsis());
            spans.push(ink(&text, style));
            spans.push(ink(" ", Style::new()));
        }
        self.line(area, spans);
    }

    fn nothing(&mut self, area: Rect, table: &dyn Table, cx: &Cx<'_>) {
        let text = match () {
            () if matches!(cx.scene.header.mode, Mode::Attaching) => "Attaching.".to_owned(),
            () if table.len() > 0 => {
                format!("The filter leaves out all {}: x removes it.", table.len())
            }
            () => table.nothing().to_owned(),
        };
        let style = self.palette.of(Some(Meaning::Faint));
        let lines = wrap(&text, "  ", "  ", usize::from(area.width));
        for (at, line) in (area.y.saturating_add(1)..area.bottom()).zip(lines) {
            self.line(Rect { y: at, height: 1, ..area }, vec![ink(&line, style)]);
        }
    }

    fn cell(&self, cell: &Cell, width: usize, right: bool, base: Style) -> Span<'static> {
        let palette = self.palette;
        match cell {
            Cell::Text(text, meaning) => {
                ink(&fitted(text, width, right, palette.ellipsis()), base.patch(palette.of(*meaning)))
            }
            Cell::Bar { part, whole, meaning } => {
                ink(&bar(*part, *whole, width, palette), base.patch(palette.of(*meaning)))
            }
            Cell::Spark { values, whole } => ink(&spark(values, *whole, width, palette), base),
        }
    }
}

/// A part of a whole; nothing if the whole is not known.
pub(crate) fn bar(part: u64, whole: u64, width: usize, palette: Palette) -> String {
    let (full, empty) = palette.bar();
    if whole == 0 {
        return " ".repeat(width);
    }
    let cells = u64::try_from(width).unwrap_or(u64::MAX);
    let exact = u128::from(part.min(whole)) * u128::from(cells) / u128::from(whole);
    let mut filled = u64::try_from(exact).unwrap_or(cells);
    // What is there is seen, and what is not full is not shown so.
    if part > 0 {
        filled = filled.max(1);
    }
    if part < whole {
        filled = filled.min(cells.saturating_sub(1));
    }
    let filled = usize::try_from(filled).unwrap_or(width);
    let mut text: String = std::iter::repeat_n(full, filled).collect();
    text.extend(std::iter::repeat_n(empty, width - filled));
    text
}

/// The last `width` values, the latest at the right.
pub(crate) fn spark(values: &[u32], whole: Option<u32>, width: usize, palette: Palette) -> String {
    let levels = palette.levels();
    let top = whole.or_else(|| values.iter().copied().max()).unwrap_or(0).max(1);
    let shown = values.iter().skip(values.len().saturating_sub(width));
    let mut text: String = std::iter::repeat_n(' ', width.saturating_sub(values.len())).collect();
    text.extend(shown.map(|value| {
        let level = match value {
            0 => 0,
            // What is there is more than nothing, and only what is full is full.
            value if *value >= top => 8,
            value => (u64::from(*value) * 8 / u64::from(top)).clamp(1, 7),
        };
        usize::try_from(level).ok().and_then(|level| levels.get(level)).copied().unwrap_or(' ')
    }));
    text
}

#[cfg(test)]
mod tests {
    use super::super::super::theme::Theme;
    use super::*;

    const ASCII: Palette = Palette { theme: Theme::Mono, ascii: true };

    #[test]
    fn a_bar_is_full_only_if_the_queue_is() {
        let bars: Vec<String> = [0, 1, 20, 21, 99].iter().map(|part| bar(*part, 21, 5, ASCII)).collect();
        assert_eq!(bars, [".....", "#....", "####.", "#####", "#####"]);
        assert_eq!(bar(5, 0, 5, ASCII), "     ");
        assert_eq!(bar(u64::MAX, u64::MAX - 1, 3, ASCII), "###");
    }

    #[test]
    fn a_course_ends_at_the_right() {
        assert_eq!(spark(&[0, 1, 10, 20, 21], Some(21), 7, ASCII), "  ._=%#");
        assert_eq!(spark(&[0, 1, 10, 20, 21], Some(21), 3, ASCII), "=%#");
        assert_eq!(spark(&[], None, 3, ASCII), "   ");
        assert_eq!(spark(&[5], None, 3, ASCII), "  #");
    }

    fn layout(width: u16, grow: u16, rank: u8) -> Layout {
        Layout { title: "x", width, grow, right: false, rank, is_sorted_by: true }
    }

    #[test]
    fn the_least_important_column_goes_first_and_the_rest_shares_the_room() {
        let all = [layout(10, 1, 0), layout(10, 0, 2), layout(10, 3, 1)];
        assert_eq!(columns(&all, 40), [(0, 12), (1, 10), (2, 16)]);
        assert_eq!(columns(&all, 32), [(0, 10), (1, 10), (2, 10)]);
        assert_eq!(columns(&all, 31), [(0, 12), (2, 18)]);
        assert_eq!(columns(&all, 12), [(0, 12)]);
        assert_eq!(columns(&all, 4), [(0, 10)]);
    }
}
