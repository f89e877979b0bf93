//! The numbers and names that a finding rests on.

use std::net::SocketAddr;

use crate::event::{PortRange, PortSet, SocketOptions};

use super::party::Party;

/// Evidence: names and values, in the order in which they are shown.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Evidence(Vec<(&'static str, Value)>);

/// One value.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Not known here: shown as null, so that nobody takes it for zero.
    Unknown(()),
    /// A count or a setting.
    Number(u64),
    /// A measure, with one decimal.
    Measure(f64),
    /// Yes or no.
    Flag(bool),
    /// Words.
    Text(String),
    /// Several words.
    Texts(Vec<String>),
    /// Ports from one to another.
    Range(PortRange),
    /// A set of ports.
    Ports(PortSet),
    /// Names of socket options.
    Options(SocketOptions),
    /// An address and a port.
    Endpoint(SocketAddr),
    /// A process, or a socket and its process.
    Party(Box<Party>),
    /// Several of them.
    Parties(Vec<Party>),
}

impl Evidence {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a value; `None` is added as unknown.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Into<Value>) -> Self {
        self.0.push((name, value.into()));
        self
    }

    /// Adds a value if there is one.
    #[must_use]
    pub fn with_some(self, name: &'static str, value: Option<impl Into<Value>>) -> Self {
        match value {
            Some(value) => self.with(name, value),
            None => self,
        }
    }

    /// The value of that name.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.0.iter().find(|(known, _)| *known == name).map(|(_, value)| value)
    }

    /// Every party in it.
    pub(super) fn parties_mut(&mut self) -> impl Iterator<Item = &mut Party> {
        self.0.iter_mut().flat_map(|(_, value)| match value {
            Value::Party(party) => std::slice::from_mut(&mut **party),
            Value::Parties(parties) => parties.as_mut_slice(),
            _ => &mut [],
        })
    }

    /// All of it.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &Value)> {
        self.0.iter().map(|(name, value)| (*name, value))
    }
}

impl From<u64> for Value {
    fn from(value: u64) -> Self {
        Self::Number(value)
    }
}

impl From<u32> for Value {
    fn from(value: u32) -> Self {
        Self::Number(value.into())
    }
}

impl From<u16> for Value {
    fn from(value: u16) -> Self {
        Self::Number(value.into())
    }
}

impl From<f64> for Value {
    fn from(value: f64) -> Self {
        Self::Measure((value * 10.0).round() / 10.0)
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Self::Flag(value)
    }
}

impl From<String> for Value {
    fn from(value: String) -> Self {
        Self::Text(value)
    }
}

impl From<&str> for Value {
    fn from(value: &str) -> Self {
        Self::Text(value.to_owned())
    }
}

impl From<Vec<String>> for Value {
    fn from(value: Vec<String>) -> Self {
        Self::Texts(value)
    }
}

impl From<PortRange> for Value {
    fn from(value: PortRange) -> Self {
        Self::Range(value)
    }
}

impl From<PortSet> for Value {
    fn from(value: PortSet) -> Self {
        Self::Ports(value)
    }
}

impl From<&PortSet> for Value {
    fn from(value: &PortSet) -> Self {
        Self::Ports(value.clone())
    }
}

impl From<SocketOptions> for Value {
    fn from(value: SocketOptions) -> Self {
        Self::Options(value)
    }
}

impl From<SocketAddr> for Value {
    fn from(value: SocketAddr) -> Self {
        Self::Endpoint(value)
    }
}

impl From<Party> for Value {
    fn from(value: Party) -> Self {
        Self::Party(Box::new(value))
    }
}

impl From<Vec<Party>> for Value {
    fn from(value: Vec<Party>) -> Self {
        Self::Parties(value)
    }
}

impl<T: Into<Value>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Unknown(()), Into::into)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_its_order_and_says_what_is_unknown() {
        let evidence = Evidence::new()
            .with("syn_drops", 312_u64)
            .with("accepts_per_s", 8.04)
            .with("backlog", None::<u32>)
            .with_some("left_out", None::<u32>)
            .with("errno", "EADDRINUSE");
        let json = crate::output::json_text(&crate::output::EvidenceLine::of(&evidence));
        assert_eq!(json, r#"{"syn_drops":312,"accepts_per_s":8.0,"backlog":null,"errno":"EADDRINUSE"}"#);
    }
}
