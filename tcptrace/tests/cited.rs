//! Whatever a page or a comment of this repository cites, a reader of the repository can open.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};

fn root() -> Result<&'static Path> {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("the workspace")
}

/// Every file of the repository with one of these extensions, but what builds and checkouts leave there.
fn files(extensions: &[&str]) -> Result<Vec<PathBuf>> {
    let (mut found, mut left) = (Vec::new(), vec![root()?.to_owned()]);
    while let Some(directory) = left.pop() {
        for entry in fs::read_dir(&directory)? {
            let entry = entry?;
            let (path, name) = (entry.path(), entry.file_name());
            if entry.file_type()?.is_dir() {
                if name != "target" && name != ".git" {
                    left.push(path);
                }
            } else if extensions.iter().any(|wanted| path.extension().is_some_and(|found| found == *wanted)) {
                found.push(path);
            }
        }
    }
    ensure!(found.len() > 10, "{extensions:?}: {found:?}");
    found.sort();
    Ok(found)
}

/// Whether `cited` is a file or directory: beside the file that cites it, or in the repository, or in its pages.
fn exists(cited: &str, by: &Path) -> Result<bool> {
    let root = root()?;
    let beside = by.parent().context("a file is in a directory")?;
    Ok([beside, root, &root.join("docs"), &root.join("tcptrace/src"), &root.join("tcptrace")]
        .iter()
        .any(|place| place.join(cited).exists()))
}

/// Targets of links, `](target)`, within the repository.
fn links(page: &str) -> impl Iterator<Item = &str> {
    let targets = page.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    let local = |target: &&str| !target.contains("://") && !target.starts_with('#');
    targets.filter(local).filter_map(|target| target.split('#').next())
}

/// Names in backticks that begin like a path of this repository.
fn paths(page: &str) -> impl Iterator<Item = &str> {
    const ROOMS: [&str; 5] = ["tcptrace/", "tcptrace-common/", "tcptrace-ebpf/", "xtask/", "docs/"];
    let quoted = page.split('`').skip(1).step_by(2);
    let is_path = |word: &&str| {
        let plain = |c: char| c.is_ascii_alphanumeric() || "/_-.".contains(c);
        ROOMS.iter().any(|room| word.starts_with(room)) && word.chars().all(plain)
        // A name in capitals stands for any.
            && !word.split(['/', '.']).any(|part| part.len() > 1 && part.chars().all(|c| c.is_ascii_uppercase()))
    };
    quoted.filter(is_path)
}

#[test]
fn every_page_cites_what_exists() -> Result<()> {
    let mut missing = Vec::new();
    for file in files(&["md"])? {
        let page = fs::read_to_string(&file)?;
        // Code may contain anything.
        let outside: String = page.split("```").step_by(2).collect();
        for cited in links(&outside).chain(paths(&outside)) {
            if !exists(cited, &file)? {
                missing.push(format!("{}: {cited}", file.display()));
            }
        }
    }
    ensure!(missing.is_empty(), "{}", missing.join("\n"));
    Ok(())
}

#[test]
fn every_comment_cites_pages_that_exist() -> Result<()> {
    let mut missing = Vec::new();
    for file in files(&["rs"])? {
        let source = fs::read_to_string(&file)?;
        let comments = source.lines().filter_map(|line| Some(line.split_once("//")?.1));
        for word in
            comments.flat_map(|comment| comment.split(|c: char| c.is_whitespace() || "`()[],;\"".contains(c)))
        {
            let name = word.trim_end_matches(['.', ':']);
            let is_page = name.strip_suffix(".md").is_some_and(|stem| {
                stem.ends_with(|c: char| c.is_ascii_alphanumeric()) && !stem.contains(['{', '*', ':'])
            });
            if is_page && !name.contains("CODE") && !exists(name.trim_start_matches('/'), &file)? {
                missing.push(format!("{}: {name}", file.display()));
            }
        }
    }
    ensure!(missing.is_empty(), "{}", missing.join("\n"));
    Ok(())
}
