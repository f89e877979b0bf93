//! The pages of the findings, and the README's list, say what the code declares.
//!
//! `TCPTRACE_BLESS=1 cargo test -p tcptrace finding::cause` writes them.

mod tiers;

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use super::CauseRule;
use crate::finding::Engine;

const BEGIN: &str =
    "<!-- evidence: written from the code by TCPTRACE_BLESS=1 cargo test -p tcptrace finding::cause -->";
const END: &str = "<!-- end of evidence -->";

fn workspace(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

/// The tables of a page.
fn tables(causes: &[CauseRule]) -> String {
    let mut text = String::from(
        "## What each cause rests on\n\n| cause | confidence | claimed when this was observed |\n|---|---|---|\n",
    );
    for cause in causes {
        let levels = [("certain", cause.certain), ("likely", cause.likely), ("possible", cause.possible)];
        for (confidence, observed) in levels {
            if let Some(observed) = observed {
                let _ = writeln!(text, "| `{}` | {confidence} | {observed} |", cause.code);
            }
        }
    }
    text.push_str("\n| cause | told apart from | by |\n|---|---|---|\n");
    for cause in causes {
        for apart in cause.told_apart {
            let _ = writeln!(text, "| `{}` | {} | {} |", cause.code, apart.from, apart.by);
        }
    }
    text
}

/// `page` with the generated part between its marks, which are added at the end if it has none.
fn with_tables(page: &str, tables: &str) -> String {
    let generated = format!("{BEGIN}\n\n{tables}\n{END}\n");
    match (page.find(BEGIN), page.find(END)) {
        (Some(begin), Some(end)) => {
            let rest = page[end + END.len()..].trim_start_matches('\n');
            format!("{}{generated}{rest}", &page[..begin])
        }
        _ => format!("{}\n\n{generated}", page.trim_end()),
    }
}

/// Compares a file with what it should be, or writes it.
fn compare(path: &Path, wanted: &str) {
    if std::env::var_os("TCPTRACE_BLESS").is_some() {
        fs::write(path, wanted).unwrap();
    }
    let is = fs::read_to_string(path).unwrap();
    assert!(
        is == wanted,
        "{} does not say what the code declares: TCPTRACE_BLESS=1 cargo test -p tcptrace finding::cause",
        path.display()
    );
}

#[test]
fn every_page_says_what_its_causes_rest_on() {
    for (code, causes) in Engine::default().causes() {
        let path = workspace(&format!("docs/findings/{code}.md"));
        let page = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let generated = format!("{}\n{}", tables(causes), tiers::section(code));
        compare(&path, &with_tables(&page, &generated));
    }
}

#[test]
fn every_page_belongs_to_a_finding() {
    let engine = Engine::default();
    for entry in fs::read_dir(workspace("docs/findings")).unwrap() {
        let path = entry.unwrap().path();
        let code = path.file_stem().unwrap().to_str().unwrap();
        assert!(engine.codes().any(|known| known == code), "{} is about no finding", path.display());
    }
}

/// The last column of the README's table, which people read first.
#[test]
fn the_readme_lists_every_finding_with_its_causes() {
    let path = workspace("README.md");
    let mut readme = fs::read_to_string(&path).unwrap();
    for (code, causes) in Engine::default().causes() {
        let start = format!("| [{code}](docs/findings/{code}.md) |");
        let line = readme.lines().find(|line| line.starts_with(&start)).map(str::to_owned);
        let line = line.unwrap_or_else(|| panic!("the README does not list {code}"));
        let codes: Vec<_> = causes.iter().map(|cause| cause.code).collect();
        let (front, _) = line.trim_end_matches(" |").rsplit_once(" | ").unwrap();
        readme = readme.replace(&line, &format!("{front} | {} |", codes.join(", ")));
    }
    compare(&path, &readme);
}

#[test]
fn every_cause_is_claimed_somehow_and_told_apart_from_something() {
    for (code, causes) in Engine::default().causes() {
        assert!(!causes.is_empty(), "{code} declares no cause");
        for (at, cause) in causes.iter().enumerate() {
            let name = format!("{code} {}", cause.code);
            assert!(
                causes.iter().skip(at + 1).all(|other| other.code != cause.code),
                "{name} is declared twice"
            );
            let levels = [cause.certain, cause.likely, cause.possible];
            assert!(levels.iter().any(Option::is_some), "{name} has no confidence");
            assert!(!cause.told_apart.is_empty(), "{name} is told apart from nothing");
            let texts =
                levels.into_iter().flatten().chain(cause.told_apart.iter().flat_map(|a| [a.from, a.by]));
            for text in texts.chain([cause.means]) {
                assert!(!text.trim().is_empty() && !text.contains(['|', '\n']), "{name}: {text:?}");
            }
        }
    }
}
