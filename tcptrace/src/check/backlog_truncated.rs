//! A listener's queue is exactly as long as a low somaxconn allows: its backlog argument was probably cut.

use super::{Plan, Risk, Rule, names, parties};
use crate::finding::{Evidence, Remedy, Severity};
use crate::stock::Namespace;

/// The kernel's default since 5.4. A limit that equals it (or more) is what programs get that ask for as much as there is.
const USUAL: u32 = 4096;

/// The rule.
pub(super) struct BacklogTruncated;

impl Rule for BacklogTruncated {
    fn code(&self) -> &'static str {
        "backlog-truncated"
    }

    fn judge(&self, namespace: &Namespace, _: &Plan) -> Option<Risk> {
        let somaxconn = namespace.knobs.somaxconn.filter(|somaxconn| *somaxconn < USUAL)?;
        let cut = namespace.listeners().filter(|socket| socket.diag.wqueue == somaxconn);
        let listeners = parties(namespace.id, cut);
        if listeners.is_empty() {
            return None;
        }
        Some(Risk {
            code: self.code(),
            severity: Severity::Warning,
            title: format!(
                "accept queues are limited by net.core.somaxconn ({somaxconn}): {}",
                names(&listeners)
            ),
            why: format!(
                "listen() cuts its backlog argument at somaxconn without a word; a limit of exactly {somaxconn} means an \
                 argument of that or more (which of the two cannot be seen afterwards). When that many connections wait, \
                 more are dropped"
            ),
            evidence: Evidence::new().with("somaxconn", somaxconn).with("usual", USUAL),
            remedy: vec![
                Remedy::command(
                    format!("raise net.core.somaxconn to the kernel's default, {USUAL}"),
                    namespace.sysctl(&[format!("net.core.somaxconn={USUAL}")]),
                ),
                Remedy::text("then restart the servers: it takes effect at the next listen()"),
            ],
            listeners,
        })
    }
}
