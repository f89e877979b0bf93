//! `cargo xtask pages`: the pages of `report --html`, of every recording in the tree, in a real browser.
//!
//! axe-core looks at each, light, dark, and on a phone: what somebody with a screen reader, a keyboard or weak eyes would trip over.
//! With `--pictures` there are pictures to look at as well, and a sheet of paper. It takes Chromium (from Debian) and axe-core (from
//! npm), which are installed where they are missing and can be had.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use clap::Args as ClapArgs;
use serde::Deserialize;

use crate::setup::{self, Need};
use crate::{paths, term, tool};

/// Without options: only axe.
#[derive(ClapArgs)]
pub(crate) struct Args {
    /// Write pictures of the pages (PNG), and what a printer would get (PDF), into this directory.
    #[arg(long, value_name = "DIR")]
    pictures: Option<PathBuf>,
    /// Only pages whose names contain this.
    #[arg(long, value_name = "NAME")]
    only: Option<String>,
}

const BROWSER: [Need; 1] = [Need {
    what: "Chromium",
    packages: &["chromium"],
    is_met: || paths::find_program("chromium").is_some(),
}];

/// The version that the pages were last seen without faults with.
const AXE: &str = "axe-core@4.14.1";

/// So many hosts are in the largest page.
const HOSTS: usize = 20;

/// How a page is looked at.
struct Look {
    name: &'static str,
    /// Width and height.
    window: (u32, u32),
    dark: bool,
}

const LOOKS: [Look; 3] = [
    Look { name: "light", window: (1280, 1600), dark: false },
    Look { name: "dark", window: (1280, 1600), dark: true },
    Look { name: "phone", window: (500, 1600), dark: false },
];

/// Opens everything that is folded, has axe look, and leaves what it says where `--dump-dom` shows it.
const ASK: &str = r#"
<script>
document.querySelectorAll("details").forEach((part) => { part.open = true; });
axe.run(document, { resultTypes: ["violations"] }).then((seen) => {
  const said = document.createElement("pre");
  said.id = "axe-said";
  said.textContent = JSON.stringify(seen.violations.map((of) => ({
    id: of.id, impact: of.impact, help: of.help, nodes: of.nodes.map((node) => node.html) })));
  document.body.append(said);
});
</script>
"#;

/// What axe found.
#[derive(Deserialize)]
struct Fault {
    id: String,
    impact: Option<String>,
    help: String,
    nodes: Vec<String>,
}

impl Fault {
    fn is_serious(&self) -> bool {
        matches!(self.impact.as_deref(), None | Some("serious" | "critical"))
    }
}

pub(crate) fn run(args: &Args) -> Result<()> {
    setup::install(&BROWSER.iter().collect::<Vec<_>>()).context("the pages cannot be looked at")?;
    let axe = axe().context("axe-core, from npm")?;
    let directory = paths::target()?.join("xtask/pages");
    fs::create_dir_all(&directory)?;
    if let Some(pictures) = &args.pictures {
        fs::create_dir_all(pictures)?;
    }
    let wanted = |name: &str| args.only.as_ref().is_none_or(|only| name.contains(only.as_str()));
    let (mut looks, mut serious, mut lesser) = (0, 0, 0);
    for (name, page) in pages(&directory)?.iter().filter(|(name, _)| wanted(name)) {
        for look in &LOOKS {
            for fault in faults(page, look, &axe, &directory)? {
                let weight = fault.impact.as_deref().unwrap_or("unknown");
                println!(
                    "{name}, {}: {weight}: {}: {} ({} places)",
                    look.name,
                    fault.id,
                    fault.help,
                    fault.nodes.len()
                );
                fault.nodes.iter().take(3).for_each(|node| println!("    {}", shortened(node)));
                *if fault.is_serious() { &mut serious } else { &mut lesser } += 1;
            }
            looks += 1;
            if let Some(pictures) = &args.pictures {
                picture(page, look, &directory, &pictures.join(format!("{name}-{}.png", look.name)))?;
            }
        }
        if let Some(pictures) = &args.pictures {
            print(page, &directory, &pictures.join(format!("{name}.pdf")))?;
        }
    }
    ensure!(looks > 0, "no page is called so");
    println!("{looks} looks at pages: {serious} serious faults, {lesser} lesser ones");
    ensure!(serious == 0, "axe has found serious faults");
    Ok(())
}

/// The script of axe, in the cache.
fn axe() -> Result<PathBuf> {
    let place = paths::cache()?.join("axe");
    let script = place.join("node_modules/axe-core/axe.min.js");
    if !script.exists() {
        ensure!(paths::find_program("npm").is_some(), "there is no npm");
        fs::create_dir_all(&place)?;
        term::note(format_args!("installing {AXE}"));
        tool::capture(
            Command::new("npm").args(["install", "--no-audit", "--no-fund", "--prefix"]).arg(&place).arg(AXE),
        )?;
    }
    Ok(script)
}

