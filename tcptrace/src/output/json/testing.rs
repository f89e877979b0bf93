//! Lines for tests: as they are written, every one held against the schema.

use serde_json::Value;

use super::{JsonWriter, Line, schema};
use crate::event::Timestamp;

/// A line as it is written, without its end.
#[expect(clippy::needless_pass_by_value, reason = "callers make the line for this")]
pub(crate) fn text(line: Line) -> String {
    let mut writer = JsonWriter::new(Vec::new(), "host", "test");
    let _ = writer.write(Timestamp::from_nanos(1_764_500_000_000_000_000), &line).unwrap();
    let text = String::from_utf8(writer.into_inner()).unwrap();
    let problems = schema::problems(&serde_json::from_str(&text).unwrap());
    assert!(problems.is_empty(), "{text}: {problems:?}");
    text.trim_end().to_owned()
}

/// The same, parsed, without what all lines have.
pub(crate) fn value(line: Line) -> Value {
    let mut value: Value = serde_json::from_str(&text(line)).unwrap();
    for key in ["time", "host", "v"] {
        assert!(value.as_object_mut().unwrap().remove(key).is_some(), "{key}");
    }
    value
}
