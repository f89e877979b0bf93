//! A terminal's screen as a picture: SVG, with the text as text, so that it can be searched, copied and read aloud.

use std::fmt::Write as _;

use vt100::{Cell, Color, Screen};

/// A cell, in hundredths of a pixel.
const CELL: (u32, u32) = (840, 1800);
/// Around the screen, likewise.
const MARGIN: u32 = 1200;
/// Where in a line letters stand, likewise.
const BASELINE: u32 = 1330;

const BACKGROUND: &str = "#15181d";
const FOREGROUND: &str = "#d6dae0";

/// The sixteen colours that a terminal gives names to; each but black can be read on the background.
const NAMED: [&str; 16] = [
    "#2b3038", "#ff7b72", "#56d364", "#e3b341", "#79b8ff", "#d2a8ff", "#56d4dd", "#d6dae0", "#8b949e",
    "#ff8f87", "#6fdd8b", "#f2cc60", "#8ec5ff", "#dfbcff", "#7ce3ea", "#ffffff",
];

/// How a run of cells looks.
#[derive(Clone, PartialEq, Eq)]
struct Style {
    foreground: String,
    background: Option<String>,
    bold: bool,
    underline: bool,
}

impl Style {
    fn of(cell: &Cell) -> Self {
        let foreground = colour(cell.fgcolor()).unwrap_or_else(|| FOREGROUND.to_owned());
        let background = colour(cell.bgcolor());
        let (foreground, background) = if cell.inverse() {
            (background.unwrap_or_else(|| BACKGROUND.to_owned()), Some(foreground))
        } else {
            (foreground, background)
        };
        Self { foreground, background, bold: cell.bold(), underline: cell.underline() }
    }
}

fn colour(of: Color) -> Option<String> {
    match of {
        Color::Default => None,
        Color::Rgb(red, green, blue) => Some(format!("#{red:02x}{green:02x}{blue:02x}")),
        Color::Idx(index @ 0..16) => NAMED.get(usize::from(index)).map(|name| (*name).to_owned()),
        // The cube of 6 × 6 × 6 colours, and then the greys, as xterm has them.
        Color::Idx(index @ 16..232) => {
            let level = |of: u8| if of == 0 { 0 } else { 55 + of * 40 };
            let of = index - 16;
            let [red, green, blue] = [of / 36, of / 6 % 6, of % 6].map(level);
            Some(format!("#{red:02x}{green:02x}{blue:02x}"))
        }
        Color::Idx(index) => {
            let level = 8 + (index - 232) * 10;
            Some(format!("#{level:02x}{level:02x}{level:02x}"))
        }
    }
}

/// A piece of a line that looks the same all along.
struct Run {
    from: u32,
    cells: u32,
    style: Style,
    text: String,
}

/// The runs of a line, without blanks at its end.
fn runs(screen: &Screen, row: u16) -> Vec<Run> {
    let (_, columns) = screen.size();
    let mut runs: Vec<Run> = Vec::new();
    for column in 0..columns.get() {
        let Some(cell) = screen.cell(row, column) else { continue };
        let style = Style::of(cell);
        let text = match cell.contents() {
            _ if cell.is_wide_continuation() => "",
            "" => " ",
            text => text,
        };
        match runs.last_mut() {
            Some(last) if last.style == style || cell.is_wide_continuation() => {
                last.cells += 1;
                last.text.push_str(text);
            }
            _ => runs.push(Run { from: u32::from(column), cells: 1, style, text: text.to_owned() }),
        }
    }
    let is_blank =
        |run: &Run| run.style.background.is_none() && !run.style.underline && run.text.trim().is_empty();
    while runs.last().is_some_and(is_blank) {
        runs.pop();
    }
    // The blanks at the end of the last run belong to no word.
    if let Some(last) = runs.last_mut()
        && last.style.background.is_none()
        && !last.style.underline
    {
        let blanks = last.text.len() - last.text.trim_end().len();
        last.text.truncate(last.text.len() - blanks);
        last.cells -= u32::try_from(blanks).unwrap_or(0);
    }
    runs
}

/// The screen as text, without blanks at the ends of lines.
pub(super) fn text(screen: &Screen) -> String {
    let (rows, _) = screen.size();
    let line = |row| runs(screen, row).iter().map(|run| run.text.as_str()).collect::<String>();
    (0..rows.get()).map(|row| format!("{}\n", line(row).trim_end())).collect()
}

