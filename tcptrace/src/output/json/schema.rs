//! The JSON Schema of the lines, made from their types.

use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use super::conforms::conforms;
use super::line::Line;
use super::{Time, VERSION};

/// The schema of one type of line, or of any line; `None` if there is no such type.
pub fn schema(kind: Option<&str>) -> Option<Value> {
    let mut generator = SchemaSettings::draft2020_12().for_serialize().into_generator();
    let types: Vec<_> = Line::TYPES.iter().filter(|of| kind.is_none_or(|kind| kind == of.name)).collect();
    if types.is_empty() {
        return None;
    }
    let time = generator.subschema_for::<Time>().to_value();
    let mut lines: Vec<(&str, Value)> = Vec::new();
    for of in types {
        let content = (of.schema)(&mut generator).to_value();
        lines.push((of.name, with_head(of.name, &time, content)));
    }
    let mut definitions = generator.take_definitions(true);
    let mut root = Map::new();
    root.insert("$schema".into(), "https://json-schema.org/draft/2020-12/schema".into());
    match (kind, lines.as_slice()) {
        (Some(_), [(_, Value::Object(only))]) => root.extend(only.clone()),
        _ => {
            let title = format!("A line of tcptrace's JSON output, version {VERSION}");
            root.insert("title".into(), title.into());
            let references: Vec<Value> =
                lines.iter().map(|(name, _)| json!({"$ref": format!("#/$defs/line-{name}")})).collect();
            root.insert("oneOf".into(), references.into());
            definitions.extend(lines.into_iter().map(|(name, line)| (format!("line-{name}"), line)));
        }
    }
    if !definitions.is_empty() {
        root.insert("$defs".into(), definitions.into());
    }
    Some(root.into())
}

/// A schema as text, for people to read as well.
#[expect(clippy::disallowed_methods, reason = "all of it is our own words")]
pub fn text(schema: &Value) -> String {
    serde_json::to_string_pretty(schema).unwrap_or_default() + "\n"
}

/// The names of all types of lines.
pub fn types() -> impl Iterator<Item = &'static str> {
    Line::TYPES.iter().map(|of| of.name)
}

/// Every type, and which commands print it.
pub fn list() -> impl Iterator<Item = (&'static str, &'static str)> {
    Line::TYPES.iter().map(|of| (of.name, of.commands))
}

/// A line's schema: what its type adds, and what all lines have.
fn with_head(name: &str, time: &Value, mut content: Value) -> Value {
    let head = json!({
        "type": {"const": name},
        "time": time,
        "host": {"description": "Name of the host that this is about.", "type": "string"},
        "v": {"description": "Version of this contract.", "const": VERSION},
    });
    let (Some(line), Value::Object(head)) = (content.as_object_mut(), head) else { return content };
    let names = head.keys().map(|name| Value::from(name.as_str()));
    let own = line.get("required").and_then(Value::as_array).into_iter().flatten().cloned();
    let required: Vec<Value> = names.chain(own).collect();
    let own = line.get("properties").and_then(Value::as_object).cloned().unwrap_or_default();
    let properties: Map<String, Value> = head.into_iter().chain(own).collect();
    line.insert("required".into(), required.into());
    line.insert("properties".into(), properties.into());
    content
}

/// What is wrong with a line, by the schema and beyond it: a member that the schema does not name is wrong as well.
pub fn problems(line: &Value) -> Vec<String> {
    static WHOLE: std::sync::LazyLock<Value> = std::sync::LazyLock::new(|| schema(None).unwrap_or_default());
    conforms(&WHOLE, line)
}
