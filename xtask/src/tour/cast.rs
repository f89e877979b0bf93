//! A sitting as asciinema keeps it (asciicast, version 2): a line of JSON for the terminal, then one for each thing that happens.

use std::fmt::Write as _;

use anyhow::Result;
use serde_json::json;
use vt100::Screen;

/// A screen is looked at for this long, milliseconds: the same each time, however long it took to draw.
const LOOK_MS: u32 = 3_000;

pub(super) struct Cast {
    text: String,
    at_ms: u32,
}

impl Cast {
    pub(super) fn begin((width, height): (u16, u16), title: &str, screen: &Screen) -> Result<Self> {
        let header = json!({ "version": 2, "width": width, "height": height, "title": title });
        let mut cast = Self { text: format!("{header}\n"), at_ms: 0 };
        cast.event("o", &screen.contents_formatted())?;
        Ok(cast)
    }

    /// A key was pressed, and the screen drawn anew.
    pub(super) fn step(&mut self, key: &str, now: &Screen, before: &Screen) -> Result<()> {
        self.at_ms += LOOK_MS;
        // A marker is where a player can stop, and shows what was pressed.
        self.event("m", &format!("key {key}"))?;
        self.event("o", &now.contents_diff(before))
    }

    /// The last screen is looked at, too.
    pub(super) fn end(mut self) -> Result<String> {
        self.at_ms += LOOK_MS;
        self.event("o", "")?;
        Ok(self.text)
    }

    fn event(&mut self, kind: &str, text: &str) -> Result<()> {
        let seconds = f64::from(self.at_ms) / 1000.0;
        let line = serde_json::to_string(&(seconds, kind, text))?;
        writeln!(self.text, "{line}")?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU16;

    use super::*;

    #[test]
    fn a_player_sees_what_was_seen() {
        let size = |of| NonZeroU16::new(of).unwrap();
        let mut parser = vt100::Parser::new(size(3), size(20), 0);
        parser.process(b"first\r\nsecond");
        let before = parser.screen().clone();
        let mut cast = Cast::begin((20, 3), "a title", &before).unwrap();
        parser.process(b"\x1b[1;1H\x1b[32mother\x1b[0m");
        cast.step("2", parser.screen(), &before).unwrap();
        let text = cast.end().unwrap();
        let lines: Vec<serde_json::Value> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines[0]["width"], 20);
        assert_eq!(lines[2], json!([3.0, "m", "key 2"]));
        assert_eq!(lines[4], json!([6.0, "o", ""]));
        let mut player = vt100::Parser::new(size(3), size(20), 0);
        for line in lines.iter().filter(|line| line[1] == "o") {
            player.process(line[2].as_str().unwrap().as_bytes());
        }
        assert_eq!(player.screen().contents_formatted(), parser.screen().contents_formatted());
    }
}
