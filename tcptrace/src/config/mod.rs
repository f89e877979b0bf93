//! The user's own settings: how things look, what is left out, and from when on something is reported.
//!
//! Each comes from the last of these that has it: the default; `/etc/tcptrace/tcptrace.toml`; the user's own
//! `tcptrace/tcptrace.toml` below `$XDG_CONFIG_HOME` (`~/.config`), or instead of both the file that `--config` or
//! `TCPTRACE_CONFIG` names; an environment variable, `TCPTRACE_` and the key's name; a flag of the command line.
//!
//! Under sudo the user's own file is the file of the user who called sudo. It is opened with that user's rights, so that it
//! cannot be made to show what only root may read, and it can set nothing that reaches beyond the output ([`OF_ROOT_ONLY`]).

mod agent;
mod layer;
mod places;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::OnceLock;

use serde::{Deserialize, Serialize};

use crate::correlate::Thresholds;
use crate::event::PortSet;
use crate::output::Network;
use crate::top::Theme;

pub use agent::{AgentSettings, KeepOn};
pub use layer::ConfigError;

/// The environment variable that names a file to be read instead of the usual ones.
pub const VARIABLE: &str = "TCPTRACE_CONFIG";

/// Sections that the file of the user who called sudo cannot set: what they name is opened or written with root's rights.
const OF_ROOT_ONLY: [&str; 1] = ["agent"];

/// Everything that can be set.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Config {
    /// How text looks.
    pub look: Look,
    /// How the screen of `tcptrace top` looks.
    pub top: TopLook,
    /// What a live trace is limited to.
    pub filters: Filters,
    /// From when on something is reported.
    pub thresholds: Thresholds,
    /// The agent's.
    pub agent: AgentSettings,
}

/// How text looks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Look {
    /// When there are colours.
    pub color: When,
    /// Whether times are told in UTC.
    pub utc: bool,
}

/// When there are colours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum When {
    /// On a terminal that wants them.
    #[default]
    Auto,
    /// In files and pipes as well.
    Always,
    /// Nowhere.
    Never,
}

/// How the screen of `tcptrace top` looks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct TopLook {
    /// Its colours.
    pub theme: Option<Theme>,
    /// Whether it is drawn with ASCII only.
    pub ascii: bool,
    /// Whether it takes clicks.
    pub mouse: bool,
}

/// What a live trace is limited to, as the options of the same names have it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Filters {
    /// Ports and ranges of ports.
    #[serde(deserialize_with = "layer::ports")]
    pub port: Vec<String>,
    /// Network namespaces.
    #[serde(deserialize_with = "layer::names")]
    pub netns: Vec<String>,
    /// Names of processes.
    #[serde(deserialize_with = "layer::comms")]
    pub comm: Vec<String>,
    /// Parts of names of containers, pods and units.
    #[serde(deserialize_with = "layer::names")]
    pub container: Vec<String>,
    /// Networks of remote addresses.
    #[serde(deserialize_with = "layer::networks")]
    pub peer: Vec<String>,
    /// Codes of findings.
    #[serde(deserialize_with = "layer::codes")]
    pub finding: Vec<String>,
}

impl Filters {
    /// The ports, which were checked when they were read.
    pub fn ports(&self) -> Vec<PortSet> {
        self.port.iter().filter_map(|ports| ports.parse().ok()).collect()
    }

    /// The networks, which were checked when they were read.
    pub fn networks(&self) -> Vec<Network> {
        self.peer.iter().filter_map(|network| network.parse().ok()).collect()
    }
}

/// What a file was good for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigFile {
    /// Where it is.
    pub path: PathBuf,
    /// Whose it is, if that is not plain: ` (of the user who called sudo)`.
    pub whose: &'static str,
    /// Whether it was there.
    pub found: Found,
}

/// What became of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// It was read.
    Read,
    /// It is not there.
    NotThere,
    /// The user who called sudo may not read it.
    Forbidden,
}

impl Found {
    fn in_words(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::NotThere => "not there",
            Self::Forbidden => "left out: that user may not read it",
        }
    }
}

/// The settings, and where each comes from.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Settings {
    /// The settings.
    pub config: Config,
    /// The files that were looked for, earlier ones first.
    pub files: Vec<ConfigFile>,
    /// Where what is not the default comes from, by key: `look.color`.
    sources: BTreeMap<String, String>,
}

impl Settings {
    /// The settings of this process, `named` being what `--config` names.
    ///
    /// # Errors
    /// [`ConfigError`] if something is set that cannot be set, or to what it cannot be, or if a file that is named cannot be read.
    pub fn find(named: Option<PathBuf>) -> Result<Self, ConfigError> {
        let named =
            named.or_else(|| std::env::var_os(VARIABLE).filter(|path| !path.is_empty()).map(PathBuf::from));
        Self::of(&places::find(named), &|name| std::env::var_os(name))
    }

