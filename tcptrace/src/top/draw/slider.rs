//! The lines at the bottom: the filter, the slider of a recording, and what was done or can be done.

use ratatui::layout::Rect;
use ratatui::style::Style;

use crate::event::Timestamp;
use crate::output::Meaning;

use super::super::desk::{Desk, Overlay, View};
use super::super::ink::{fitted, ink};
use super::super::scene::{Cx, Mode};
use super::{Page, split};
use crate::output::zone::second;

impl Page<'_, '_> {
    pub(super) fn footer(&mut self, area: Rect, cx: &Cx<'_>, desk: &Desk) {
        let mut rest = area;
        if desk.is_typing() || !desk.filter.is_everything() {
            let (line, below) = split(rest, 1);
            rest = below;
            self.filter(line, desk);
        }
        if desk.recording {
            let (line, below) = split(rest, 1);
            rest = below;
            self.slider(line, cx);
        }
        let (line, _) = split(rest, 1);
        let (text, style) = match &desk.message {
            Some(message) => (message.clone(), self.palette.of(Some(Meaning::Label))),
            None => (
                hints(desk.overlay, desk.view, desk.recording).to_owned(),
                self.palette.of(Some(Meaning::Faint)),
            ),
        };
        let text = fitted(&text, usize::from(line.width), false, self.palette.ellipsis());
        self.line(line, vec![ink(&text, style)]);
    }

    fn filter(&mut self, area: Rect, desk: &Desk) {
        match &desk.typing {
            Some(typed) => {
                let text = format!("/{typed}");
                let spans = vec![
                    ink(&text, self.palette.of(Some(Meaning::Label))),
                    ink(if self.palette.ascii { "_" } else { "▏" }, Style::new()),
                    ink("  Enter applies it, Esc leaves it as it was", self.palette.of(Some(Meaning::Faint))),
                ];
                self.line(area, spans);
            }
            None => {
                let text = format!("only {}  (x removes it)", desk.filter.text());
                self.line(area, vec![ink(&text, self.palette.of(Some(Meaning::Warning)))]);
            }
        }
    }

    fn slider(&mut self, area: Rect, cx: &Cx<'_>) {
        let Mode::Recording { span: (from, to), marks, .. } = &cx.scene.header.mode else { return };
        let now = cx.scene.now.clamp(*from, (*to).max(*from));
        let seconds = |time: Timestamp| time.since(*from).as_secs_f64();
        let zone = &cx.clock.zone;
        let left = format!("{} ", second(zone, *from));
        let right = format!(" {}  {:.1} of {:.1} s", second(zone, *to), seconds(now), seconds(*to));
        let room = usize::from(area.width).saturating_sub(left.len() + right.len());
        let (line, knob) = if self.palette.ascii { ("-", "O") } else { ("─", "●") };
        let column = |time: Timestamp| {
            let share = if seconds(*to) > 0.0 { (seconds(time) / seconds(*to)).clamp(0.0, 1.0) } else { 1.0 };
            #[expect(
                clippy::cast_precision_loss,
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "a column of the screen"
            )]
            let column = (room.saturating_sub(1) as f64 * share).round() as usize;
            column
        };
        let at = column(now);
        // Where findings were opened.
        let marks: Vec<usize> = marks.iter().map(|time| column(*time)).collect();
        let faint = self.palette.of(Some(Meaning::Faint));
        let mut spans = vec![ink(&left, faint)];
        for column in 0..room {
            let (sign, style) = match column {
                _ if column == at => (knob, self.palette.of(Some(Meaning::Label))),
                _ if marks.contains(&column) => ("!", self.palette.of(Some(Meaning::Warning))),
                _ => (line, faint),
            };
            spans.push(ink(sign, style));
        }
        spans.push(ink(&right, faint));
        self.line(area, spans);
    }
}

/// What can be done here, in the 80 columns that every terminal has.
pub(super) fn hints(overlay: Overlay, view: View, recording: bool) -> &'static str {
    match (overlay, view, recording) {
        (Overlay::Nothing, View::Findings, false) => {
            "Enter details  y copy command  e explain  / filter  f freeze  ? keys  q end"
        }
        (Overlay::Nothing, View::Findings, true) => {
            "Enter details  y copy  e explain  left right wind  t its moment  ? keys  q end"
        }
        (Overlay::Nothing, _, false) => {
            "Enter details  / filter  s sort  r reverse  f freeze  c coverage  ? keys  q end"
        }
        (Overlay::Nothing, _, true) => {
            "Enter details  / filter  s sort  left right wind  space play  ? keys  q end"
        }
        (Overlay::Detail(_), View::Findings, _) => {
            "Esc back  up down scroll  y copy command  e explain  ? keys  q end"
        }
        _ => "Esc back  up down scroll  ? keys  q end",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_keys_fit_into_eighty_columns() {
        for view in View::ALL {
            for overlay in [Overlay::Nothing, Overlay::Help, Overlay::Page("bind-conflict")] {
                for recording in [false, true] {
                    let hints = hints(overlay, view, recording);
                    assert!(hints.len() <= 80 && hints.ends_with("? keys  q end"), "{hints}");
                }
            }
        }
    }
}
