//! The three lines at the top: where and when, how well it is observed and at what cost, and the names of the views.

use ratatui::layout::Rect;
use ratatui::style::Style;

use crate::output::zone;
use crate::output::{Meaning, bytes_in_words};

use super::super::desk::{Desk, View};
use super::super::format::{age, short_count, short_span};
use super::super::ink::ink;
use super::super::scene::{Cx, Header, Mode};
use super::{Page, split};

impl Page<'_, '_> {
    pub(super) fn header(&mut self, area: Rect, cx: &Cx<'_>, desk: &Desk) {
        let (first, rest) = split(area, 1);
        let (second, third) = split(rest, 1);
        let header = &cx.scene.header;
        let kernel =
            if header.kernel.is_empty() { String::new() } else { format!(", kernel {}", header.kernel) };
        let left = format!("tcptrace top  {}{kernel}", header.host);
        let state = state(cx, desk);
        let right = format!("{}  {state}", zone::second(&cx.clock.zone, cx.scene.now));
        self.both_sides(first, &left, &right, self.palette.of(Some(Meaning::Label)));
        self.observed(second, header);
        self.tabs(third, cx, desk);
    }

    fn observed(&mut self, area: Rect, header: &Header) {
        let mut spans = Vec::new();
        let plain = Style::new();
        let warning = self.palette.of(Some(Meaning::Warning));
        let faint = self.palette.of(Some(Meaning::Faint));
        match header.tier {
            None if matches!(header.mode, Mode::Recording { .. }) => {
                spans.push(ink("before its first event", faint));
            }
            None => spans.push(ink("attaching; rows appear in a moment", faint)),
            Some(tier) => {
                let (attached, all) = header.attached;
                spans.push(ink(&format!("tier {tier}, {attached} of {all}"), plain));
                let missing = header.gaps.iter().filter(|gap| gap.missing).count();
                let polled = header.gaps.len() - missing;
                if !header.gaps.is_empty() {
                    spans.push(ink(&format!(" ({polled} polled, {missing} not seen: c)"), faint));
                }
                spans.push(ink("  ", plain));
                if header.lost > 0 {
                    spans.push(ink(&format!("LOST {} events (c)", short_count(header.lost)), warning));
                } else {
                    spans.push(ink("lost none", plain));
                }
            }
        }
        if let Mode::Recording { shortage: Some(_), .. } = &header.mode {
            spans.push(ink("  RECORDING NOT COMPLETE (c)", warning));
        }
        if !header.forgotten.is_empty() {
            spans.push(ink("  not all is kept (c)", warning));
        }
        if !header.warnings.is_empty() {
            spans.push(ink(&format!("  {} warnings (c)", header.warnings.len()), warning));
        }
        if let Some(own) = &header.own {
            let used: usize = spans.iter().map(|span| crate::output::cells(&span.content)).sum();
            let room = usize::from(area.width).saturating_sub(used);
            let bpf = own.bpf_run.map(|run| format!(", BPF {} a run", nanoseconds(run))).unwrap_or_default();
            let (cpu, memory) = (own.cpu * 100.0, bytes_in_words(own.memory));
            let long = format!("  own cost {cpu:.1}% CPU, {memory}{bpf}");
            let short = format!("  own {cpu:.1}% CPU");
            let text = if long.len() <= room { long } else { short };
            spans.push(ink(&text, faint));
        }
        self.line(area, spans);
    }

    fn tabs(&mut self, area: Rect, cx: &Cx<'_>, desk: &Desk) {
        // Numbers of rows where there is room for them, then names, then single letters.
        let wide = |counts: &dyn Fn(View) -> bool| -> Vec<String> {
            let name = |(number, view): (usize, View)| {
                let count = cx.scene.table(view).len();
                let count = if counts(view) && count > 0 { format!(" {count}") } else { String::new() };
                format!(" {} {}{count} ", number + 1, view.name())
            };
            View::ALL.into_iter().enumerate().map(name).collect()
        };
        let width = |names: &[String]| names.iter().map(String::len).sum::<usize>();
        let room = usize::from(area.width);
        let mut names = wide(&|_| true);
        if width(&names) > room {
            names = wide(&|view| view == View::Findings || view == desk.view);
        }
        if width(&names) > room {
            names = wide(&|_| false);
        }
        if width(&names) > room {
            let short = |(number, view): (usize, View)| {
                let name = view.name();
                let name = if view == desk.view { name } else { name.get(..2).unwrap_or(name) };
                format!(" {}{name} ", number + 1)
            };
            names = View::ALL.into_iter().enumerate().map(short).collect();
        }
        let mut spans = Vec::new();
        let mut at = area.x;
        let mut places = Vec::new();
        for (name, view) in names.iter().zip(View::ALL) {
            let style = if view == desk.view { self.palette.tab() } else { Style::new() };
            spans.push(ink(name, style));
            let end = at.saturating_add(u16::try_from(name.len()).unwrap_or(u16::MAX));
            places.push((at, end));
            at = end;
        }
        self.line(area, spans);
        self.geometry.tabs = (area.y, places);
    }
}

/// `live 12 s`, `FROZEN`, `recording, 12 s of 20 s`.
fn state(cx: &Cx<'_>, desk: &Desk) -> String {
    let header = &cx.scene.header;
    let lasting = age(cx.scene.now.since(header.begun));
    let state = match &header.mode {
        Mode::Attaching => "attaching".to_owned(),
        Mode::Live => format!("live, {lasting}"),
        Mode::Over => format!("the trace has ended, {lasting}"),
        Mode::Recording { name, winding: true, .. } => format!("{name}: winding"),
        Mode::Recording { name, playing: true, .. } => format!("{name}: playing"),
        Mode::Recording { name, .. } => name.clone(),
    };
    if desk.frozen { format!("FROZEN (f goes on); {state}") } else { state }
}

fn nanoseconds(span: std::time::Duration) -> String {
    if span.as_nanos() < 1_000 { format!("{}ns", span.as_nanos()) } else { short_span(span) }
}
