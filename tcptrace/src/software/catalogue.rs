//! The catalogue: entries as they are written in TOML, checked when they are read.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use serde::Deserialize;

use super::Advice;
use super::process::{Pattern, Process};

/// What is known of which software.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Catalogue {
    #[serde(default)]
    software: Vec<Software>,
}

/// One program, or one kind of programs.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Software {
    /// Its name, as its makers write it.
    pub(crate) name: String,
    is: Marks,
    #[serde(default)]
    setting: Vec<Setting>,
}

/// How it is recognised: by any of these.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Marks {
    program: Vec<Pattern>,
    path: Vec<Pattern>,
    argument: Vec<Pattern>,
    by: Vec<Pattern>,
    runtime: Vec<Pattern>,
}

/// What a setting is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Purpose {
    Backlog,
    Workers,
    Connections,
    Descriptors,
    Reuse,
    Listen,
    Release,
}

impl Purpose {
    /// What is to be done, before the program's name and its setting.
    fn verb(self) -> (&'static str, &'static str) {
        match self {
            Self::Backlog => ("raise the listen backlog of", ""),
            Self::Workers => ("give", " more workers"),
            Self::Connections => ("raise the connection limit of", ""),
            Self::Descriptors => ("raise the limit on open files of", " for good"),
            Self::Reuse => ("let", " use connections again"),
            Self::Listen => ("or let", " listen elsewhere"),
            Self::Release => ("let", " give it up"),
        }
    }

    /// In tables.
    #[cfg(test)]
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Backlog => "listen backlog",
            Self::Workers => "workers",
            Self::Connections => "connection limit",
            Self::Descriptors => "open files",
            Self::Reuse => "connections used again",
            Self::Listen => "address and port",
            Self::Release => "give a port up",
        }
    }
}

/// One setting of a program.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Setting {
    #[serde(rename = "for")]
    pub(crate) purpose: Purpose,
    pub(crate) set: Option<String>,
    pub(crate) when: Option<String>,
    #[serde(rename = "where")]
    pub(crate) place: Option<String>,
    pub(crate) then: Option<String>,
    pub(crate) default: Option<String>,
    pub(crate) note: Option<String>,
    #[serde(default = "one")]
    times: u64,
    #[serde(default = "one")]
    over: u64,
    at_most: Option<u64>,
    #[serde(default)]
    accept: bool,
    pub(crate) source: String,
}

fn one() -> u64 {
    1
}

