//! `docs/recording.md`, made from the code that it describes.

use super::decode;
use super::frame::{CHECKSUM, FILE, FIRST_ROW, LONGEST_GROUP};
use super::metadata::{FORMAT_MAJOR, FORMAT_MINOR, KEYS};
use super::order::MOST_ROWS;
use super::schema::{self, DESCRIPTIONS};
use super::writer::SPAN;

/// The page.
pub fn document() -> String {
    let mut keys = String::new();
    for (key, text) in KEYS {
        keys.push_str(&format!("| `{key}` | {text} |\n"));
    }
    let mut columns = String::new();
    for column in DESCRIPTIONS {
        columns.push_str(&format!(
            "| `{}` | {} | {} |\n",
            schema::name(column.name),
            column.kind,
            column.text.trim()
        ));
    }
    include_str!("document.md")
        .replace("{version}", &format!("{FORMAT_MAJOR}.{FORMAT_MINOR}"))
        .replace("{major}", &FORMAT_MAJOR.to_string())
        .replace("{most_rows}", &MOST_ROWS.to_string())
        .replace("{checksum}", CHECKSUM)
        .replace("{first_row}", FIRST_ROW)
        .replace("{file}", FILE)
        .replace("{span}", &SPAN.as_secs().to_string())
        .replace("{most_read}", &decode::MOST_ROWS.to_string())
        .replace("{longest}", &(LONGEST_GROUP >> 20).to_string())
        .replace("{unpacked}", &(decode::MOST_UNPACKED >> 20).to_string())
        .replace("{keys}", keys.trim_end())
        .replace("{columns}", columns.trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `TCPTRACE_BLESS=1 cargo test -p tcptrace the_page` writes the page.
    #[test]
    fn the_page_says_what_the_code_does() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/recording.md");
        if std::env::var_os("TCPTRACE_BLESS").is_some() {
            std::fs::write(path, document()).unwrap();
        }
        let page = std::fs::read_to_string(path).unwrap();
        assert!(
            page == document(),
            "docs/recording.md is out of date: TCPTRACE_BLESS=1 cargo test -p tcptrace the_page"
        );
    }
}
