//! The answer of `tcptrace why` for people: what was looked at, and one verdict; lines to paste.

use super::account::Row;
use super::escape::escape;
use super::meaning::Meaning;
use super::table::wrap;
use crate::why::{Answer, Facts, Found};

/// The answer for people. `decisive` is the one of `answers` that counts.
pub(crate) fn lines(
    facts: &Facts,
    answers: &[Answer],
    decisive: Option<&Answer>,
    width: Option<usize>,
) -> Vec<Row> {
    let mut lines = Vec::new();
    let marked = |lines: &mut Vec<Row>, meaning: Option<Meaning>, indent: &str, text: &str| {
        lines.extend(wrap(&escape(text), indent, width).into_iter().map(|line| Row::of(meaning, line)));
    };
    let paragraph = |lines: &mut Vec<Row>, indent: &str, text: &str| marked(lines, None, indent, text);
    let watched = facts.seen.as_ref().filter(|seen| seen.untraced.is_none());
    let watched =
        watched.map_or_else(String::new, |seen| format!(", watched for {:.1} s", seen.span.as_secs_f64()));
    paragraph(&mut lines, "", &format!("why {} (from {}{watched})", facts.target, facts.client));
    for answer in answers {
        if answers.len() > 1 {
            lines.push(Row::of(Some(Meaning::Label), format!("  {}", answer.address)));
        }
        for step in &answer.steps {
            let (sign, meaning) = match &step.found {
                Found::Fine { .. } => ("ok", None),
                Found::Problem(_) => ("!!", Some(Meaning::Warning)),
                Found::Answers(_) => ("**", Some(Meaning::Info)),
                Found::Unknown { .. } => (" ?", Some(Meaning::Faint)),
            };
            marked(&mut lines, meaning, "  ", &format!("{sign} {:<12} {}", step.name, step.found.text()));
        }
    }
    match decisive {
        Some(answer) => {
            let verdict = &answer.verdict;
            let (health, meaning) = match answer.healthy {
                Some(true) => ("HEALTHY", Meaning::Good),
                Some(false) => ("NOT HEALTHY", Meaning::Critical),
                None => ("NOT KNOWN", Meaning::Warning),
            };
            let at = if answers.len() > 1 { format!(" ({})", answer.address) } else { String::new() };
            let text =
                format!("{health}: {}, {}{at}: {}", verdict.verdict, verdict.confidence.name(), verdict.text);
            marked(&mut lines, Some(meaning), "", &text);
            for (index, remedy) in verdict.remedy.iter().enumerate() {
                let label = if index == 0 { "do   " } else { "     " };
                paragraph(&mut lines, "  ", &format!("{label} {}", remedy.text));
                // Not broken, so that it can be copied.
                lines.extend(remedy.command.iter().map(|command| {
                    let command = format!("          {}", escape(command));
                    Row::of(Some(Meaning::Command), command)
                }));
            }
        }
        None => {
            let why = facts.addresses.as_ref().err().map_or("it stands for no address", String::as_str);
            // The client's processes may have other files to resolve names by.
            let (confidence, but) = if facts.client.own {
                ("certain", "")
            } else {
                ("likely", "; it was looked up with this shell's /etc/resolv.conf and /etc/hosts")
            };
            let verdict = Some(Meaning::Critical);
            marked(&mut lines, verdict, "", &format!("NOT HEALTHY: no-address, {confidence}: {why}{but}"));
            paragraph(&mut lines, "  ", "do    mend the name (DNS, /etc/hosts), or ask for the address");
        }
    }
    for gap in &facts.gaps {
        paragraph(&mut lines, "  ", &format!("missing: {}: {}", gap.what, gap.why));
    }
    lines
}
