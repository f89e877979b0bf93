//! The pages that explain the findings, as `tcptrace explain CODE` prints them: the very files of `docs/findings/`.

/// A page, by the finding's code.
macro_rules! page {
    ($code:literal) => {
        ($code, include_str!(concat!("../../../docs/findings/", $code, ".md")))
    };
}

/// One for each finding; a test compares the list with the engine's.
const PAGES: &[(&str, &str)] = &[
    page!("accept-failed"),
    page!("accept-queue-overflow"),
    page!("accept-stall"),
    page!("backlog-truncated"),
    page!("bind-conflict"),
    page!("bind-refused"),
    page!("connect-refused"),
    page!("connection-exists"),
    page!("events-lost"),
    page!("half-open-capture"),
    page!("handshake-dropped"),
    page!("listener-closed"),
    page!("no-listener"),
    page!("port-exhaustion"),
    page!("port-grab-risk"),
    page!("port-leak"),
    page!("reuseport-imbalance"),
    page!("slow-accept"),
    page!("syn-queue-full"),
    page!("syn-unanswered"),
];

/// The page of the finding `code`, without what only its source needs; `None` if there is no such finding.
pub fn page(code: &str) -> Option<String> {
    let (_, page) = PAGES.iter().find(|(known, _)| *known == code)?;
    let lines = page.lines().filter(|line| !line.starts_with("<!--"));
    // A comment leaves its empty line behind.
    let mut text: Vec<&str> = lines.collect();
    text.dedup_by(|line, before| line.is_empty() && before.is_empty());
    Some(text.join("\n").trim_end().to_owned() + "\n")
}

/// The codes that have a page.
pub fn explained() -> impl Iterator<Item = &'static str> {
    PAGES.iter().map(|(code, _)| *code)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::finding::Engine;

    #[test]
    fn every_finding_has_its_page() {
        let engine = Engine::default();
        assert_eq!(explained().collect::<BTreeSet<_>>(), engine.codes().collect::<BTreeSet<_>>());
    }

    #[test]
    fn a_page_begins_with_its_code_and_shows_no_comment() {
        for code in explained() {
            let page = page(code).unwrap();
            assert!(page.starts_with(&format!("# {code}\n")), "{code}");
            assert!(!page.contains("<!--") && !page.contains("\n\n\n"), "{code}");
        }
        assert_eq!(page("no-such-finding"), None);
    }
}
