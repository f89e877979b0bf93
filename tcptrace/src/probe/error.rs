//! Why nothing can be traced, and what to do about it.

use super::{btf, coverage::Coverage};

/// Why nothing can be traced at all.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// The kernel does not describe its types, or not to us.
    #[error(transparent)]
    Btf(#[from] btf::LoadError),
    /// Loading BPF programs is not permitted.
    #[error(
        "{what}: not permitted; run tcptrace as root, or with CAP_SYS_ADMIN, CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH (before Linux 5.11 CAP_SYS_RESOURCE as well){hint}"
    )]
    NotPermitted {
        /// What was refused.
        what: String,
        /// More, where more is known.
        hint: String,
    },
    /// Every way to attach failed.
    #[error("nothing can be attached on this kernel: {0}")]
    NothingAttached(String),
    /// The eBPF object is not what this program expects.
    #[error("the embedded eBPF object cannot be used: {0}")]
    Object(String),
    /// A map could not be read or written.
    #[error(transparent)]
    Map(#[from] aya::maps::MapError),
    /// A map cannot be read in batches.
    #[error("a map of the kernel side cannot be read: {0}")]
    Batch(#[from] std::io::Error),
}

impl ProbeError {
    /// Whether the answer is to get permission, rather than another kernel.
    #[must_use]
    pub fn is_permission(&self) -> bool {
        matches!(self, Self::NotPermitted { .. } | Self::Btf(btf::LoadError::NotPermitted { .. }))
    }

    pub(super) fn load(error: &aya::EbpfError) -> Self {
        let text = chain(error);
        if denied(error) {
            Self::NotPermitted { what: "creating BPF maps".to_owned(), hint: hint() }
        } else {
            Self::Object(text)
        }
    }

    pub(super) fn nothing_attached(coverage: &Coverage) -> Self {
        let reasons: Vec<&str> = coverage.observations.iter().filter_map(|o| o.reason.as_deref()).collect();
        let first = reasons.first().copied().unwrap_or("no reason was given").to_owned();
        if reasons
            .iter()
            .all(|reason| reason.contains("not permitted") || reason.contains(super::hindrance::LOCKDOWN))
        {
            Self::NotPermitted { what: first, hint: hint() }
        } else {
            Self::NothingAttached(first)
        }
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        source = error.source();
    }
    text
}

fn denied(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut at: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = at {
        if error
            .downcast_ref::<std::io::Error>()
            .is_some_and(|e| e.kind() == std::io::ErrorKind::PermissionDenied)
        {
            return true;
        }
        at = error.source();
    }
    false
}

/// What else stands in the way, where the system says.
fn hint() -> String {
    if super::hindrance::is_confidential() {
        format!("; {}", super::hindrance::LOCKDOWN)
    } else {
        String::new()
    }
}
