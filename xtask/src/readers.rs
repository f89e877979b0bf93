//! A Python with the programs that read recordings as they are, for `tcptrace/tests/readers.rs`: from the package index that this
//! machine's pip is configured for, in an environment of its own. Without it these tests are skipped, so nothing fails here.

use std::process::Command;

use anyhow::{Result, ensure};

use crate::{paths, term, tool};

/// What is installed; each is left out where the index does not have it.
const MODULES: [&str; 5] = ["pyarrow", "polars", "duckdb", "pytz", "chdb"];

/// Installs what is missing, and says what cannot be had.
pub(crate) fn install() {
    if let Err(error) = try_install() {
        term::note(format_args!("no Python that reads recordings; its tests will be skipped: {error:#}"));
    }
}

fn try_install() -> Result<()> {
    let place = paths::cache()?.join("readers");
    let python = place.join("bin/python");
    let has = |module: &str| {
        let import = format!("import {module}");
        python.exists() && tool::capture(Command::new(&python).args(["-c", &import])).is_ok()
    };
    if MODULES.iter().all(|module| has(module)) {
        return Ok(());
    }
    ensure!(paths::find_program("python3").is_some(), "there is no python3");
    if !python.exists() {
        tool::capture(Command::new("python3").args(["-m", "venv"]).arg(&place))?;
    }
    for module in MODULES.iter().filter(|module| !has(module)) {
        let pip =
            ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--timeout", "20", module];
        match tool::capture(Command::new(&python).args(pip)) {
            Ok(_) => term::note(format_args!("installed {module}")),
            Err(error) => term::note(format_args!("{module} cannot be installed: {error:#}")),
        }
    }
    Ok(())
}
