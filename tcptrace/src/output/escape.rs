//! Makes foreign text harmless: process names, command lines and cgroup names are whatever somebody chose to write there.

use std::borrow::Cow;
use std::fmt::Write as _;

/// `text` with everything that could move the cursor, change colours or reorder a line written as `\xNN` or `\u{NNNN}`.
pub fn escape(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_harmful) {
        return Cow::Borrowed(text);
    }
    let mut safe = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        match character {
            '\n' => safe.push_str("\\n"),
            '\t' => safe.push_str("\\t"),
            _ if !is_harmful(character) => safe.push(character),
            // Writing to a String does not fail.
            _ if u32::from(character) <= 0xff => {
                let _ = write!(safe, "\\x{:02x}", u32::from(character));
            }
            _ => {
                let _ = write!(safe, "\\u{{{:x}}}", u32::from(character));
            }
        }
    }
    Cow::Owned(safe)
}

/// Whether a terminal or a reader could be deceived by it: control characters (C0, DEL, C1), line and paragraph separators,
/// bidirectional controls, invisible characters.
pub(crate) fn is_harmful(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}'
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinary_text_stays() {
        for text in ["nginx: worker process", "größe", "サーバー", "a\\b", "tokio-runtime-w", ""] {
            assert!(matches!(escape(text), Cow::Borrowed(_)), "{text}");
        }
    }

    #[test]
    fn terminals_are_not_moved() {
        assert_eq!(escape("\u{1b}[2J\u{7}x"), "\\x1b[2J\\x07x");
        assert_eq!(escape("a\r\nb\tc"), "a\\x0d\\nb\\tc");
        assert_eq!(escape("\u{9b}31m\u{7f}"), "\\x9b31m\\x7f");
    }

    #[test]
    fn readers_are_not_deceived() {
        assert_eq!(escape("evil\u{202e}txt.exe"), "evil\\u{202e}txt.exe");
        assert_eq!(escape("a\u{200b}b\u{2066}c\u{feff}"), "a\\u{200b}b\\u{2066}c\\u{feff}");
        assert_eq!(escape("x\u{2028}y"), "x\\u{2028}y");
    }

    #[test]
    fn nothing_harmful_is_left() {
        for number in 0..=u32::from(char::MAX) {
            let Some(character) = char::from_u32(number) else { continue };
            assert!(!escape(&character.to_string()).chars().any(is_harmful), "{number:x}");
        }
    }
}
