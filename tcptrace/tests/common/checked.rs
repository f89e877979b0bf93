//! Lines of JSON as tests read them: every one held against the schema.

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

/// The lines of a text. What a line lacks by the schema is wrong, and so is what the schema does not name.
pub(crate) fn lines(text: &str) -> Result<Vec<Value>> {
    let line = |line: &str| {
        let value: Value = serde_json::from_str(line).with_context(|| format!("a line is JSON: {line}"))?;
        let problems = tcptrace::output::json::schema::problems(&value);
        ensure!(problems.is_empty(), "{line}: {problems:#?}");
        Ok(value)
    };
    text.lines().map(line).collect()
}
