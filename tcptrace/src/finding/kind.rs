//! What there is to say of a kind of finding, apart from its cases. All lists of findings are made from it: the README's, the pages'
//! tables, docs/json.md, the JSON Schema.

use super::case::Diagnosis;
use super::{CauseRule, KINDS, Key};

/// A kind of finding.
#[derive(Clone, Copy, Debug)]
pub struct FindingKind {
    /// Its code in output.
    pub code: &'static str,
    /// When it opens, in one line: its row in the README.
    pub opens_when: &'static str,
    /// Its page, as `docs/findings` has it.
    pub page: &'static str,
    /// The observations that it rests on, as the plan of probes calls them.
    pub observations: &'static [&'static str],
    /// What holds where the tracepoint tier sees less: the page says it.
    pub tracepoint_tier: &'static str,
    /// The causes that it names, each with what it rests on.
    pub causes: &'static [CauseRule],
    /// The keys that its evidence has, `why` apart.
    pub evidence: &'static [Key],
}

impl FindingKind {
    /// That of a diagnosis.
    pub(super) const fn of<D: Diagnosis>() -> Self {
        D::KIND
    }
}

/// The page of the finding `code` as the terminal shows it, without what only its source needs; `None` if there is no such finding.
pub fn page(code: &str) -> Option<String> {
    let kind = KINDS.iter().find(|kind| kind.code == code)?;
    let lines = kind.page.lines().filter(|line| !line.starts_with("<!--"));
    // A comment leaves its empty line behind.
    let mut text: Vec<&str> = lines.collect();
    text.dedup_by(|line, before| line.is_empty() && before.is_empty());
    Some(text.join("\n").trim_end().to_owned() + "\n")
}

/// The codes that have a page.
pub fn explained() -> impl Iterator<Item = &'static str> {
    KINDS.iter().map(|kind| kind.code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_begins_with_its_code_and_shows_no_comment() {
        for code in explained() {
            let page = page(code).unwrap();
            assert!(page.starts_with(&format!("# {code}\n")), "{code}");
            assert!(!page.contains("<!--") && !page.contains("\n\n\n"), "{code}");
        }
        assert_eq!(page("no-such-finding"), None);
    }

    #[test]
    fn no_code_stands_for_two() {
        let codes: std::collections::BTreeSet<&str> = explained().collect();
        assert_eq!(codes.len(), KINDS.len());
    }
}
