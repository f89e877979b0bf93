//! SYN cookies off, or always on.

use super::{Plan, Risk, Rule};
use crate::finding::{Evidence, Key, Remedy, Severity, keys};
use crate::stock::Namespace;

/// The rule.
pub(super) struct Syncookies;

impl Rule for Syncookies {
    fn code(&self) -> &'static str {
        "syncookies"
    }

    fn evidence(&self) -> &'static [Key] {
        const { &[keys::SYNCOOKIES] }
    }

    fn judge(&self, namespace: &Namespace, _: &Plan) -> Option<Risk> {
        let value = namespace.knobs.tcp_syncookies.filter(|value| *value != 1)?;
        // It concerns listeners only.
        namespace.listeners().next()?;
        let (title, why) = if value == 0 {
            (
                "SYN cookies are off (net.ipv4.tcp_syncookies=0)",
                "a burst of connects, or a SYN flood, fills a listener's SYN queue, and further SYNs are dropped; with \
                 cookies they would be answered",
            )
        } else {
            (
                "every SYN is answered with a cookie (net.ipv4.tcp_syncookies=2)",
                "this is a setting for tests: window scaling, SACK and others are lost where timestamps are not used, \
                 and a SYN-ACK that gets lost is not sent again",
            )
        };
        Some(Risk {
            code: self.code(),
            severity: Severity::Warning,
            title: title.to_owned(),
            why: why.to_owned(),
            listeners: Vec::new(),
            evidence: Evidence::new().with("syncookies", value),
            remedy: vec![Remedy::command(
                "send cookies when the SYN queue is full, and only then",
                namespace.sysctl(&["net.ipv4.tcp_syncookies=1".to_owned()]),
            )],
        })
    }
}
