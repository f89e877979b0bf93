//! Settings upon settings: each layer is checked by itself, so that what is wrong is told with its place, and the last one that
//! has a key wins.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fmt::Display;
use std::path::PathBuf;

use serde::{Deserialize, Deserializer, Serialize, de::Error as _};

use super::places::{Place, Whose};
use super::{Config, OF_ROOT_ONLY};

/// Why the settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file cannot be read.
    #[error("cannot read the configuration {}: {why}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// Something in a file is wrong.
    #[error(
        "{}:{line}:{column}: {why}; --config /dev/null does without configuration",
        path.display()
    )]
    Wrong {
        /// The file.
        path: PathBuf,
        /// Where, counted from 1.
        line: usize,
        /// Where in it, in characters, counted from 1.
        column: usize,
        /// What.
        why: String,
    },
    /// An environment variable is wrong.
    #[error("{name}={value}: {why}")]
    Variable {
        /// Its name.
        name: String,
        /// Its value.
        value: String,
        /// What is wrong with it.
        why: String,
    },
}

/// The layers so far.
#[derive(Debug, Default)]
pub(super) struct Layers {
    merged: toml::Table,
    sources: BTreeMap<String, String>,
}

impl Layers {
    /// What a file sets.
    pub(super) fn add_file(&mut self, place: &Place, text: &str) -> Result<(), ConfigError> {
        let wrong = |error: &toml::de::Error| {
            let (line, column) = position(text, error.span().map_or(0, |span| span.start));
            let why = error.message().trim_end().replace('\n', "; ");
            ConfigError::Wrong { path: place.path.clone(), line, column, why }
        };
        let table: toml::Table = toml::from_str(text).map_err(|error| wrong(&error))?;
        if place.of == Whose::Invoker
            && let Some(section) = OF_ROOT_ONLY.into_iter().find(|section| table.contains_key(*section))
        {
            let why = format!(
                "[{section}] is not taken from the file of the user who called sudo: what it names is opened with root's rights; put it into /etc/tcptrace/tcptrace.toml, or name the file with --config"
            );
            return Err(ConfigError::Unreadable { path: place.path.clone(), why });
        }
        let _checked: Config = toml::from_str(text).map_err(|error| wrong(&error))?;
        self.add(table, &place.path.display().to_string());
        Ok(())
    }

    /// What an environment variable sets: in TOML's words, or as it is.
    pub(super) fn add_variable(&mut self, key: &str, name: &str, value: &OsStr) -> Result<(), ConfigError> {
        let wrong = |why: String| ConfigError::Variable {
            name: name.to_owned(),
            value: value.to_string_lossy().into_owned(),
            why,
        };
        let text = value.to_str().ok_or_else(|| wrong("it is not text".to_owned()))?;
        let parsed = toml::from_str::<toml::Table>(&format!("value = {text}")).ok();
        let parsed = parsed.filter(|table| table.len() == 1).and_then(|mut table| table.remove("value"));
        let mut value = parsed.unwrap_or_else(|| toml::Value::String(text.to_owned()));
        for name in key.rsplit('.') {
            value = toml::Value::Table(toml::Table::from_iter([(name.to_owned(), value)]));
        }
        let toml::Value::Table(table) = value else { return Ok(()) };
        let _checked: Config = table
            .clone()
            .try_into()
            .map_err(|error: toml::de::Error| wrong(error.message().trim_end().replace('\n', "; ")))?;
        self.add(table, &format!("${name}"));
        Ok(())
    }

    fn add(&mut self, table: toml::Table, source: &str) {
        let mut set = Vec::new();
        leaves("", &table, &mut set);
        self.sources.extend(set.into_iter().map(|key| (key, source.to_owned())));
        merge(&mut self.merged, table);
    }

    /// All of them as one.
    pub(super) fn settle(self) -> Result<(Config, BTreeMap<String, String>), ConfigError> {
        // Each layer was checked: together they can only be as right.
        let config = self.merged.try_into().map_err(|error: toml::de::Error| ConfigError::Variable {
            name: "the configuration".to_owned(),
            value: String::new(),
            why: error.message().to_owned(),
        })?;
        Ok((config, self.sources))
    }
}

