//! `cargo xtask tour`: the pictures of docs/tour.md, drawn by `tcptrace top` itself on a terminal of its own.
//!
//! The page orders them: `<!-- screen NAME RECORDING WIDTHxHEIGHT KEYS -->` becomes `docs/tour/NAME.svg` and the block of text below
//! the order; `<!-- cast NAME RECORDING WIDTHxHEIGHT KEYS -->` becomes `docs/tour/NAME.cast`, which `asciinema play` plays. All are
//! made of recordings, so that the same program draws the same pictures again.

mod cast;
mod screen;
mod svg;

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use clap::Args as ClapArgs;

use crate::{paths, term, tool};

use self::screen::Sitting;

/// How often a picture is tried that is not the one that is there: on a busy machine a key may come too early.
const TRIES: usize = 3;

/// Without options: makes them anew.
#[derive(ClapArgs)]
pub(crate) struct Args {
    /// Only compare them with what is there; exit code 1 if one is of another screen.
    #[arg(long)]
    check: bool,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let old = changed(&program()?)?;
    if args.check {
        ensure!(old.is_empty(), complaint(&old)?);
        term::note("all pictures of docs/tour.md are of the screens that are drawn now");
        return Ok(());
    }
    for file in &old {
        if let Some(directory) = file.path.parent() {
            fs::create_dir_all(directory)?;
        }
        fs::write(&file.path, &file.text).with_context(|| format!("writing {}", file.path.display()))?;
        term::note(format_args!("wrote {}", file.path.display()));
    }
    term::note(format_args!("{} files are others than before", old.len()));
    Ok(())
}

/// For the suite: what is wrong with the pictures.
pub(crate) fn problems() -> Result<Vec<String>> {
    let old = changed(&program()?)?;
    if old.is_empty() { Ok(Vec::new()) } else { Ok(vec![complaint(&old)?]) }
}

fn complaint(old: &[Made]) -> Result<String> {
    let root = paths::workspace()?;
    let names: Vec<String> = old
        .iter()
        .map(|file| file.path.strip_prefix(&root).unwrap_or(&file.path).display().to_string())
        .collect();
    Ok(format!(
        "of other screens than the tool draws: {}; run cargo xtask tour, and look at them",
        names.join(", ")
    ))
}

fn program() -> Result<PathBuf> {
    tool::run(
        paths::cargo()
            .args(["build", "--quiet", "--workspace", "--bin", "tcptrace"])
            .current_dir(paths::workspace()?),
    )?;
    Ok(paths::target()?.join("debug/tcptrace"))
}

/// A file of the tour, as it should be.
struct Made {
    path: PathBuf,
    text: String,
}

/// What the page asks for.
struct Order<'a> {
    kind: Kind,
    name: &'a str,
    recording: &'a str,
    size: (u16, u16),
    keys: Vec<&'a str>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Screen,
    Cast,
}

impl<'a> Order<'a> {
    /// `None` for a line that is none.
    fn of(line: &'a str) -> Result<Option<Self>> {
        let Some(order) = line.strip_prefix("<!-- ").and_then(|rest| rest.strip_suffix(" -->")) else {
            return Ok(None);
        };
        let mut words = order.split_whitespace();
        let kind = match words.next() {
            Some("screen") => Kind::Screen,
            Some("cast") => Kind::Cast,
            _ => return Ok(None),
        };
        let wrong = || format!("{line}: this should be NAME RECORDING WIDTHxHEIGHT KEYS");
        let (Some(name), Some(recording), Some(size)) = (words.next(), words.next(), words.next()) else {
            bail!(wrong());
        };
        let (width, height) = size.split_once('x').with_context(wrong)?;
        let size = (width.parse().with_context(wrong)?, height.parse().with_context(wrong)?);
        Ok(Some(Self { kind, name, recording, size, keys: words.collect() }))
    }

