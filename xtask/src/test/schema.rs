//! Holds each line that a guest prints against the schema of tcptrace's JSON output, as the tests of tcptrace do.

use std::sync::LazyLock;

use serde_json::Value;

#[path = "../../../tcptrace/src/output/json/conforms.rs"]
mod conforms;

/// A test of tcptrace compares this file with the types that are printed.
const SCHEMA: &str = include_str!("../../../docs/schema.json");

/// What is wrong with a line.
pub(super) fn problems(line: &Value) -> Vec<String> {
    static ALL: LazyLock<Value> = LazyLock::new(|| serde_json::from_str(SCHEMA).unwrap_or_default());
    conforms::conforms(&ALL, line)
}
