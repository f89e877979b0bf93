//! From keys to what they do.

use ratatui::crossterm::event::{
    Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers, MouseButton, MouseEventKind,
};

use super::desk::View;

/// Something that a person wants.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Action {
    /// To end.
    Quit,
    /// Another view.
    Show(View),
    /// The view so many further on.
    Turn(isize),
    /// So many rows down, or lines of what is open.
    Move(isize),
    /// So many screens down.
    Page(isize),
    /// The first row.
    Top,
    /// The last row.
    Bottom,
    /// All about the row.
    Open,
    /// Out of what is open.
    Back,
    /// To write a filter.
    Filter,
    /// To remove it.
    Unfilter,
    /// A character of it.
    Type(char),
    /// Less the last character.
    Erase,
    /// Less all of it.
    EraseAll,
    /// To sort by the next column.
    Sort,
    /// The other way round.
    Reverse,
    /// To hold the screen, or let it go on.
    Freeze,
    /// To copy the remedy's command.
    Copy,
    /// The page that explains the finding.
    Explain,
    /// What is observed, and what is not.
    Coverage,
    /// The keys.
    Help,
    /// Other colours.
    Theme,
    /// To take clicks and the wheel, or to leave them to the terminal.
    Mouse,
    /// To play a recording, or stop.
    Play,
    /// To wind a recording by so many milliseconds.
    Wind(i64),
    /// By so many hundredths of its length.
    WindShare(i64),
    /// To its beginning.
    WindStart,
    /// To its end.
    WindEnd,
    /// To when the row began.
    WindTo,
    /// To stop, as any program does at Ctrl-Z.
    Suspend,
    /// To draw everything anew.
    Redraw,
    /// A place that was clicked on.
    Click(u16, u16),
}

/// What an input event means; while a filter is `typed`, letters are letters. `None`: nothing.
#[must_use]
pub fn action_of(event: &Event, typed: bool) -> Option<Action> {
    match event {
        // A repeated key is a key; one that is let go is none.
        Event::Key(key) if key.kind != KeyEventKind::Release => {
            if typed {
                typed_key(key)
            } else {
                key_of(key)
            }
        }
        Event::Mouse(mouse) => match mouse.kind {
            MouseEventKind::Down(MouseButton::Left) => Some(Action::Click(mouse.column, mouse.row)),
            MouseEventKind::ScrollDown => Some(Action::Move(3)),
            MouseEventKind::ScrollUp => Some(Action::Move(-3)),
            _ => None,
        },
        _ => None,
    }
}

fn typed_key(key: &KeyEvent) -> Option<Action> {
    let control = key.modifiers.contains(KeyModifiers::CONTROL);
    match key.code {
        KeyCode::Char('c' | 'g') if control => Some(Action::Back),
        KeyCode::Char('u' | 'w') if control => Some(Action::EraseAll),
        KeyCode::Char(character) if !control => Some(Action::Type(character)),
        KeyCode::Backspace => Some(Action::Erase),
        KeyCode::Enter => Some(Action::Open),
        KeyCode::Esc => Some(Action::Back),
        _ => None,
    }
}