    fn sit(&self, program: &Path) -> Result<Sitting> {
        Sitting::begin(program, self.recording, self.size)
    }

    /// The picture, and the screen as text.
    fn screen(&self, program: &Path) -> Result<(String, String)> {
        let mut sitting = self.sit(program)?;
        for key in &self.keys {
            sitting.press(key)?;
        }
        let screen = sitting.screen();
        Ok((svg::draw(screen, &title(self)), svg::text(screen)))
    }

    fn cast(&self, program: &Path) -> Result<String> {
        let mut sitting = self.sit(program)?;
        let mut cast = cast::Cast::begin(self.size, &title(self), sitting.screen())?;
        for key in &self.keys {
            let before = sitting.screen().clone();
            sitting.press(key)?;
            cast.step(key, sitting.screen(), &before)?;
        }
        cast.end()
    }
}

fn title(order: &Order<'_>) -> String {
    let keys =
        if order.keys.is_empty() { String::new() } else { format!(", keys: {}", order.keys.join(" ")) };
    format!("tcptrace top {}{keys}", order.recording)
}

/// The files that are not as they should be.
fn changed(program: &Path) -> Result<Vec<Made>> {
    let docs = paths::workspace()?.join("docs");
    let path = docs.join("tour.md");
    let page = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    let mut files = Vec::new();
    let mut names = Vec::new();
    let mut written = String::new();
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        let _ = writeln!(written, "{line}");
        let Some(order) = Order::of(line)? else { continue };
        ensure!(!names.contains(&order.name), "two pictures are called {}", order.name);
        names.push(order.name);
        if order.kind == Kind::Cast {
            let path = docs.join(format!("tour/{}.cast", order.name));
            files.push(settled(&path, || order.cast(program))?);
            continue;
        }
        // What is between the order and the block of text is written by hand.
        let mut above = Vec::new();
        loop {
            match lines.next().with_context(|| format!("{line}: no ```text follows"))? {
                "```text" => break,
                other => above.push(other),
            }
        }
        ensure!(lines.any(|line| line == "```"), "{line}: its block of text does not end");
        let path = docs.join(format!("tour/{}.svg", order.name));
        let mut text = String::new();
        let picture = settled(&path, || {
            let (picture, shown) = order.screen(program)?;
            text = shown;
            Ok(picture)
        })?;
        files.push(picture);
        above.iter().for_each(|line| {
            let _ = writeln!(written, "{line}");
        });
        let _ = write!(written, "```text\n{text}```\n");
    }
    ensure!(names.len() >= 5, "docs/tour.md orders {} pictures", names.len());
    files.push(Made { path, text: written });
    files.retain(|file| fs::read_to_string(&file.path).ok().as_deref() != Some(file.text.as_str()));
    Ok(files)
}

/// Made once, or, if it is not what is there, several times: the last one holds.
fn settled(path: &Path, mut make: impl FnMut() -> Result<String>) -> Result<Made> {
    let there = fs::read_to_string(path).ok();
    let mut text = make()?;
    for _ in 1..TRIES {
        if there.as_ref().is_none_or(|there| *there == text) {
            break;
        }
        let again = make()?;
        let is_sure = again == text;
        text = again;
        if is_sure {
            break;
        }
    }
    Ok(Made { path: path.to_owned(), text })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_names_recording_size_and_keys() {
        let order = Order::of("<!-- screen first a.arrows 100x30 2 Enter -->").unwrap().unwrap();
        assert!(order.kind == Kind::Screen && order.name == "first" && order.recording == "a.arrows");
        assert_eq!((order.size, order.keys.as_slice()), ((100, 30), ["2", "Enter"].as_slice()));
        assert!(Order::of("<!-- a remark -->").unwrap().is_none());
        assert!(Order::of("text").unwrap().is_none());
        assert!(Order::of("<!-- screen first a.arrows -->").is_err());
        assert!(Order::of("<!-- cast tour a.arrows 100 -->").is_err());
    }
}