/// Why a catalogue cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CatalogueError {
    /// It is no TOML, or has other members than a catalogue.
    #[error(transparent)]
    Syntax(#[from] toml::de::Error),
    /// An entry cannot be right.
    #[error("the entry {name:?}: {reason}")]
    Entry {
        /// The entry's name.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
}

impl Catalogue {
    /// The one that comes with tcptrace. (Should it not be readable, nothing is recognised; a test sees to it that it is.)
    pub(super) fn embedded() -> Self {
        Self::parse(include_str!("software.toml")).unwrap_or_default()
    }

    /// Reads a catalogue and checks it.
    ///
    /// # Errors
    /// [`CatalogueError`] says which entry is wrong, and why.
    pub fn parse(text: &str) -> Result<Self, CatalogueError> {
        let catalogue: Self = toml::from_str(text)?;
        let mut names = BTreeSet::new();
        for software in &catalogue.software {
            let wrong = |reason: String| CatalogueError::Entry { name: software.name.clone(), reason };
            software.check().map_err(wrong)?;
            if !names.insert(&software.name) {
                return Err(wrong("there are two of this name".to_owned()));
            }
        }
        Ok(catalogue)
    }

    /// This one, then `other`, without those entries of `other` that this one has as well.
    pub(super) fn before(mut self, other: &Self) -> Self {
        let kept = |software: &&Software| self.software.iter().all(|own| own.name != software.name);
        let others: Vec<Software> = other.software.iter().filter(kept).cloned().collect();
        self.software.extend(others);
        self
    }

    /// The first entry that recognises the process; those that know only its interpreter come last.
    pub(super) fn recognise(&self, process: &Process<'_>) -> Option<&Software> {
        let by = |is: fn(&Marks, &Process<'_>) -> bool| {
            self.software.iter().find(|software| is(&software.is, process))
        };
        by(Marks::fit_program).or_else(|| by(Marks::fit_runtime))
    }

    #[cfg(test)]
    pub(super) fn software(&self) -> &[Software] {
        &self.software
    }
}

impl Software {
    /// Its settings for `purpose`.
    pub(super) fn settings(&self, purpose: Purpose) -> impl Iterator<Item = &Setting> {
        self.setting.iter().filter(move |setting| setting.purpose == purpose)
    }

    #[cfg(test)]
    pub(super) fn all_settings(&self) -> &[Setting] {
        &self.setting
    }

    fn check(&self) -> Result<(), String> {
        if self.is.is_empty() {
            return Err(
                "it is recognised by nothing: is.program, is.path, is.argument or is.runtime".to_owned()
            );
        }
        if self.is.argument.is_empty() != self.is.by.is_empty() {
            return Err(
                "is.argument needs is.by, the programs whose arguments tell, and the reverse".to_owned()
            );
        }
        self.setting.iter().try_for_each(Setting::check)
    }
}

impl Marks {
    fn is_empty(&self) -> bool {
        [&self.program, &self.path, &self.argument, &self.runtime].iter().all(|marks| marks.is_empty())
    }

    fn fit_program(&self, process: &Process<'_>) -> bool {
        process.runs(&self.program)
            || process.is_started_as(&self.path)
            || (process.is_run_by(&self.by) && process.has_argument(&self.argument))
    }

    fn fit_runtime(&self, process: &Process<'_>) -> bool {
        process.is_run_by(&self.runtime)
    }
}

/// What is filled into a setting.
pub(super) struct Values {
    pub(super) value: Option<u64>,
    pub(super) address: Option<SocketAddr>,
    pub(super) pid: Option<u32>,
    /// The address is to be another one.
    pub(super) another: bool,
}

impl Setting {
    fn check(&self) -> Result<(), String> {
        let what = self.purpose.verb().0;
        if self.set.is_none() && self.note.is_none() {
            return Err(format!("to {what} it: there is neither `set` nor `note`"));
        }
        if self.source.trim().is_empty() {
            return Err(format!("to {what} it: `source` says where the software's makers say so"));
        }
        if self.times == 0 || self.over == 0 {
            return Err(format!("to {what} it: `times` and `over` are at least 1"));
        }
        let texts = [&self.set, &self.when, &self.place, &self.then, &self.default, &self.note];
        for text in texts.into_iter().flatten() {
            if let Some(unknown) = placeholders(text).find(|name| !PLACEHOLDERS.contains(name)) {
                return Err(format!("to {what} it: {{{unknown}}} is none of {PLACEHOLDERS:?}"));
            }
            if text.chars().any(char::is_control) {
                return Err(format!("to {what} it: {text:?} has characters that do not print"));
            }
        }
        if self.set.as_ref().is_some_and(|set| set.contains('`')) {
            return Err(format!("to {what} it: `set` stands between backticks, and has one"));
        }
        Ok(())
    }

    /// In words, for the program called `name`.
    pub(super) fn advice(&self, name: &str, values: &Values) -> Advice {
        let fill = |text: &String| self.fill(text, values);
        let (verb, object) = self.purpose.verb();
        // `nginx`, but `the Python program`.
        let name = if name.ends_with(" program") { &format!("the {name}") } else { name };
        let setting = self.set.as_ref().map(fill);
        let when = self.when.as_ref().map_or_else(String::new, |when| format!(" ({when})"));
        let mut text = format!("{verb} {name}{object}{when}");
        match &setting {
            Some(setting) => {
                text.push_str(&format!(": `{setting}`"));
                for (before, part) in [(" ", &self.place), (", then ", &self.then)] {
                    if let Some(part) = part.as_ref().map(fill) {
                        text.push_str(before);
                        text.push_str(&part);
                    }
                }
                let unknown = self.value(values).is_none()
                    && self.set.as_ref().is_some_and(|set| set.contains("{value}"));
                let rest = [
                    self.default.as_ref().map(|default| format!("default: {default}")),
                    unknown.then(|| "N: more than now".to_owned()),
                    self.note.as_ref().map(fill),
                ];
                let rest: Vec<String> = rest.into_iter().flatten().collect();
                if !rest.is_empty() {
                    text.push_str(&format!(" ({})", rest.join("; ")));
                }
            }
            // It cannot be: what then.
            None => {
                text = format!("{name} has no setting to {}", self.purpose.without_setting());
                if let Some(note) = self.note.as_ref().map(fill) {
                    text.push_str(&format!(": {note}"));
                }
            }
        }
        Advice { setting, text }
    }

    /// The value that is to be written, if it can be told.
    fn value(&self, values: &Values) -> Option<u64> {
        // Of a pool that serves what one thread accepts, the number of accepting threads says nothing.
        let known = values.value.filter(|_| self.purpose != Purpose::Workers || self.accept)?;
        let value = known.saturating_mul(self.times).div_ceil(self.over);
        Some(self.at_most.map_or(value, |most| value.min(most)))
    }

    fn fill(&self, text: &str, values: &Values) -> String {
        let value = self.value(values);
        let value = value.map_or_else(|| "N".to_owned(), |value| value.to_string());
        let (address, port) = match values.address {
            Some(address) if !values.another => (address.to_string(), address.port().to_string()),
            Some(address) => (format!("{}:PORT", ip_of(address)), "PORT".to_owned()),
            None => ("ADDRESS:PORT".to_owned(), "PORT".to_owned()),
        };
        let pid = values.pid.map_or_else(|| "PID".to_owned(), |pid| pid.to_string());
        text.replace("{value}", &value)
            .replace("{address}", &address)
            .replace("{port}", &port)
            .replace("{pid}", &pid)
    }
}

impl Purpose {
    fn without_setting(self) -> &'static str {
        match self {
            Self::Backlog => "raise its listen backlog",
            Self::Workers => "add workers",
            Self::Connections => "raise its connection limit",
            Self::Descriptors => "raise its limit on open files",
            Self::Reuse => "use connections again",
            Self::Listen => "listen elsewhere",
            Self::Release => "give the port up",
        }
    }
}

fn ip_of(address: SocketAddr) -> String {
    match address {
        SocketAddr::V4(address) => address.ip().to_string(),
        SocketAddr::V6(address) => format!("[{}]", address.ip()),
    }
}

const PLACEHOLDERS: [&str; 4] = ["value", "address", "port", "pid"];

/// The names between braces: of small letters only, as other braces are the software's own.
fn placeholders(text: &str) -> impl Iterator<Item = &str> {
    text.split('{').skip(1).filter_map(|rest| {
        let (name, _) = rest.split_once('}')?;
        (!name.is_empty() && name.chars().all(|character| character.is_ascii_lowercase())).then_some(name)
    })
}