/// The pages of all recordings: each alone, the two hosts of one incident, and twenty hosts. By name.
fn pages(directory: &Path) -> Result<Vec<(String, PathBuf)>> {
    let root = paths::workspace()?;
    let build = ["build", "--quiet", "--workspace", "--bin", "tcptrace", "--example", "recording"];
    tool::run(paths::cargo().args(build).current_dir(&root))?;
    let debug = paths::target()?.join("debug");
    let tree = root.join("tcptrace/tests/recordings");
    let recordings = recordings_in(&tree)?;
    let mut wanted: Vec<(String, Vec<PathBuf>)> = Vec::new();
    for recording in &recordings {
        let name = recording.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        wanted.push((name, vec![recording.clone()]));
    }
    wanted.push(("two-hosts".to_owned(), recordings_in(&tree.join("across"))?));
    let mut hosts = Vec::new();
    for (number, recording) in recordings.iter().cycle().take(HOSTS).enumerate() {
        let host = format!("host-{:02}", number + 1);
        let renamed = directory.join(format!("{host}.arrows"));
        let mut rename = Command::new(debug.join("examples/recording"));
        tool::capture(rename.arg("rename").args([recording, &renamed]).arg(&host))?;
        hosts.push(renamed);
    }
    wanted.push(("twenty-hosts".to_owned(), hosts));
    let mut pages = Vec::new();
    for (name, files) in wanted {
        let page = directory.join(format!("{name}.html"));
        let mut report = Command::new(debug.join("tcptrace"));
        tool::capture(report.args(["report", "--force", "--utc", "--html"]).arg(&page).args(&files))?;
        pages.push((name, page));
    }
    Ok(pages)
}

fn recordings_in(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "arrows") {
            found.push(path);
        }
    }
    ensure!(found.len() >= 2, "{}: {found:?}", directory.display());
    found.sort();
    Ok(found)
}

fn browser(look: &Look, directory: &Path) -> Command {
    let (width, height) = look.window;
    let mut browser = Command::new("chromium");
    browser
        .args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--hide-scrollbars",
            "--virtual-time-budget=20000",
        ])
        .arg(format!("--window-size={width},{height}"))
        .arg(format!("--user-data-dir={}", directory.join("profile").display()))
        .stderr(Stdio::null());
    if look.dark {
        browser.arg("--blink-settings=preferredColorScheme=0");
    }
    browser
}

fn faults(page: &Path, look: &Look, axe: &Path, directory: &Path) -> Result<Vec<Fault>> {
    let asked = directory.join("asked.html");
    let script = fs::read_to_string(axe)?;
    let text = fs::read_to_string(page)?;
    // In one line, so that what is a tag in the script cannot end it.
    let script = script.replace("</script", "<\\/script");
    fs::write(&asked, text.replace("</body>", &format!("<script>{script}</script>{ASK}</body>")))?;
    let mut browser = browser(look, directory);
    let dom = browser.arg("--dump-dom").arg(format!("file://{}", asked.display())).output()?;
    let dom = String::from_utf8_lossy(&dom.stdout).into_owned();
    let said = dom.split_once("<pre id=\"axe-said\">").and_then(|(_, rest)| rest.split_once("</pre>"));
    let Some((said, _)) = said else { bail!("axe said nothing of {}", page.display()) };
    let said = [("&lt;", "<"), ("&gt;", ">"), ("&nbsp;", "\u{a0}"), ("&amp;", "&")]
        .iter()
        .fold(said.to_owned(), |said, (coded, plain)| said.replace(coded, plain));
    serde_json::from_str(&said).with_context(|| format!("what axe said of {}", page.display()))
}

fn picture(page: &Path, look: &Look, directory: &Path, to: &Path) -> Result<()> {
    let mut browser = browser(look, directory);
    browser.arg(format!("--screenshot={}", to.display())).arg(format!("file://{}", page.display()));
    tool::capture(&mut browser)?;
    Ok(())
}

fn print(page: &Path, directory: &Path, to: &Path) -> Result<()> {
    let Some(light) = LOOKS.first() else { return Ok(()) };
    let mut browser = browser(light, directory);
    browser
        .arg(format!("--print-to-pdf={}", to.display()))
        .arg("--no-pdf-header-footer")
        .arg(format!("file://{}", page.display()));
    tool::capture(&mut browser)?;
    Ok(())
}

/// Enough of an element to find it.
fn shortened(html: &str) -> String {
    const LONGEST: usize = 160;
    html.chars().take(LONGEST).collect()
}
