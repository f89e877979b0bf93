//! Decoded events: owned, safe Rust. Decoding checks every length and never panics.
