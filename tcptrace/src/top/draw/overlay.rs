//! What lies over a view: all about a row, a finding's page, what is observed, the keys.

use ratatui::layout::Rect;

use crate::output::{Meaning, Row as Line, escape, wrap};

use super::super::action::KEYS;
use super::super::desk::{Desk, Overlay};
use super::super::scene::{Cx, Header, Mode};
use super::{Page, split};

impl Page<'_, '_> {
    pub(super) fn overlay(&mut self, area: Rect, cx: &Cx<'_>, desk: &Desk) {
        let width = usize::from(area.width);
        let (title, lines) = match desk.overlay {
            Overlay::Nothing => return,
            Overlay::Detail(_) => {
                let table = cx.scene.table(desk.view);
                match desk.selected(cx) {
                    Some(row) => (table.title(row, cx), table.detail(row, cx, width)),
                    None => ("it is gone".to_owned(), vec![plain("It is no longer known. Esc leads back.")]),
                }
            }
            Overlay::Page(code) => (format!("tcptrace explain {code}"), explained(code, width)),
            Overlay::Coverage => ("what is observed".to_owned(), observed(&cx.scene.header, width)),
            Overlay::Help => ("keys".to_owned(), keys(desk.recording, width)),
        };
        let (rule, body) = split(area, 1);
        let scroll = desk.scroll.min(lines.len().saturating_sub(usize::from(body.height)));
        let below = lines.len().saturating_sub(scroll + usize::from(body.height));
        let more = if below > 0 { format!(" ({below} lines more below)") } else { String::new() };
        self.rule(rule, &format!("{title}{more}; Esc leads back"));
        self.text(body, &lines, scroll);
    }
}

fn plain(text: &str) -> Line {
    Line { lead: String::new(), text: text.to_owned(), meaning: None }
}

fn label(text: &str) -> Line {
    Line { lead: String::new(), text: text.to_owned(), meaning: Some(Meaning::Label) }
}

fn keys(recording: bool, width: usize) -> Vec<Line> {
    let mut lines = Vec::new();
    for (key, what, only_recordings) in KEYS {
        if *only_recordings && !recording {
            continue;
        }
        let lead = format!("  {key:16} ");
        for (number, text) in wrap(what, "", "", width.saturating_sub(19)).into_iter().enumerate() {
            let lead = if number == 0 { lead.clone() } else { " ".repeat(19) };
            lines.push(Line { lead, text, meaning: None });
        }
    }
    lines
}

fn explained(code: &str, width: usize) -> Vec<Line> {
    let page = crate::finding::page(code).unwrap_or_default();
    let mut lines = Vec::new();
    for line in page.lines() {
        // What stands in columns stays so; the rest is filled.
        let meaning = line.starts_with('#').then_some(Meaning::Label);
        let indent = line.len() - line.trim_start().len();
        let rest = " ".repeat(indent + if line.trim_start().starts_with("- ") { 2 } else { 0 });
        for text in wrap(&escape(line), "", &rest, width) {
            lines.push(Line { lead: String::new(), text, meaning });
        }
    }
    lines
}

fn observed(header: &Header, width: usize) -> Vec<Line> {
    let mut lines = Vec::new();
    let mut say = |label: &str, texts: Vec<String>| {
        lines.extend(crate::output::labelled(label, texts, width));
    };
    let (attached, all) = header.attached;
    let tier = header.tier.map_or_else(
        || "nothing is attached yet".to_owned(),
        |tier| format!("{tier}: {attached} of {all} observations see every single case"),
    );
    say("tier", vec![tier]);
    if !header.scope.is_empty() {
        say("only", vec![header.scope.join(" ")]);
    }
    if let Mode::Recording { shortage: Some(shortage), .. } = &header.mode {
        say("file", vec![format!("not complete: {shortage}")]);
    }
    let losses = if header.losses.is_empty() { vec!["nothing".to_owned()] } else { header.losses.clone() };
    say("lost", losses);
    if !header.forgotten.is_empty() {
        say("kept", vec![format!("not kept, because there was too much: {}", header.forgotten.join(", "))]);
    }
    if let Some(own) = &header.own {
        let bpf = match (own.bpf_run, own.bpf_runs) {
            (Some(run), Some(runs)) => {
                format!("{} ns for each run of a BPF program, {runs:.0} runs a second", run.as_nanos())
            }
            _ => "what the BPF programs take is not measured (--bpf-cost has the kernel do so)".to_owned(),
        };
        let memory = crate::output::bytes_in_words(own.memory);
        say("cost", vec![format!("{:.1} % of a CPU, {memory} of memory; {bpf}", own.cpu * 100.0)]);
    }
    say("warned", header.warnings.clone());
    for (heading, missing) in [("Not seen at all", true), ("Polled: short ones may be missed", false)] {
        let gaps: Vec<_> = header.gaps.iter().filter(|gap| gap.missing == missing).collect();
        if gaps.is_empty() {
            continue;
        }
        lines.push(plain(""));
        lines.push(label(heading));
        for gap in gaps {
            let reason = gap.reason.as_deref().unwrap_or("no reason is known");
            let lead = format!("  {:18} ", gap.name);
            let text = escape(reason).into_owned();
            lines.extend(wrap(&text, &lead, &" ".repeat(21), width).into_iter().map(|text| plain(&text)));
        }
    }
    lines
}
