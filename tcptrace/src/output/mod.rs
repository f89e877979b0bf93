//! Text and JSON.
pub const X: u8 = 0;