fn key_of(key: &KeyEvent) -> Option<Action> {
    let control = key.modifiers.contains(KeyModifiers::CONTROL);
    let shift = key.modifiers.contains(KeyModifiers::SHIFT);
    Some(match key.code {
        KeyCode::Char('c') if control => Action::Quit,
        KeyCode::Char('z') if control => Action::Suspend,
        KeyCode::Char('l') if control => Action::Redraw,
        KeyCode::Char('d' | 'f') if control => Action::Page(1),
        KeyCode::Char('u' | 'b') if control => Action::Page(-1),
        KeyCode::Char(_) if control => return None,
        KeyCode::Char('q') => Action::Quit,
        KeyCode::Char(digit @ '1'..='6') => {
            let index = usize::try_from(digit.to_digit(10)?).ok()?.checked_sub(1)?;
            Action::Show(*View::ALL.get(index)?)
        }
        KeyCode::Tab => Action::Turn(1),
        KeyCode::BackTab => Action::Turn(-1),
        KeyCode::Down | KeyCode::Char('j') => Action::Move(1),
        KeyCode::Up | KeyCode::Char('k') => Action::Move(-1),
        KeyCode::PageDown => Action::Page(1),
        KeyCode::PageUp => Action::Page(-1),
        KeyCode::Home | KeyCode::Char('g') => Action::Top,
        KeyCode::End | KeyCode::Char('G') => Action::Bottom,
        KeyCode::Enter => Action::Open,
        KeyCode::Esc | KeyCode::Backspace => Action::Back,
        KeyCode::Char('/') => Action::Filter,
        KeyCode::Char('x') => Action::Unfilter,
        KeyCode::Char('s') => Action::Sort,
        KeyCode::Char('r') => Action::Reverse,
        KeyCode::Char('f') => Action::Freeze,
        KeyCode::Char('y') => Action::Copy,
        KeyCode::Char('e') => Action::Explain,
        KeyCode::Char('c') => Action::Coverage,
        KeyCode::Char('?' | 'h') | KeyCode::F(1) => Action::Help,
        KeyCode::Char('T') => Action::Theme,
        KeyCode::Char('m') => Action::Mouse,
        KeyCode::Char(' ') => Action::Play,
        KeyCode::Left if shift => Action::WindShare(-10),
        KeyCode::Right if shift => Action::WindShare(10),
        KeyCode::Left | KeyCode::Char('[') => Action::Wind(-1_000),
        KeyCode::Right | KeyCode::Char(']') => Action::Wind(1_000),
        KeyCode::Char('{') => Action::WindShare(-10),
        KeyCode::Char('}') => Action::WindShare(10),
        KeyCode::Char('<') => Action::WindStart,
        KeyCode::Char('>') => Action::WindEnd,
        KeyCode::Char('t') => Action::WindTo,
        _ => return None,
    })
}

/// The keys, for people: what they are, and what they do. `true`: only of recordings.
pub(crate) const KEYS: &[(&str, &str, bool)] = &[
    ("1 … 6, Tab", "views: findings, listeners, ports, connects, half-open, connections", false),
    ("up down, j k", "row; PgUp PgDn, g G: screen, first, last", false),
    ("Enter, Esc", "all about the row: cause, remedy, timeline, evidence; and back", false),
    ("e", "the page that explains the finding", false),
    ("y", "copy the remedy's command (OSC 52); again: its next one", false),
    ("/", "filter: port:80,8000-8099 comm:nginx pid:7 container:web", false),
    ("", "peer:10.0.0.0/8 netns:4026531840 code:bind-conflict, or a word", false),
    ("x", "remove the filter", false),
    ("s, r", "sort by the next column; the other way round", false),
    ("f", "freeze the screen; the trace goes on", false),
    ("c", "what is observed, what is not and why, losses, own cost", false),
    ("T", "other colours: dark, light, contrast, none", false),
    ("m", "take clicks and the wheel; again: leave them to the terminal, which marks text", false),
    ("left right, [ ]", "one second back or on; { }: a tenth of the recording", true),
    ("< >", "to the beginning, to the end", true),
    ("space", "play, stop", true),
    ("t", "to the moment when the finding (or connection) began", true),
    ("?, q", "these keys; the end", false),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn key(code: KeyCode) -> Event {
        Event::Key(KeyEvent::new(code, KeyModifiers::NONE))
    }

    #[test]
    fn letters_are_keys_unless_they_are_typed() {
        assert_eq!(action_of(&key(KeyCode::Char('q')), false), Some(Action::Quit));
        assert_eq!(action_of(&key(KeyCode::Char('q')), true), Some(Action::Type('q')));
        assert_eq!(action_of(&key(KeyCode::Esc), true), Some(Action::Back));
        let interrupt = Event::Key(KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL));
        assert_eq!(action_of(&interrupt, false), Some(Action::Quit));
        // Whoever types a filter leaves that first.
        assert_eq!(action_of(&interrupt, true), Some(Action::Back));
    }

    #[test]
    fn a_key_that_is_let_go_does_nothing() {
        let mut event = KeyEvent::new(KeyCode::Char('q'), KeyModifiers::NONE);
        event.kind = KeyEventKind::Release;
        assert_eq!(action_of(&Event::Key(event), false), None);
    }

    #[test]
    fn every_view_has_its_number() {
        for (number, view) in ('1'..).zip(View::ALL) {
            assert_eq!(action_of(&key(KeyCode::Char(number)), false), Some(Action::Show(view)));
        }
        assert_eq!(action_of(&key(KeyCode::Char('7')), false), None);
    }
}
