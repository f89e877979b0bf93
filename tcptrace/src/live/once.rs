//! What cannot be read of one network namespace cannot be read of the others either, again and again: it is said once.

use std::collections::HashSet;
use std::fmt::Display;

/// What was said.
#[derive(Debug, Default)]
pub(super) struct Once {
    said: HashSet<&'static str>,
}

impl Once {
    /// Warns that `what` of a namespace cannot be read, the first time; the next times it is in the debug log only. What the
    /// capabilities of this process do not allow is in the coverage already, and no news.
    pub(super) fn warn(&mut self, what: &'static str, netns: u32, error: &(impl Display + ?Sized)) {
        if self.is_news(what, &error.to_string()) {
            log::warn!("{what} of network namespace {netns}: {error} (of others it is not said again)");
        } else {
            log::debug!("{what} of network namespace {netns}: {error}");
        }
    }

    fn is_news(&mut self, what: &'static str, error: &str) -> bool {
        !error.contains("CAP_") && self.said.insert(what)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_of_another_namespace_is_no_news() {
        let mut once = Once::default();
        assert!(once.is_news("sockets", "no memory"));
        assert!(!once.is_news("sockets", "no memory"));
        assert!(once.is_news("knobs", "no memory"));
        assert!(!once.is_news("addresses", "not permitted; needs CAP_SYS_ADMIN"));
    }
}
