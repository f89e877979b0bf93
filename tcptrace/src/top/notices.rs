//! Warnings while the screen is drawn: written to the terminal, they would tear it. They are kept, and counted in the header.

use std::sync::{Mutex, PoisonError};

/// Warnings that are kept.
const KEPT: usize = 50;

static HELD: Mutex<Option<Vec<String>>> = Mutex::new(None);

/// From now on warnings are kept.
pub(crate) fn hold() {
    *HELD.lock().unwrap_or_else(PoisonError::into_inner) = Some(Vec::new());
}

/// Keeps a warning; whether it does.
pub(crate) fn keep(text: &str) -> bool {
    match HELD.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
        Some(held) => {
            if held.len() < KEPT && held.iter().all(|known| known != text) {
                held.push(text.to_owned());
            }
            true
        }
        None => false,
    }
}

/// What has been kept so far.
pub(crate) fn kept() -> Vec<String> {
    HELD.lock().unwrap_or_else(PoisonError::into_inner).clone().unwrap_or_default()
}

/// Warnings go their way again; those that were kept.
pub(crate) fn release() -> Vec<String> {
    HELD.lock().unwrap_or_else(PoisonError::into_inner).take().unwrap_or_default()
}
