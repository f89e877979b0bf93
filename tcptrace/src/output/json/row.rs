//! A row of a recording as a line of `tcptrace export --format jsonl`.

use std::borrow::Cow;

use arrow_schema::DataType;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Serialize;
use serde_json::{Map, Value};

use super::identity::Time;
use crate::record::columns;

/// A row: the columns that have something, by name, but for its time, which every line has.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(transparent)]
pub struct RowLine(pub Map<String, Value>);

impl JsonSchema for RowLine {
    fn schema_name() -> Cow<'static, str> {
        "Row".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let of_type = |generator: &mut SchemaGenerator, of: &DataType| match of {
            DataType::UInt8 | DataType::UInt16 | DataType::UInt32 | DataType::UInt64 => {
                json_schema!({"type": "integer", "minimum": 0})
            }
            DataType::Boolean => json_schema!({"type": "boolean"}),
            DataType::Timestamp(..) => generator.subschema_for::<Time>(),
            DataType::List(_) => json_schema!({"type": "array", "items": {"type": "integer", "minimum": 0}}),
            _ => json_schema!({"type": "string"}),
        };
        let properties: Map<String, Value> = columns()
            .filter(|(name, ..)| name != "time")
            .map(|(name, of, text)| {
                let mut schema = match name.as_str() {
                    "detail" => json_schema!({"additionalProperties": true}),
                    _ => of_type(generator, &of),
                };
                schema.insert("description".into(), text.trim().into());
                (name, schema.to_value())
            })
            .collect();
        json_schema!({
            "description": "A row of a recording: the columns that have something. docs/recording.md says what they are.",
            "type": "object",
            "properties": properties,
            "required": ["event"]
        })
    }
}
