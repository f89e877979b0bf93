//! Other programs read recordings as they are, and exports: pyarrow, polars, DuckDB, chDB (ClickHouse). They count what we count.
//!
//! `cargo xtask setup` makes a Python that has them; `TCPTRACE_PYTHON` names another. Where there is none, the tests say so and
//! pass.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tcptrace::event::Kind;
use tcptrace::record::Reader;

const READERS: &[&str] = &["pyarrow", "polars", "duckdb", "chdb"];

/// Counts the rows of each kind of event in streams, and in their exports as Parquet, with one reader.
const COUNT: &str = r#"
import json, sys
reader, *files = sys.argv[1:]
if reader == "pyarrow":
    import collections, pyarrow as pa, pyarrow.ipc, pyarrow.parquet
    def counts(path):
        table = pa.parquet.read_table(path) if path.endswith("parquet") else pa.ipc.open_stream(path).read_all()
        table.validate(full=True)
        return collections.Counter(table.column("event").to_pylist()).items()
elif reader == "polars":
    import polars
    def counts(path):
        frame = polars.read_parquet(path) if path.endswith("parquet") else polars.read_ipc_stream(path)
        return frame.with_columns(polars.col("event").cast(polars.String)).group_by("event").len().rows()
elif reader == "duckdb":
    # DuckDB reads Arrow through pyarrow, and Parquet itself.
    import duckdb, pyarrow as pa, pyarrow.ipc
    def counts(path):
        if path.endswith("parquet"):
            return duckdb.sql(f"select event, count(*) from '{path}' group by event").fetchall()
        events = pa.ipc.open_stream(path).read_all()
        return duckdb.sql("select event, count(*) from events group by event").fetchall()
else:
    import chdb
    def counts(path):
        form = "Parquet" if path.endswith("parquet") else "ArrowStream"
        said = chdb.query(f"select event, count() from file('{path}', '{form}') group by event", "JSONCompactEachRow")
        return [json.loads(line) for line in str(said).splitlines() if line]
for path in files:
    print(json.dumps(sorted([[event, int(count)] for event, count in counts(path)])))
"#;

fn python() -> PathBuf {
    if let Some(named) = std::env::var_os("TCPTRACE_PYTHON") {
        return named.into();
    }
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache =
        cache.filter(|cache| cache.is_absolute()).or_else(|| Some(std::env::home_dir()?.join(".cache")));
    let made = cache.unwrap_or_default().join("tcptrace/readers/bin/python");
    if made.exists() { made } else { "python3".into() }
}

/// Whether that Python has these modules.
fn has(python: &Path, modules: &str) -> bool {
    let status =
        Command::new(python).args(["-c", &format!("import {modules}")]).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}

fn recordings() -> Result<Vec<PathBuf>> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recordings");
    let mut files: Vec<PathBuf> =
        fs::read_dir(directory)?.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    files.retain(|path| path.extension().is_some_and(|of| of == "arrows"));
    files.sort();
    Ok(files)
}

fn tcptrace(arguments: &[&str], file: &Path) -> Result<String> {
    let output = Command::new(env!("CARGO_BIN_EXE_tcptrace")).args(arguments).arg(file).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}

fn run(python: &Path, arguments: &[&str], directory: &Path) -> Result<Vec<Value>> {
    let output = Command::new(python).arg("-c").args(arguments).current_dir(directory).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout)?.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
}

/// What we read ourselves, written anew by this version: the committed files are of the version that made them.
fn written_anew(from: &Path, to: &Path) -> Result<BTreeMap<String, u64>> {
    let mut reader = Reader::open(from)?;
    let mut writer = tcptrace::record::Writer::new(fs::File::create(to)?, reader.metadata())?;
    let (mut counts, mut events) = (BTreeMap::new(), Vec::new());
    while reader.next_events(&mut events)? {
        for event in events.drain(..) {
            *counts.entry(event.kind.name().to_owned()).or_default() += 1;
            writer.push(&event, false)?;
        }
        writer.flush()?;
    }
    writer.finish()?;
    Ok(counts)
}

