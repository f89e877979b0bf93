//! Lines that fit: text broken at blanks, its width measured in the cells that a terminal needs for it.

use std::borrow::Cow;

use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

/// However narrow a terminal is, this many cells are filled.
const LEAST: usize = 20;

/// How many cells of a terminal `text` takes.
pub(crate) fn cells(text: &str) -> usize {
    text.width()
}

/// `text` in lines of at most `width` cells, the first of which begins with `first`, and the others with `rest`. A line is
/// broken between words; a word is broken only if it is longer than a line. What stands in backticks is there to be copied and
/// counts as one word while it fits into a line.
pub(crate) fn wrap(text: &str, first: &str, rest: &str, width: usize) -> Vec<String> {
    let width = width.max(cells(rest) + LEAST);
    let mut lines = Vec::new();
    let mut line = first.to_owned();
    let mut empty = true;
    for word in words(text, width.saturating_sub(cells(rest))) {
        let gap = usize::from(!empty);
        if cells(&line) + gap + cells(word) <= width {
            line.extend([if empty { "" } else { " " }, word]);
            empty = false;
            continue;
        }
        if !empty {
            lines.push(std::mem::replace(&mut line, rest.to_owned()));
        }
        for character in word.chars() {
            if cells(&line) + character.width().unwrap_or(0) > width {
                lines.push(std::mem::replace(&mut line, rest.to_owned()));
            }
            line.push(character);
        }
        empty = false;
    }
    lines.push(line);
    for line in &mut lines {
        while line.len() > first.len() && line.ends_with(' ') {
            line.pop();
        }
    }
    lines
}

/// The words of `text`. A phrase in backticks is one, if it is no wider than `room`.
fn words(text: &str, room: usize) -> impl Iterator<Item = &str> {
    let mut left = text;
    std::iter::from_fn(move || {
        if left.is_empty() {
            return None;
        }
        let mut end = None;
        let mut quoted = false;
        for (at, character) in left.char_indices() {
            match character {
                '`' => quoted = !quoted,
                ' ' if !quoted => {
                    end = Some(at);
                    break;
                }
                _ => {}
            }
        }
        let mut end = end.unwrap_or(left.len());
        let whole = left.get(..end).unwrap_or_default();
        if quoted || cells(whole) > room {
            end = left.find(' ').unwrap_or(left.len());
        }
        let (word, rest) = left.split_at(end);
        left = rest.strip_prefix(' ').unwrap_or(rest);
        Some(word)
    })
}

/// `text` if it fits into `width` cells; else its first words and an ellipsis.
pub(crate) fn fit(text: &str, width: usize) -> Cow<'_, str> {
    if cells(text) <= width {
        return Cow::Borrowed(text);
    }
    let mut short = String::new();
    for word in text.split(' ') {
        let gap = usize::from(!short.is_empty());
        if cells(&short) + gap + cells(word) + 2 > width {
            break;
        }
        short.extend([if gap == 1 { " " } else { "" }, word]);
    }
    if short.is_empty() {
        for character in text.chars() {
            if cells(&short) + character.width().unwrap_or(0) + 1 > width {
                break;
            }
            short.push(character);
        }
        short.push('…');
    } else {
        // Half a parenthesis says nothing.
        let half = short.rfind('(').filter(|open| short.rfind(')').is_none_or(|close| close < *open));
        if let Some(open) = half.filter(|open| *open > 0) {
            short.truncate(open);
        }
        short.truncate(short.trim_end().len());
        short.push_str(" …");
    }
    Cow::Owned(short)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_line_is_wider_than_asked_for_and_no_word_is_lost() {
        let text = "the quick brown fox jumps over the lazy dog and サーバー サーバー then some more of it";
        for width in 30..90 {
            let lines = wrap(text, "  do     ", "         ", width);
            assert!(lines.iter().all(|line| cells(line) <= width), "{width}: {lines:?}");
            let said: Vec<&str> = lines.iter().flat_map(|line| line.split_whitespace()).skip(1).collect();
            assert_eq!(said.join(" "), text, "{width}");
            assert!(lines.iter().skip(1).all(|line| line.starts_with("         ")), "{lines:?}");
        }
    }

    #[test]
    fn wide_characters_take_two_cells() {
        assert_eq!(cells("サーバー"), 8);
        let text = "サーバー ".repeat(5);
        assert!(wrap(text.trim_end(), "", "", 20).iter().all(|line| line.chars().count() <= 10));
    }

    #[test]
    fn only_a_word_that_is_longer_than_a_line_is_broken() {
        let word = "x".repeat(50);
        let lines = wrap(&format!("a {word} b"), "", "  ", 24);
        assert_eq!(lines.iter().map(|line| line.trim_start()).collect::<String>(), format!("a{word} b"));
        assert!(lines.iter().all(|line| cells(line) <= 24), "{lines:?}");
    }

    #[test]
    fn what_is_to_be_copied_stays_on_one_line_if_it_can() {
        let text = "raise it: `listen 0.0.0.0:8080 backlog=1024;` in the server block, then reload it";
        for width in 40..100 {
            let lines = wrap(text, "", "  ", width);
            assert!(lines.iter().any(|l| l.contains("`listen 0.0.0.0:8080 backlog=1024;`")), "{lines:?}");
        }
        assert!(wrap(text, "", "", 24).iter().all(|line| cells(line) <= 24));
        // A single backtick quotes nothing.
        assert_eq!(wrap("it`s a name with a backtick", "", "", 20).len(), 2);
    }

    #[test]
    fn no_line_ends_in_a_blank() {
        let lines = wrap("accept-queue-overflow #1  tt-proxy[18148]", "", "    ", 25);
        assert_eq!(lines, ["accept-queue-overflow #1", "    tt-proxy[18148]"]);
    }

    #[test]
    fn a_line_that_is_cut_says_so() {
        assert_eq!(fit("one two three", 13), "one two three");
        assert_eq!(fit("one two three", 12), "one two …");
        assert_eq!(fit("one (two three)", 12), "one …");
        assert_eq!(fit("onetwothree", 5), "onet…");
    }
}
