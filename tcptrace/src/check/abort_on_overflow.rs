//! A full accept queue resets connections instead of making clients wait.

use super::{Plan, Risk, Rule};
use crate::finding::{Evidence, Key, Remedy, Severity, keys};
use crate::stock::Namespace;

/// The rule.
pub(super) struct AbortOnOverflow;

impl Rule for AbortOnOverflow {
    fn code(&self) -> &'static str {
        "abort-on-overflow"
    }

    fn evidence(&self) -> &'static [Key] {
        const { &[keys::ABORT_ON_OVERFLOW] }
    }

    fn judge(&self, namespace: &Namespace, _: &Plan) -> Option<Risk> {
        namespace.knobs.tcp_abort_on_overflow.filter(|value| *value != 0)?;
        // It concerns listeners only.
        namespace.listeners().next()?;
        Some(Risk {
            code: self.code(),
            severity: Severity::Warning,
            title: "a full accept queue resets connections (net.ipv4.tcp_abort_on_overflow=1)".to_owned(),
            why: "a burst that lasts for a moment is an error for clients; with 0 their final ACK is ignored, and \
                  their data, sent again, finds a place when the server has caught up"
                .to_owned(),
            listeners: Vec::new(),
            evidence: Evidence::new().with("abort_on_overflow", true),
            remedy: vec![Remedy::command(
                "unless it is wanted (a load balancer that retries elsewhere), turn it off",
                namespace.sysctl(&["net.ipv4.tcp_abort_on_overflow=0".to_owned()]),
            )],
        })
    }
}
