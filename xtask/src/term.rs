//! What xtask itself has to say. It goes to stderr, so that stdout carries only what was asked for.

use std::fmt::Display;
use std::io::Write as _;

/// Says one line. A closed stderr is nobody's error.
pub(crate) fn note(message: impl Display) {
    let _closed = writeln!(std::io::stderr().lock(), "xtask: {message}");
}

/// Passes bytes through to stderr as they are.
pub(crate) fn raw(bytes: &[u8]) {
    let mut stderr = std::io::stderr().lock();
    let _closed = stderr.write_all(bytes).and_then(|()| stderr.flush());
}