    fn of(
        places: &[places::Place],
        variable: &dyn Fn(&str) -> Option<OsString>,
    ) -> Result<Self, ConfigError> {
        let mut layers = layer::Layers::default();
        let mut files = Vec::new();
        for place in places {
            let found = match place.read()? {
                Ok(text) => {
                    layers.add_file(place, &text)?;
                    Found::Read
                }
                Err(found) => found,
            };
            files.push(ConfigFile { path: place.path.clone(), whose: place.whose(), found });
        }
        for key in keys() {
            let name = variable_of(&key);
            if let Some(value) = variable(&name) {
                layers.add_variable(&key, &name, &value)?;
            }
        }
        let (config, sources) = layers.settle()?;
        let mut settings = Self { config, files, sources };
        // Others look at these as well: they say more than a file does.
        let of_colour = settings.source("look.color").is_some_and(|source| !source.contains("TCPTRACE_"));
        let set = |name: &&str| variable(name).is_some_and(|value| !value.is_empty() && value != "0");
        if let Some(name) = ["NO_COLOR", "CLICOLOR_FORCE"].iter().find(|name| set(name)).filter(|_| of_colour)
        {
            settings.config.look.color = When::Auto;
            settings.note("look.color", format!("${name}"));
        }
        Ok(settings)
    }

    /// Files that were left out though they are there.
    pub fn left_out(&self) -> impl Iterator<Item = &ConfigFile> {
        self.files.iter().filter(|file| file.found == Found::Forbidden)
    }

    /// Takes over what a flag says.
    pub fn note(&mut self, key: &str, source: String) {
        self.sources.insert(key.to_owned(), source);
    }

    /// Where a key's value comes from; `None` if it is the default.
    pub fn source(&self, key: &str) -> Option<&str> {
        self.sources.get(key).map(String::as_str)
    }

    /// What is set below this section, and from where: `thresholds.slow-accept.wait (/etc/tcptrace/tcptrace.toml)`.
    pub fn set_below(&self, section: &str) -> Vec<String> {
        let below = |(key, _): &(&String, &String)| key.split('.').next() == Some(section);
        self.sources.iter().filter(below).map(|(key, source)| format!("{key} ({source})")).collect()
    }

    /// The keys of these sections that are set to something else in `other`.
    pub fn changes(&self, other: &Self, sections: &[&str]) -> Vec<String> {
        let values = |of: &Self| -> BTreeMap<String, serde_json::Value> {
            layer::flat(&of.config).into_iter().collect()
        };
        let (mut changed, before, now) = (Vec::new(), values(self), values(other));
        for (key, value) in now {
            let of_these = key.split('.').next().is_some_and(|section| sections.contains(&section));
            if of_these && before.get(&key) != Some(&value) {
                changed.push(key);
            }
        }
        changed
    }

    /// All of it as a file that sets the same, with the source of each value beside it.
    pub fn in_words(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for file in &self.files {
            lines.push(format!("# {}{}: {}", file.path.display(), file.whose, file.found.in_words()));
        }
        let mut section = String::new();
        for (key, value) in layer::flat(&self.config) {
            let (of, name) = key.rsplit_once('.').unwrap_or(("", &key));
            if of != section {
                section = of.to_owned();
                lines.extend([String::new(), format!("[{section}]")]);
            }
            lines.push(match &value {
                // There is no word for nothing.
                serde_json::Value::Null => format!("# {name} is not set"),
                value => format!("{name} = {value}  # {}", self.source(&key).unwrap_or("default")),
            });
        }
        lines
    }
}

static IN_FORCE: OnceLock<Thresholds> = OnceLock::new();

/// The thresholds of this process: what is found is the same for the same events and the same thresholds.
pub fn thresholds() -> Thresholds {
    IN_FORCE.get().copied().unwrap_or_default()
}

/// From now on these hold. To be called once, before anything is found.
pub fn put_in_force(thresholds: Thresholds) {
    let _ = IN_FORCE.set(thresholds);
}

/// All keys: `look.color`.
pub fn keys() -> Vec<String> {
    layer::flat(&Config::default()).into_iter().map(|(key, _)| key).collect()
}

/// The environment variable that sets a key: `TCPTRACE_LOOK_COLOR`.
pub fn variable_of(key: &str) -> String {
    let upper = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' };
    format!("TCPTRACE_{}", key.chars().map(upper).collect::<String>())
}

#[cfg(test)]
mod tests;
