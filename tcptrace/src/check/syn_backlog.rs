//! Without cookies, tcp_max_syn_backlog may be less than the queues that listeners asked for.

use super::{Plan, Risk, Rule, names, parties};
use crate::finding::{Evidence, Key, Remedy, Severity, keys};
use crate::stock::Namespace;

/// The rule.
pub(super) struct SynBacklog;

impl Rule for SynBacklog {
    fn code(&self) -> &'static str {
        "syn-backlog"
    }

    fn evidence(&self) -> &'static [Key] {
        const {
            &[
                keys::number("longest_queue", "longest accept queue limit of a listener"),
                keys::MAX_SYN_BACKLOG,
                keys::SOMAXCONN,
                keys::number("usable", "half-open requests that may be of unproven peers"),
            ]
        }
    }

    fn judge(&self, namespace: &Namespace, _: &Plan) -> Option<Risk> {
        // With cookies tcp_conn_request() does not look at it at all.
        if namespace.knobs.tcp_syncookies != Some(0) {
            return None;
        }
        let max = namespace.knobs.tcp_max_syn_backlog?;
        // The last quarter is kept for peers that are known already.
        let usable = max - (max >> 2);
        let listeners =
            parties(namespace.id, namespace.listeners().filter(|socket| socket.diag.wqueue > usable));
        let longest = namespace.listeners().map(|socket| socket.diag.wqueue).max()?;
        if listeners.is_empty() {
            return None;
        }
        let enough = (u64::from(longest) + 1) * 4 / 3 + 1;
        Some(Risk {
            code: self.code(),
            severity: Severity::Warning,
            title: format!(
                "net.ipv4.tcp_max_syn_backlog ({max}) is less than the queues of {}",
                names(&listeners)
            ),
            why: format!(
                "with tcp_syncookies=0 a peer that this host does not know gets no answer once {usable} requests are \
                 half-open at a listener, whatever its backlog (up to {longest}) is"
            ),
            evidence: Evidence::new()
                .with("max_syn_backlog", max)
                .with("usable", usable)
                .with("longest_queue", longest)
                .with("somaxconn", namespace.knobs.somaxconn),
            remedy: vec![
                Remedy::command(
                    "raise it to the longest queue and the quarter that is kept back",
                    namespace.sysctl(&[format!("net.ipv4.tcp_max_syn_backlog={enough}")]),
                ),
                Remedy::text("or turn SYN cookies on (net.ipv4.tcp_syncookies=1): then it is not looked at"),
            ],
            listeners,
        })
    }
}
