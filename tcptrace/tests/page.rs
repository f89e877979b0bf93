//! The page of `report --html` in a real browser, headless: its script runs, its tables sort and filter.
//!
//! Needs chromium; says so and passes where there is none.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use tcptrace::event::{Event, Kind, PortUse, Timestamp};
use tcptrace::record::{Metadata, Writer};

/// Sorts the first table with several rows by its third column, filters it by a word that is nowhere, and notes how many rows
/// are still shown.
const PLAY: &str = r#"
<script>
const table = [...document.querySelectorAll("table.sortable")].find((table) => table.tBodies[0].rows.length > 5);
const head = table.tHead.rows[0].cells[2];
head.querySelector("button").click();
const shown = [...table.tBodies[0].rows].map((row) => row.cells[2].textContent);
document.body.dataset.sorted = head.getAttribute("aria-sort") + " " + shown.join("|");
const field = table.previousElementSibling;
field.value = "no such word";
field.dispatchEvent(new Event("input"));
document.body.dataset.left = [...table.tBodies[0].rows].filter((row) => !row.hidden).length;
const plot = document.querySelector(".chart svg");
const box = plot.getBoundingClientRect();
const point = (name, share) => plot.dispatchEvent(new PointerEvent(name, {
  bubbles: true, clientX: box.left + box.width * share, clientY: box.top + 5 }));
point("pointermove", 0.1);
document.body.dataset.readout = plot.closest(".chart").querySelector("output").textContent;
point("pointerdown", 0.25);
point("pointermove", 0.5);
point("pointerup", 0.5);
const view = plot.viewBox.baseVal;
document.body.dataset.zoomed = [view.x / plot.closest(".chart").dataset.bins, view.width / plot.closest(".chart").dataset.bins].map((of) => of.toFixed(2)).join(" ");
</script>
"#;

/// A name that wants to be a script.
const HOSTILE: &str = "<img src=x onerror=document.body.dataset.evil=1>";

/// Eight processes of hostile names that take ports.
fn record(path: &Path) -> Result<()> {
    let metadata = Metadata { format: (1, 0), host: HOSTILE.to_owned(), part: 1, ..Metadata::default() };
    let mut writer = Writer::new(fs::File::create(path)?, &metadata)?;
    for pid in 1..9 {
        let since = Timestamp::from_nanos(1_795_344_012_000_000_000);
        let by_connect = u64::from(pid * 37 % 11);
        let usage =
            PortUse { netns: 1, pid, comm: HOSTILE.to_owned(), since, by_connect, ..PortUse::default() };
        writer.push(&Event { time: since, kind: Kind::PortUse(Box::new(usage)) }, false)?;
    }
    writer.finish()?;
    Ok(())
}

#[test]
fn tables_sort_and_filter_in_a_browser() -> Result<()> {
    let browser = ["chromium", "chromium-browser", "google-chrome"].into_iter().find(|name| {
        let asked = Command::new(name).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
        asked.is_ok_and(|status| status.success())
    });
    let Some(browser) = browser else {
        println!("skipped: there is no chromium");
        return Ok(());
    };
    let directory = tempfile::tempdir()?;
    let page = directory.path().join("page.html");
    let recording = directory.path().join("run.arrows");
    record(&recording)?;
    let made = Command::new(env!("CARGO_BIN_EXE_tcptrace"))
        .args(["report", "--html"])
        .arg(&page)
        .arg(&recording)
        .status()?;
    ensure!(made.success());
    let played = fs::read_to_string(&page)?.replace("</body>", &format!("{PLAY}</body>"));
    fs::write(&page, played)?;
    let seen = Command::new(browser)
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=2000", "--dump-dom"])
        .arg(format!("--user-data-dir={}", directory.path().join("profile").display()))
        .arg(format!("file://{}", page.display()))
        .stderr(Stdio::null())
        .output()?;
    let seen = String::from_utf8(seen.stdout)?;
    let data = |name: &str| -> Result<String> {
        let begin = format!("data-{name}=\"");
        let rest = seen.split_once(&begin).with_context(|| format!("the script did not set {name}"))?.1;
        Ok(rest.split('"').next().unwrap_or_default().to_owned())
    };
    let sorted = data("sorted")?;
    let (order, cells) = sorted.split_once(' ').context("an order")?;
    let numbers: Vec<f64> = cells.split('|').map(|cell| cell.parse().unwrap_or(-1.0)).collect();
    ensure!(order == "descending" && numbers.len() > 5 && numbers.is_sorted_by(|a, b| a >= b), "{sorted}");
    ensure!(data("left")? == "0", "rows are left");
    ensure!(!seen.contains("data-evil"), "a name was run as a script");
    ensure!(data("readout")?.contains(" ports"), "no value under the pointer: {}", data("readout")?);
    ensure!(data("zoomed")? == "0.25 0.25", "a drag over a quarter shows {}", data("zoomed")?);
    ensure!(seen.contains("<input class=\"filter\"") && seen.contains("<svg"), "no field, no picture");
    Ok(())
}