fn merge(into: &mut toml::Table, from: toml::Table) {
    for (key, value) in from {
        match (into.get_mut(&key), value) {
            (Some(toml::Value::Table(known)), toml::Value::Table(more)) => merge(known, more),
            (_, value) => drop(into.insert(key, value)),
        }
    }
}

fn leaves(above: &str, table: &toml::Table, keys: &mut Vec<String>) {
    for (name, value) in table {
        let key = if above.is_empty() { name.clone() } else { format!("{above}.{name}") };
        match value {
            toml::Value::Table(below) => leaves(&key, below, keys),
            _ => keys.push(key),
        }
    }
}

/// Keys and values, in the order of the declaration's names; those of a section stand together.
pub(super) fn flat<T: Serialize>(of: &T) -> Vec<(String, serde_json::Value)> {
    fn below(above: &str, value: serde_json::Value, all: &mut Vec<(String, serde_json::Value)>) {
        match value {
            serde_json::Value::Object(members) => {
                for (name, value) in members {
                    let key = if above.is_empty() { name } else { format!("{above}.{name}") };
                    below(&key, value, all);
                }
            }
            value => all.push((above.to_owned(), value)),
        }
    }
    let mut all = Vec::new();
    below("", serde_json::to_value(of).unwrap_or_default(), &mut all);
    all
}

/// Line and column of a byte, counted from 1.
fn position(text: &str, at: usize) -> (usize, usize) {
    let before = text.get(..at).unwrap_or(text);
    let line = before.rsplit('\n').next().unwrap_or_default();
    (before.matches('\n').count() + 1, line.chars().count() + 1)
}

/// One, several in one text, or a list of these: `80`, `"80,443"`, `["80", "8000-8099"]`.
#[derive(Deserialize)]
#[serde(untagged, expecting = "use a text, or a list of texts")]
enum Some {
    Number(u64),
    Text(String),
    List(Vec<One>),
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "use a text, or a list of texts")]
enum One {
    Number(u64),
    Text(String),
}

fn list<'de, D: Deserializer<'de>, T, E: Display>(
    of: D,
    check: impl Fn(&str) -> Result<T, E>,
) -> Result<Vec<String>, D::Error> {
    let texts: Vec<String> = match Some::deserialize(of)? {
        Some::Number(number) => vec![number.to_string()],
        Some::Text(text) => vec![text],
        Some::List(list) => list
            .into_iter()
            .map(|one| match one {
                One::Number(number) => number.to_string(),
                One::Text(text) => text,
            })
            .collect(),
    };
    let single = |text: &String| text.split(',').map(|one| one.trim().to_owned()).collect::<Vec<_>>();
    let texts: Vec<String> = texts.iter().flat_map(single).collect();
    for text in &texts {
        check(text).map_err(|why| D::Error::custom(why))?;
    }
    Ok(texts)
}

pub(super) fn ports<'de, D: Deserializer<'de>>(of: D) -> Result<Vec<String>, D::Error> {
    list(of, crate::cli::args::ports)
}

pub(super) fn names<'de, D: Deserializer<'de>>(of: D) -> Result<Vec<String>, D::Error> {
    list(of, crate::cli::args::part_of_a_name)
}

pub(super) fn comms<'de, D: Deserializer<'de>>(of: D) -> Result<Vec<String>, D::Error> {
    list(of, crate::cli::args::comm)
}

pub(super) fn networks<'de, D: Deserializer<'de>>(of: D) -> Result<Vec<String>, D::Error> {
    list(of, str::parse::<crate::output::Network>)
}

pub(super) fn codes<'de, D: Deserializer<'de>>(of: D) -> Result<Vec<String>, D::Error> {
    let engine = crate::finding::Engine::default();
    let known: Vec<&str> = engine.codes().collect();
    list(of, |code| match known.contains(&code) {
        true => Ok(()),
        false => Err(format!("{code:?} is no code of a finding: there are {}", known.join(", "))),
    })
}
