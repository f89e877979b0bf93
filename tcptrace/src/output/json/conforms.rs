//! Whether a line is what the schema says, held as strictly as a test should: a member that the schema does not name is wrong too.
//!
//! It knows the part of JSON Schema that our own schema uses, and takes every other keyword for an error, so that nothing passes
//! because it was not looked at. It needs `serde_json` alone: `xtask` includes this file to judge lines that guests print.

use serde_json::{Map, Value};

/// What is wrong with `line` by `schema`, the one of all lines; nothing if it conforms.
pub(crate) fn conforms(schema: &Value, line: &Value) -> Vec<String> {
    let check = Check { root: schema };
    let name = line.get("type").and_then(Value::as_str).unwrap_or("?");
    // Of the one type that it claims to be, so that the words are about that.
    match schema.pointer(&format!("/$defs/line-{name}")) {
        Some(of_type) => check.all(of_type, line, "").problems,
        None => vec![format!("there is no type {name:?} of lines")],
    }
}

struct Check<'a> {
    root: &'a Value,
}

/// What came of a look at one value.
#[derive(Default)]
struct Outcome {
    problems: Vec<String>,
    /// Members that the schema names.
    named: Vec<String>,
}

impl Outcome {
    fn unless(&mut self, holds: bool, problem: impl FnOnce() -> String) {
        if !holds {
            self.problems.push(problem());
        }
    }
}

impl Check<'_> {
    /// Looks at a value and everything in it; members that nothing names are wrong.
    fn all(&self, schema: &Value, value: &Value, at: &str) -> Outcome {
        let mut outcome = self.look(schema, value, at);
        if let (Some(object), false) = (value.as_object(), self.is_open(schema)) {
            for name in object.keys().filter(|name| !outcome.named.contains(name)) {
                outcome.problems.push(format!("{at}/{name} is not in the schema"));
            }
        }
        outcome
    }

    /// Whether a schema lets members of any name pass.
    fn is_open(&self, schema: &Value) -> bool {
        if schema.as_bool() == Some(true) || schema.get("additionalProperties").is_some() {
            return true;
        }
        let alternatives = ["anyOf", "oneOf", "allOf"].into_iter();
        let mut parts = alternatives.filter_map(|of| schema.get(of)?.as_array()).flatten();
        self.target(schema).is_some_and(|of| self.is_open(of)) || parts.any(|of| self.is_open(of))
    }

    fn target(&self, schema: &Value) -> Option<&Value> {
        self.root.pointer(schema.get("$ref")?.as_str()?.strip_prefix('#')?)
    }

    fn look(&self, schema: &Value, value: &Value, at: &str) -> Outcome {
        let mut outcome = Outcome::default();
        let keywords = match schema {
            Value::Bool(true) => return outcome,
            Value::Object(keywords) => keywords,
            _ => {
                outcome.problems.push(format!("{at} may not be there"));
                return outcome;
            }
        };
        for (keyword, of) in keywords {
            self.keyword(keyword, of, keywords, value, at, &mut outcome);
        }
        outcome
    }

    fn keyword(
        &self,
        keyword: &str,
        of: &Value,
        keywords: &Map<String, Value>,
        value: &Value,
        at: &str,
        outcome: &mut Outcome,
    ) {
        match keyword {
            "description" | "title" | "$schema" | "$defs" | "default" => {}
            "$ref" => match of.as_str().and_then(|name| self.root.pointer(name.strip_prefix('#')?)) {
                Some(target) => {
                    let seen = self.look(target, value, at);
                    outcome.problems.extend(seen.problems);
                    outcome.named.extend(seen.named);
                }
                None => outcome.problems.push(format!("{at}: the schema has no {of}")),
            },
            "type" => {
                let one = |name: &Value| name.as_str().is_some_and(|name| is_of_type(name, value));
                let fits = of.as_array().map_or_else(|| one(of), |names| names.iter().any(one));
                outcome.unless(fits, || format!("{at} is {value}, not {of}"));
            }
            "const" => outcome.unless(of == value, || format!("{at} is {value}, not {of}")),
            "enum" => {
                let listed = of.as_array().is_some_and(|all| all.contains(value));
                outcome.unless(listed, || format!("{at} is {value}, none of {of}"));
            }
            "minimum" | "maximum" => {
                let (Some(number), Some(limit)) = (value.as_f64(), of.as_f64()) else { return };
                let within = if keyword == "minimum" { number >= limit } else { number <= limit };
                outcome.unless(within, || format!("{at} is {value}, and the {keyword} is {of}"));
            }
            "format" => {
                let Some(text) = value.as_str() else { return };
                if of == "date-time" {
                    outcome.unless(is_utc(text), || format!("{at} is {text:?}, no time in UTC"));
                }
            }
            "required" => {
                let names = of.as_array().into_iter().flatten().filter_map(Value::as_str);
                let Some(object) = value.as_object() else { return };
                for name in names.filter(|name| !object.contains_key(*name)) {
                    outcome.problems.push(format!("{at}/{name} is missing"));
                }
            }
            "properties" => {
                let (Some(properties), Some(object)) = (of.as_object(), value.as_object()) else { return };
                for (name, schema) in properties {
                    outcome.named.push(name.clone());
                    if let Some(member) = object.get(name) {
                        outcome.problems.extend(self.all(schema, member, &format!("{at}/{name}")).problems);
                    }
                }
            }
            "additionalProperties" => {
                let Some(object) = value.as_object() else { return };
                let properties = keywords.get("properties").and_then(Value::as_object);
                let is_named = |name: &str| properties.is_some_and(|all| all.contains_key(name));
                for (name, member) in object.iter().filter(|(name, _)| !is_named(name)) {
                    outcome.problems.extend(self.all(of, member, &format!("{at}/{name}")).problems);
                }
            }
            "items" => {
                for (index, item) in value.as_array().into_iter().flatten().enumerate() {
                    outcome.problems.extend(self.all(of, item, &format!("{at}/{index}")).problems);
                }
            }
            "anyOf" | "oneOf" => {
                let tried: Vec<Outcome> =
                    of.as_array().into_iter().flatten().map(|schema| self.look(schema, value, at)).collect();
                let fitting = || tried.iter().filter(|outcome| outcome.problems.is_empty());
                outcome.unless(fitting().next().is_some(), || {
                    let first = tried.iter().filter_map(|outcome| outcome.problems.first());
                    format!("{at} fits none: {}", first.cloned().collect::<Vec<_>>().join("; "))
                });
                let named: Vec<String> = fitting().flat_map(|outcome| outcome.named.clone()).collect();
                outcome.named.extend(named);
            }
            other => outcome.problems.push(format!("{at}: the keyword {other} is not looked at")),
        }
    }
}

fn is_of_type(name: &str, value: &Value) -> bool {
    match name {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        "integer" => value.is_u64() || value.is_i64(),
        "number" => value.is_number(),
        _ => false,
    }
}

/// `2026-11-22T10:40:12.031441207Z`.
fn is_utc(text: &str) -> bool {
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    let Some((date, time)) = text.strip_suffix('Z').and_then(|text| text.split_once('T')) else {
        return false;
    };
    let date: Vec<&str> = date.split('-').collect();
    let time: Vec<&str> = time.split([':', '.']).collect();
    date.len() == 3 && matches!(time.len(), 3 | 4) && date.into_iter().chain(time).all(digits)
}