#[test]
fn every_reader_counts_what_we_count() -> Result<()> {
    let python = python();
    let directory = tempfile::tempdir()?;
    let mut files = Vec::new();
    for path in recordings()? {
        let name = path.file_name().unwrap_or_default();
        let anew = directory.path().join(name);
        let counts = written_anew(&path, &anew)?;
        let ours = serde_json::to_value(counts.iter().collect::<Vec<_>>())?;
        let parquet = anew.with_extension("parquet");
        tcptrace(&["export", "--format", "parquet", "-o", &parquet.to_string_lossy()], &anew)?;
        files.extend([path, anew, parquet].map(|file| (file.to_string_lossy().into_owned(), ours.clone())));
    }
    for reader in READERS {
        if !has(&python, reader) {
            println!("skipped: {} has no {reader} (cargo xtask setup)", python.display());
            continue;
        }
        let arguments = [COUNT, reader].into_iter().chain(files.iter().map(|(file, _)| file.as_str()));
        let theirs = run(&python, &arguments.collect::<Vec<_>>(), directory.path())?;
        ensure!(theirs.len() == files.len(), "{reader} read {} files", theirs.len());
        for ((file, ours), theirs) in files.iter().zip(theirs) {
            ensure!(theirs == *ours, "{reader}, {file}: {theirs} instead of {ours}");
        }
    }
    Ok(())
}

/// The very queries of `docs/recording.md`, over a directory of recordings, say what `report` says of the files.
#[test]
fn the_documented_queries_say_what_report_says() -> Result<()> {
    let python = python();
    if !has(&python, "pyarrow, duckdb, pytz") {
        println!("skipped: {} has no pyarrow and duckdb (cargo xtask setup)", python.display());
        return Ok(());
    }
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/recording.md"))?;
    let blocks = |language: &str| -> Vec<String> {
        let begin = format!("```{language}\n");
        page.split(&begin).skip(1).filter_map(|rest| rest.split("```").next()).map(str::to_owned).collect()
    };
    let (load, queries) = (blocks("python"), blocks("sql"));
    ensure!(load.len() == 1 && queries.len() == 3, "the page has other examples");
    let directory = tempfile::tempdir()?;
    let copies = directory.path().join("recordings");
    fs::create_dir(&copies)?;
    let (mut drops, mut fails, mut deepest) = (0, 0, 0);
    for path in recordings()? {
        fs::copy(&path, copies.join(path.file_name().unwrap_or_default()))?;
        for line in tcptrace(&["report", "--json"], &path)?.lines() {
            let line: Value = serde_json::from_str(line)?;
            let number = |key: &str| line.get(key).and_then(Value::as_u64).unwrap_or_default();
            if line.get("type") == Some(&"listener-report".into()) {
                drops += number("ack_drops");
                deepest = deepest.max(number("queue_max"));
            }
        }
        let mut reader = Reader::open(&path)?;
        let mut events = Vec::new();
        while reader.next_events(&mut events)? {}
        fails += events.iter().filter(|event| matches!(event.kind, Kind::BindFail(_))).count();
    }
    let mut script = load.join("\n");
    script.push_str("\nimport json\n");
    for query in &queries {
        script.push_str(&format!(
            "rows = duckdb.sql({query:?}).fetchall()\nprint(json.dumps(rows, default=str))\n"
        ));
    }
    let answers = run(&python, &[&script], directory.path())?;
    let rows = |index: usize| answers.get(index).and_then(Value::as_array).context("an answer");
    let sum = |index: usize, column: usize| -> Result<Vec<u64>> {
        Ok(rows(index)?.iter().filter_map(|row| row.get(column)?.as_u64()).collect())
    };
    // host, comm, local_ip, local_port, sk, syn_drops, ack_drops
    let theirs: u64 = sum(0, 6)?.iter().sum();
    ensure!(drops > 0 && theirs == drops, "they count {theirs} final ACKs dropped, report {drops}");
    // second, local_ip, local_port, queue, queue_limit
    let theirs = sum(1, 3)?.into_iter().max();
    ensure!(
        deepest > 0 && theirs <= Some(deepest) && theirs > Some(0),
        "{theirs:?} deep, report says {deepest}"
    );
    ensure!(fails > 0 && rows(2)?.len() == fails, "{} binds that failed, we {fails}", rows(2)?.len());
    Ok(())
}
