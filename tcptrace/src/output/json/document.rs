//! docs/json.md, made from the types.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::Value;

use super::line::Line;
use super::schema::schema;
use crate::check::RULES;
use crate::finding::{KINDS, Key, keys};

/// The page.
pub(super) fn page() -> String {
    let of_findings = KINDS.iter().map(|kind| (kind.code, kind.evidence));
    let of_risks = RULES.iter().map(|rule| (rule.code(), rule.evidence()));
    let mut codes: BTreeMap<&str, Vec<Key>> = BTreeMap::new();
    of_findings.chain(of_risks).for_each(|(code, keys)| codes.entry(code).or_default().extend(keys));
    let mut evidence = String::new();
    for (code, mut keys) in codes {
        keys.sort_by_key(|key| key.name);
        let _ = write!(evidence, "### {code}\n\n{}\n", table(&keys));
    }
    let mut facts = String::from("| key | form | meaning, and the events that have it |\n|---|---|---|\n");
    for (key, events) in keys::FACTS {
        let (form, means, events) = (key.form.in_words(), key.means, events.join(", "));
        let _ = writeln!(facts, "| `{}` | {form} | {means} ({events}) |", key.name);
    }
    include_str!("page.md")
        .replace("{types}", types().trim_end())
        .replace("{evidence}", evidence.trim_end())
        .replace("{facts}", facts.trim_end())
}

fn table(keys: &[Key]) -> String {
    let mut out = String::from("| key | form | meaning |\n|---|---|---|\n");
    for key in keys {
        let _ = writeln!(out, "| `{}` | {} | {} |", key.name, key.form.in_words(), key.means);
    }
    out
}

/// Each type, what it is, the commands that print it, and its members; then the objects in them.
fn types() -> String {
    let whole = schema(None).unwrap_or_default();
    let mut out = String::new();
    for of in Line::TYPES {
        let line = &whole["$defs"][format!("line-{}", of.name)];
        let _ = writeln!(out, "### {}\n\n{} Printed by: {}.\n", of.name, text(line), of.commands);
        if of.name == "row" {
            let _ = writeln!(out, "Its members are the columns of [recording.md](recording.md).\n");
            continue;
        }
        out.push_str(&members(line, &["type", "time", "host", "v"], &whole));
    }
    out.push_str("### Objects in lines\n\n");
    for (name, of) in whole["$defs"].as_object().into_iter().flatten() {
        let is_table = ["Evidence", "Facts"].contains(&name.as_str());
        if of["properties"].is_object() && !name.starts_with("line-") && !is_table {
            let _ = writeln!(out, "#### {name}\n\n{}\n", text(of));
            out.push_str(&members(of, &[], &whole));
        }
    }
    out
}

/// What an object or a member is, in one line that does not break a table.
fn text(of: &Value) -> String {
    of["description"].as_str().unwrap_or_default().replace('\n', " ").replace('|', "\\|")
}

/// A table of an object's members but for some.
fn members(of: &Value, but: &[&str], whole: &Value) -> String {
    let mut out = String::from("| member | form | meaning |\n|---|---|---|\n");
    let required: Vec<&str> =
        of["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    for (name, member) in of["properties"].as_object().into_iter().flatten() {
        if but.contains(&name.as_str()) {
            continue;
        }
        let mut form = form(member, whole);
        if !required.contains(&name.as_str()) {
            form = format!("{}, or left out", form.trim_end_matches(" or null"));
        }
        let _ = writeln!(out, "| `{name}` | {form} | {} |", text(member));
    }
    out.push('\n');
    out
}

/// The form of a member: `number`, `list of Process`, `text or null`.
fn form(member: &Value, whole: &Value) -> String {
    if let Some(name) = member["$ref"].as_str() {
        let name = name.rsplit('/').next().unwrap_or_default();
        let target = &whole["$defs"][name];
        return match (target["properties"].is_object(), target["type"].as_str()) {
            (true, _) => match name {
                "Evidence" => "[evidence](#keys-of-evidence)".to_owned(),
                "Facts" => "[facts](#facts-of-events)".to_owned(),
                _ => format!("[{name}](#{})", name.to_lowercase()),
            },
            (false, Some(_)) => form(target, whole),
            // An enumeration whose values have texts of their own.
            (false, None) => words(target),
        };
    }
    for alternatives in ["anyOf", "oneOf"] {
        if let Some(all) = member[alternatives].as_array() {
            let forms: Vec<String> = all.iter().map(|of| form(of, whole)).collect();
            return if all.iter().all(|of| of["const"].is_string()) {
                words(member)
            } else {
                forms.join(" or ")
            };
        }
    }
    if let Some(values) = member["enum"].as_array() {
        let values: Vec<&str> = values.iter().filter_map(Value::as_str).collect();
        return values.join(", ");
    }
    let one = |name: &str| match name {
        "integer" => "number".to_owned(),
        "number" => "measure".to_owned(),
        "boolean" => "true or false".to_owned(),
        "string" if member["format"] == "date-time" => "time".to_owned(),
        "string" if member["format"] == "ip" => "address".to_owned(),
        "string" => "text".to_owned(),
        "array" => format!("list of {}", form(&member["items"], whole)),
        other => other.to_owned(),
    };
    match &member["type"] {
        Value::String(name) => one(name),
        Value::Array(names) => {
            names.iter().filter_map(Value::as_str).map(one).collect::<Vec<_>>().join(" or ")
        }
        _ => "any".to_owned(),
    }
}

/// The values of an enumeration.
fn words(of: &Value) -> String {
    let alternatives = of["oneOf"].as_array().into_iter().flatten();
    alternatives.filter_map(|value| value["const"].as_str()).collect::<Vec<_>>().join(", ")
}
