//! The one way of text onto the screen: whatever a process, a container or a file is called, no character of it moves the cursor,
//! turns the line round, or is not seen.

use ratatui::buffer::Buffer;
use ratatui::style::Style;
use ratatui::text::Span;
use unicode_width::UnicodeWidthChar as _;

use crate::output::{cells, escape, is_harmful};

/// Text as it can be shown.
pub(crate) fn ink(text: &str, style: Style) -> Span<'static> {
    Span::styled(escape(text).into_owned(), style)
}

/// Text as it can be shown, exactly `width` cells wide: cut with a sign, or filled with blanks.
pub(crate) fn fitted(text: &str, width: usize, right: bool, ellipsis: char) -> String {
    let text = escape(text);
    let wide = cells(&text);
    if wide <= width {
        let blanks = " ".repeat(width - wide);
        return if right { format!("{blanks}{text}") } else { format!("{text}{blanks}") };
    }
    let mut cut = String::new();
    let mut used = 0;
    for character in text.chars() {
        let next = character.width().unwrap_or(0);
        if used + next + 1 > width {
            break;
        }
        used += next;
        cut.push(character);
    }
    if width > 0 {
        cut.push(ellipsis);
        used += 1;
    }
    cut.push_str(&" ".repeat(width.saturating_sub(used)));
    cut
}

/// Looks through a finished frame. Nothing harmful gets that far; if it did, it would go no further.
pub(crate) fn sweep(buffer: &mut Buffer) {
    for cell in &mut buffer.content {
        if cell.symbol().chars().any(is_harmful) {
            cell.set_symbol("?");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_as_wide_as_asked_for() {
        assert_eq!(fitted("abc", 5, false, '…'), "abc  ");
        assert_eq!(fitted("abc", 5, true, '…'), "  abc");
        assert_eq!(fitted("abcdef", 5, true, '…'), "abcd…");
        assert_eq!(fitted("サーバー", 5, false, '…'), "サー…");
        assert_eq!(fitted("サーバー", 4, false, '~'), "サ~ ");
        assert_eq!(fitted("abc", 0, false, '…'), "");
        assert_eq!(fitted("a\u{1b}[2J", 12, false, '…'), "a\\x1b[2J    ");
    }

    #[test]
    fn a_frame_keeps_nothing_harmful() {
        let mut buffer = Buffer::empty(ratatui::layout::Rect::new(0, 0, 2, 1));
        buffer.content[0].set_symbol("\u{202e}");
        buffer.content[1].set_symbol("x");
        sweep(&mut buffer);
        assert_eq!([buffer.content[0].symbol(), buffer.content[1].symbol()], ["?", "x"]);
    }
}
