//! How the screen looks. What a colour says is also said in words or by a sign, so that it can be left out.

use clap::ValueEnum;
use ratatui::style::{Color, Modifier, Style};
use serde::{Deserialize, Serialize};

use crate::output::Meaning;

/// Sets of colours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Theme {
    /// For a dark background
    #[default]
    Dark,
    /// For a bright background
    Light,
    /// As much contrast as a terminal has
    Contrast,
    /// No colours: bold, underlined and reversed only
    Mono,
}

/// How the screen is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Palette {
    /// The colours.
    pub theme: Theme,
    /// Whether bars, courses and lines are drawn with characters of ASCII only.
    pub ascii: bool,
}

impl Theme {
    /// The next one.
    pub(crate) fn next(self) -> Self {
        match self {
            Self::Dark => Self::Light,
            Self::Light => Self::Contrast,
            Self::Contrast => Self::Mono,
            Self::Mono => Self::Dark,
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Dark => "dark",
            Self::Light => "light",
            Self::Contrast => "contrast",
            Self::Mono => "mono (no colours)",
        }
    }
}

impl Palette {
    /// The style of a meaning.
    pub(crate) fn of(self, meaning: Option<Meaning>) -> Style {
        let Some(meaning) = meaning else { return Style::new() };
        let bold = Style::new().add_modifier(Modifier::BOLD);
        match (self.theme, meaning) {
            (_, Meaning::Label)
            | (Theme::Mono, Meaning::Warning)
            | (Theme::Contrast, Meaning::Info | Meaning::Good | Meaning::Command) => bold,
            (Theme::Mono, Meaning::Critical) => bold.add_modifier(Modifier::REVERSED),
            (Theme::Mono, Meaning::Command) => Style::new().add_modifier(Modifier::UNDERLINED),
            // Dimmed text is what contrast is not.
            (Theme::Mono, Meaning::Info | Meaning::Good | Meaning::Faint)
            | (Theme::Contrast, Meaning::Faint) => Style::new(),
            (Theme::Contrast, Meaning::Critical) => bold.fg(Color::White).bg(Color::Red),
            (Theme::Contrast, Meaning::Warning) => bold.fg(Color::Black).bg(Color::Yellow),
            (Theme::Dark | Theme::Light, Meaning::Good) => Style::new().fg(Color::Green),
            (Theme::Dark, Meaning::Critical) => bold.fg(Color::LightRed),
            (Theme::Dark, Meaning::Warning) => bold.fg(Color::Yellow),
            (Theme::Dark, Meaning::Info) => bold.fg(Color::LightBlue),
            (Theme::Dark, Meaning::Command) => Style::new().fg(Color::Cyan),
            (Theme::Dark, Meaning::Faint) => Style::new().fg(Color::DarkGray),
            (Theme::Light, Meaning::Critical) => bold.fg(Color::Red),
            (Theme::Light, Meaning::Warning) => bold.fg(Color::Magenta),
            (Theme::Light, Meaning::Info) => bold.fg(Color::Blue),
            (Theme::Light, Meaning::Command) => Style::new().fg(Color::Blue),
            (Theme::Light, Meaning::Faint) => Style::new().fg(Color::Gray),
        }
    }

    /// The row that the cursor is on. A sign in front of it says the same.
    pub(crate) fn cursor(self) -> Style {
        match self.theme {
            Theme::Dark => Style::new().bg(Color::Indexed(237)),
            Theme::Light => Style::new().bg(Color::Indexed(254)),
            Theme::Contrast | Theme::Mono => Style::new().add_modifier(Modifier::REVERSED),
        }
    }

    /// Headings of columns.
    pub(crate) fn heading(self) -> Style {
        Style::new().add_modifier(Modifier::BOLD | Modifier::UNDERLINED)
    }

    /// The view that is shown, among the names of the others.
    pub(crate) fn tab(self) -> Style {
        Style::new().add_modifier(Modifier::BOLD | Modifier::REVERSED)
    }

    pub(crate) fn rule(self) -> &'static str {
        if self.ascii { "-" } else { "─" }
    }

    pub(crate) fn pointer(self) -> &'static str {
        if self.ascii { ">" } else { "▶" }
    }

    pub(crate) fn ellipsis(self) -> char {
        if self.ascii { '~' } else { '…' }
    }

    /// The full and the empty part of a bar.
    pub(crate) fn bar(self) -> (char, char) {
        if self.ascii { ('#', '.') } else { ('█', '░') }
    }

    /// Nothing, and eight heights.
    pub(crate) fn levels(self) -> [char; 9] {
        if self.ascii {
            ['.', '_', '-', '=', '+', '*', 'x', '%', '#']
        } else {
            ['·', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█']
        }
    }
}
