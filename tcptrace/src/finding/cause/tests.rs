//! The pages of the findings, and the README's list, say what the code declares.
//!
//! `TCPTRACE_BLESS=1 cargo test -p tcptrace finding::cause` writes them.

mod tiers;

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use super::CauseRule;
use crate::finding::KINDS;

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
    for kind in KINDS {
        let path = workspace(&format!("docs/findings/{}.md", kind.code));
        let page = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let generated = format!("{}\n{}", tables(kind.causes), tiers::section(kind));
        compare(&path, &with_tables(&page, &generated));
    }
}

#[test]
fn every_page_belongs_to_a_finding() {
    for entry in fs::read_dir(workspace("docs/findings")).unwrap() {
        let path = entry.unwrap().path();
        let code = path.file_stem().unwrap().to_str().unwrap();
        assert!(KINDS.iter().any(|kind| kind.code == code), "{} is about no finding", path.display());
    }
}

/// The README's table, which people read first.
#[test]
fn the_readme_lists_every_finding_with_its_causes() {
    const HEAD: &str = "| finding | opens when | causes it tells apart |\n|---|---|---|\n";
    let path = workspace("README.md");
    let readme = fs::read_to_string(&path).unwrap();
    let (before, rest) = readme.split_once(HEAD).expect("the README has the table of findings");
    let after: String = rest.split_inclusive('\n').skip_while(|line| line.starts_with('|')).collect();
    let mut rows: Vec<String> = Vec::new();
    for kind in KINDS {
        let (code, opens_when) = (kind.code, kind.opens_when);
        let causes: Vec<_> = kind.causes.iter().map(|cause| cause.code).collect();
        rows.push(format!("| [{code}](docs/findings/{code}.md) | {opens_when} | {} |\n", causes.join(", ")));
    }
    rows.sort();
    compare(&path, &format!("{before}{HEAD}{}{after}", rows.concat()));
}

#[test]
fn every_cause_is_claimed_somehow_and_told_apart_from_something() {
    for (code, causes) in KINDS.iter().map(|kind| (kind.code, kind.causes)) {
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
