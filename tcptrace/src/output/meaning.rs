//! Colours, by what they mean. What a colour says is also said in words.

use anstyle::{AnsiColor, Style};

use crate::finding::Severity;

/// What a piece of text means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Meaning {
    /// Connections fail; an error.
    Critical,
    /// It may hurt.
    Warning,
    /// Good to know.
    Info,
    /// As it should be.
    Good,
    /// A label before something.
    Label,
    /// To be copied.
    Command,
    /// For whoever looks twice.
    Faint,
}

impl Meaning {
    /// How it looks.
    pub(crate) fn style(self) -> Style {
        let coloured = |colour: AnsiColor| Style::new().fg_color(Some(anstyle::Color::Ansi(colour)));
        match self {
            Self::Critical => coloured(AnsiColor::Red).bold(),
            Self::Warning => coloured(AnsiColor::Yellow).bold(),
            Self::Info => coloured(AnsiColor::Blue).bold(),
            Self::Good => coloured(AnsiColor::Green),
            Self::Label => Style::new().bold(),
            Self::Command => coloured(AnsiColor::Cyan),
            Self::Faint => Style::new().dimmed(),
        }
    }
}

impl From<Severity> for Meaning {
    fn from(severity: Severity) -> Self {
        match severity {
            Severity::Critical => Self::Critical,
            Severity::Warning => Self::Warning,
            Severity::Info => Self::Info,
        }
    }
}
