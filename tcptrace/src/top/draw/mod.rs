//! A frame of a scene: header, the rows of a view with what the cursor is on below them, the slider of a recording, the keys.

mod header;
mod overlay;
mod slider;
mod table;

use jiff::tz::TimeZone;
use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::{Line as TextLine, Span};

use crate::correlate::Correlator;
use crate::output::Row as Line;

use super::desk::{Desk, Geometry, Overlay, View};
use super::ink::{fitted, ink, sweep};
use super::scene::{Cx, Scene};
use super::theme::Palette;

/// What a screen must have at least.
const LEAST: (u16, u16) = (40, 10);

/// From this height on a view shows below its rows what there is to say of the one under the cursor.
const PREVIEW: u16 = 14;

/// Draws everything; says where things are now. `world` has names that the scene leaves to it.
pub fn draw(
    frame: &mut Frame<'_>,
    scene: &Scene,
    desk: &Desk,
    world: &Correlator,
    zone: &TimeZone,
) -> Geometry {
    let area = frame.area();
    let clock = scene.clock(zone);
    let cx = Cx { scene, world, clock: &clock };
    let mut page = Page { frame, palette: desk.palette, geometry: Geometry::default() };
    if area.width < LEAST.0 || area.height < LEAST.1 {
        page.line(
            Rect { height: area.height.min(1), ..area },
            vec![ink(&format!("{}x{} is too small", area.width, area.height), Style::new())],
        );
    } else {
        page.everything(area, &cx, desk);
    }
    let geometry = page.geometry;
    sweep(frame.buffer_mut());
    geometry
}

/// A frame being drawn.
struct Page<'a, 'b> {
    frame: &'a mut Frame<'b>,
    palette: Palette,
    geometry: Geometry,
}

/// So many lines from the top of `area`, and the rest.
fn split(area: Rect, lines: u16) -> (Rect, Rect) {
    let lines = lines.min(area.height);
    (Rect { height: lines, ..area }, Rect { y: area.y + lines, height: area.height - lines, ..area })
}

impl Page<'_, '_> {
    fn everything(&mut self, area: Rect, cx: &Cx<'_>, desk: &Desk) {
        let (header, rest) = split(area, 3);
        self.header(header, cx, desk);
        let footer_lines =
            1 + u16::from(desk.recording) + u16::from(!desk.filter.is_everything() || desk.is_typing());
        let (body, footer) = split(rest, rest.height.saturating_sub(footer_lines));
        match desk.overlay {
            Overlay::Nothing => self.view(body, cx, desk),
            _ => self.overlay(body, cx, desk),
        }
        self.footer(footer, cx, desk);
    }

    fn view(&mut self, body: Rect, cx: &Cx<'_>, desk: &Desk) {
        let table = cx.scene.table(desk.view);
        let rows = desk.rows(cx);
        let preview = if body.height < PREVIEW || rows.is_empty() {
            0
        } else if desk.view == View::Findings {
            // As many rows as there are, or two fifths: what to do about one is worth more than many of them.
            let count = u16::try_from(rows.len()).unwrap_or(u16::MAX).saturating_add(2);
            body.height - count.clamp(5, (body.height * 2 / 5).max(5))
        } else {
            (body.height / 3).clamp(6, 12)
        };
        let (above, below) = split(body, body.height - preview);
        self.table(above, table, &rows, cx, desk);
        let Some(row) = rows.get(desk.cursor(table, &rows)).filter(|_| preview > 0) else { return };
        let (rule, text) = split(below, 1);
        self.rule(rule, &table.title(*row, cx));
        let lines = table.detail(*row, cx, usize::from(text.width));
        self.text(text, &lines, 0);
    }

    /// A line across, with a heading in it.
    fn rule(&mut self, area: Rect, heading: &str) {
        let rule = self.palette.rule();
        let style = self.palette.of(Some(crate::output::Meaning::Faint));
        let bold = self.palette.of(Some(crate::output::Meaning::Label));
        let heading =
            crate::output::fit(&crate::output::escape(heading), usize::from(area.width).saturating_sub(6))
                .into_owned();
        let left = usize::from(area.width).saturating_sub(crate::output::cells(&heading) + 4);
        self.line(
            area,
            vec![
                ink(&rule.repeat(2), style),
                ink(" ", style),
                ink(&heading, bold),
                ink(" ", style),
                ink(&rule.repeat(left), style),
            ],
        );
    }

    /// Lines of a detail, from the `scroll`th on.
    fn text(&mut self, area: Rect, lines: &[Line], scroll: usize) {
        let shown = lines.iter().skip(scroll);
        for (at, line) in (area.y..area.bottom()).zip(shown) {
            let lead = self.palette.of(Some(crate::output::Meaning::Label));
            let style = self.palette.of(line.meaning);
            self.line(Rect { y: at, height: 1, ..area }, vec![ink(&line.lead, lead), ink(&line.text, style)]);
        }
        self.geometry.text = (usize::from(area.height), lines.len());
    }

    fn line(&mut self, area: Rect, spans: Vec<Span<'static>>) {
        if area.height > 0 && area.width > 0 {
            self.frame.buffer_mut().set_line(area.x, area.y, &TextLine::from(spans), area.width);
        }
    }

    /// Text at the left and at the right of a line; that at the left is cut if both are too long.
    fn both_sides(&mut self, area: Rect, left: &str, right: &str, style: Style) {
        let right = crate::output::escape(right).into_owned();
        let width = usize::from(area.width);
        let room = width.saturating_sub(crate::output::cells(&right) + 1);
        let left = fitted(left, room, false, self.palette.ellipsis());
        self.line(area, vec![ink(&left, style), ink(" ", style), ink(&right, style)]);
    }
}