/// The screen as a picture.
pub(super) fn draw(screen: &Screen, title: &str) -> String {
    let (rows, columns) = screen.size();
    let width = u32::from(columns.get()) * CELL.0 + 2 * MARGIN;
    let height = u32::from(rows.get()) * CELL.1 + 2 * MARGIN;
    let mut svg = String::new();
    let _ = writeln!(
        svg,
        r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {0} {1}" width="{0}" height="{1}" role="img" aria-labelledby="title" font-family="ui-monospace, 'DejaVu Sans Mono', Menlo, Consolas, monospace" font-size="14" fill="{FOREGROUND}">"#,
        pixels(width),
        pixels(height)
    );
    let _ = writeln!(svg, r#"<title id="title">{}</title>"#, escaped(title));
    let _ = writeln!(
        svg,
        "<style>text {{ white-space: pre }} .b {{ font-weight: bold }} .u {{ text-decoration: underline }}</style>"
    );
    let _ = writeln!(svg, r#"<rect width="100%" height="100%" rx="8" fill="{BACKGROUND}"/>"#);
    for row in 0..rows.get() {
        let runs = runs(screen, row);
        let top = MARGIN + u32::from(row) * CELL.1;
        for run in &runs {
            if let Some(background) = &run.style.background {
                let (x, width) = (MARGIN + run.from * CELL.0, run.cells * CELL.0);
                let _ = writeln!(
                    svg,
                    r#"<rect x="{}" y="{}" width="{}" height="{}" fill="{background}"/>"#,
                    pixels(x),
                    pixels(top),
                    pixels(width),
                    pixels(CELL.1)
                );
            }
        }
        if runs.is_empty() {
            continue;
        }
        let _ = write!(svg, r#"<text xml:space="preserve" y="{}">"#, pixels(top + BASELINE));
        runs.iter().for_each(|run| svg.push_str(&span(run)));
        svg.push_str("</text>\n");
    }
    svg.push_str("</svg>\n");
    svg
}

/// A run as wide as its cells, whatever font there is.
fn span(run: &Run) -> String {
    let Style { foreground, bold, underline, .. } = &run.style;
    let mut span = format!(
        r#"<tspan x="{}" textLength="{}" lengthAdjust="spacingAndGlyphs""#,
        pixels(MARGIN + run.from * CELL.0),
        pixels(run.cells * CELL.0)
    );
    if foreground != FOREGROUND {
        let _ = write!(span, r#" fill="{foreground}""#);
    }
    let classes: Vec<&str> =
        [(*bold, "b"), (*underline, "u")].into_iter().filter(|(is, _)| *is).map(|(_, class)| class).collect();
    if !classes.is_empty() {
        let _ = write!(span, r#" class="{}""#, classes.join(" "));
    }
    let _ = write!(span, ">{}</tspan>", escaped(&run.text));
    span
}

/// `8.4`
fn pixels(hundredths: u32) -> String {
    let text = format!("{}.{:02}", hundredths / 100, hundredths % 100);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU16;

    use super::*;

    fn screen(bytes: &str) -> vt100::Parser {
        let size = |of| NonZeroU16::new(of).unwrap();
        let mut parser = vt100::Parser::new(size(3), size(20), 0);
        parser.process(bytes.as_bytes());
        parser
    }

    #[test]
    fn a_picture_has_the_text_its_place_and_its_colours() {
        let parser = screen("a<b \x1b[1;31mred\x1b[0m \x1b[7m x \x1b[0m\r\n\r\n\u{30b5}\u{30fc} end");
        let svg = draw(parser.screen(), "a & b");
        assert_eq!(text(parser.screen()), "a<b red  x\n\n\u{30b5}\u{30fc} end\n");
        assert!(svg.contains("<title id=\"title\">a &amp; b</title>"), "{svg}");
        assert!(svg.contains(r##"fill="#ff7b72" class="b">red</tspan>"##), "{svg}");
        // Reversed: a rectangle behind it, in the colour of text.
        assert!(
            svg.contains(r##"<rect x="79.2" y="12" width="25.2" height="18" fill="#d6dae0"/>"##),
            "{svg}"
        );
        // Two wide characters are four cells.
        assert!(svg.contains(&format!(r#"x="12" textLength="{}""#, pixels(8 * CELL.0))), "{svg}");
    }

    #[test]
    fn colours_are_those_of_xterm() {
        let named = |index| colour(Color::Idx(index)).unwrap();
        assert_eq!([named(16), named(196), named(231)], ["#000000", "#ff0000", "#ffffff"]);
        assert_eq!([named(232), named(237), named(255)], ["#080808", "#3a3a3a", "#eeeeee"]);
        assert_eq!(colour(Color::Default), None);
    }
}
