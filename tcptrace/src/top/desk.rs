//! Where the person is: which view, which row, in which order, what is open.

use super::action::Action;
use super::filter::{Filter, FindNetns};
use super::scene::{Cx, RowKey, Table};
use super::theme::Palette;

/// What is looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum View {
    /// What is wrong.
    #[default]
    Findings,
    /// Queues.
    Listeners,
    /// Ephemeral ports.
    Ports,
    /// Connects that were not answered.
    Connects,
    /// Half-open requests by network.
    HalfOpen,
    /// Single connections.
    Connections,
}

impl View {
    /// All of them, in the order of their keys.
    pub const ALL: [Self; 6] =
        [Self::Findings, Self::Listeners, Self::Ports, Self::Connects, Self::HalfOpen, Self::Connections];

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Findings => "findings",
            Self::Listeners => "listeners",
            Self::Ports => "ports",
            Self::Connects => "connects",
            Self::HalfOpen => "half-open",
            Self::Connections => "connections",
        }
    }

    fn index(self) -> usize {
        Self::ALL.iter().position(|view| *view == self).unwrap_or(0)
    }
}

/// What lies over the view.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Overlay {
    #[default]
    Nothing,
    /// All about a row.
    Detail(RowKey),
    /// The page of a finding.
    Page(&'static str),
    /// What is observed.
    Coverage,
    /// The keys.
    Help,
}

/// What a view remembers.
#[derive(Clone, Debug, Default)]
struct Place {
    /// The row that the cursor is on: it stays on it while rows move.
    row: Option<RowKey>,
    /// Where that was, for when the row is gone.
    index: usize,
    /// The first row that is shown.
    top: usize,
    sort: Option<(usize, bool)>,
}

/// Where the person is.
#[derive(Clone, Debug)]
pub struct Desk {
    pub(crate) view: View,
    places: [Place; 6],
    pub(crate) overlay: Overlay,
    /// Where Back leads from a page.
    below: Overlay,
    pub(crate) scroll: usize,
    pub(crate) filter: Filter,
    /// A filter that is being typed.
    pub(crate) typing: Option<String>,
    /// The screen is held.
    pub(crate) frozen: bool,
    /// What was last done, or could not be.
    pub(crate) message: Option<String>,
    /// Commands of a row that were copied already.
    copied: Option<(RowKey, usize)>,
    pub(crate) palette: Palette,
    pub(crate) recording: bool,
    geometry: Geometry,
    codes: Vec<&'static str>,
}

/// Where things are on the screen, as it was last drawn.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Geometry {
    /// First line with a row, and how many there are.
    pub(crate) rows: (u16, u16),
    /// Line with the names of the views, and where each begins and ends.
    pub(crate) tabs: (u16, Vec<(u16, u16)>),
    /// Lines of the text that is open: shown, and in all.
    pub(crate) text: (usize, usize),
}

/// What is to be done outside of the desk.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Effect {
    Nothing,
    Quit,
    Copy(String),
    /// Hold the scene, or take a new one.
    Freeze,
    Play,
    Wind(i64),
    WindShare(i64),
    WindStart,
    WindEnd,
    WindTo(crate::event::Timestamp),
    Suspend,
    Redraw,
    /// Take clicks, or leave them to the terminal.
    Mouse,
}

impl Desk {
    /// In front of the findings.
    #[must_use]
    pub fn new(palette: Palette, recording: bool, filter: Filter, codes: Vec<&'static str>) -> Self {
        Self {
            view: View::default(),
            places: Default::default(),
            overlay: Overlay::default(),
            below: Overlay::default(),
            scroll: 0,
            filter,
            typing: None,
            frozen: false,
            message: None,
            copied: None,
            palette,
            recording,
            geometry: Geometry::default(),
            codes,
        }
    }

    /// Whether letters are letters.
    #[must_use]
    pub fn is_typing(&self) -> bool {
        self.typing.is_some()
    }

    /// Notes where things are.
    pub fn drawn(&mut self, geometry: Geometry) {
        self.geometry = geometry;
    }

    fn place(&self) -> &Place {
        // The array has a place for every view.
        static NONE: Place = Place { row: None, index: 0, top: 0, sort: None };
        self.places.get(self.view.index()).unwrap_or(&NONE)
    }

    fn place_mut(&mut self) -> Option<&mut Place> {
        self.places.get_mut(self.view.index())
    }

    /// By which column the rows are sorted, and whether the other way round.
    pub(crate) fn sort(&self) -> Option<(usize, bool)> {
        self.place().sort
    }

    /// The rows of the view as they are shown.
    pub(crate) fn rows(&self, cx: &Cx<'_>) -> Vec<usize> {
        cx.scene.table(self.view).arranged(&self.filter, self.sort(), cx)
    }

    /// Which of `rows` the cursor is on.
    pub(crate) fn cursor(&self, table: &dyn Table, rows: &[usize]) -> usize {
        let place = self.place();
        let found = place.row.and_then(|key| rows.iter().position(|row| table.key(*row) == Some(key)));
        found.unwrap_or_else(|| place.index.min(rows.len().saturating_sub(1)))
    }

    /// The first of `count` rows to show in `height` lines, so that the cursor is among them.
    pub(crate) fn top(&self, cursor: usize, count: usize, height: usize) -> usize {
        let top = self.place().top.min(count.saturating_sub(height));
        if cursor < top { cursor } else { top.max((cursor + 1).saturating_sub(height)) }
    }

    /// Does what can be done here; says what is left to do.
    pub(crate) fn apply(&mut self, action: Action, cx: &Cx<'_>, find_netns: FindNetns<'_>) -> Effect {
        self.message = None;
        if self.typing.is_some() {
            self.type_filter(action, find_netns);
            return Effect::Nothing;
        }
        match action {
            Action::Quit => return Effect::Quit,
            Action::Suspend => return Effect::Suspend,
            Action::Redraw => return Effect::Redraw,
            Action::Show(view) => self.show(view),
            Action::Turn(by) => {
                let count = isize::try_from(View::ALL.len()).unwrap_or(1);
                let index = isize::try_from(self.view.index()).unwrap_or(0);
                let next = usize::try_from((index + by).rem_euclid(count)).unwrap_or(0);
                self.show(View::ALL.get(next).copied().unwrap_or_default());
            }
            Action::Move(by) => self.go(by, cx),
            Action::Page(by) => {
                let page = if self.overlay == Overlay::Nothing {
                    usize::from(self.geometry.rows.1)
                } else {
                    self.geometry.text.0
                };
                self.go(by.saturating_mul(isize::try_from(page.max(2) - 1).unwrap_or(1)), cx);
            }
            Action::Top => self.go(isize::MIN / 2, cx),
            Action::Bottom => self.go(isize::MAX / 2, cx),
            Action::Open => self.open(cx),
            Action::Back => self.back(),
            Action::Filter => self.typing = Some(self.filter.text().to_owned()),
            Action::Unfilter => {
                self.filter = Filter::default();
                self.message = Some("everything is shown".to_owned());
            }
            Action::Sort => self.sort_by_next(cx),
            Action::Reverse => self.reverse(cx),
            Action::Freeze => {
                self.frozen = !self.frozen;
                return Effect::Freeze;
            }
            Action::Copy => return self.copy(cx),
            Action::Explain => self.explain(cx),
            Action::Coverage => self.toggle(Overlay::Coverage),
            Action::Help => self.toggle(Overlay::Help),
            Action::Theme => {
                self.palette.theme = self.palette.theme.next();
                self.message = Some(format!("colours: {}", self.palette.theme.name()));
            }
            Action::Mouse => return Effect::Mouse,
            Action::Click(column, line) => self.click(column, line, cx),
            Action::Play
            | Action::Wind(_)
            | Action::WindShare(_)
            | Action::WindStart
            | Action::WindEnd
            | Action::WindTo => return self.wind(action, cx),
            Action::Type(_) | Action::Erase | Action::EraseAll => {}
        }
        Effect::Nothing
    }

    fn wind(&mut self, action: Action, cx: &Cx<'_>) -> Effect {
        if !self.recording {
            self.message = Some("this is live: only a recording can be wound (tcptrace top FILE)".to_owned());
            return Effect::Nothing;
        }
        match action {
            Action::Play => Effect::Play,
            Action::Wind(by) => Effect::Wind(by),
            Action::WindShare(by) => Effect::WindShare(by),
            Action::WindStart => Effect::WindStart,
            Action::WindEnd => Effect::WindEnd,
            _ => {
                let moment = self.selected(cx).and_then(|row| cx.scene.table(self.view).moment(row));
                match moment {
                    Some(moment) => Effect::WindTo(moment),
                    None => {
                        self.message = Some("this row has no moment to wind to".to_owned());
                        Effect::Nothing
                    }
                }
            }
        }
    }

    fn type_filter(&mut self, action: Action, find_netns: FindNetns<'_>) {
        let Some(mut text) = self.typing.take() else { return };
        match action {
            Action::Type(character) => text.push(character),
            Action::Erase => drop(text.pop()),
            Action::EraseAll => text.clear(),
            Action::Back => return,
            Action::Open => {
                match Filter::parse(&text, &self.codes, find_netns) {
                    Ok(filter) => {
                        self.filter = filter;
                        return;
                    }
                    // What was typed stays, so that it can be mended.
                    Err(error) => self.message = Some(error),
                }
            }
            _ => {}
        }
        self.typing = Some(text);
    }

    fn show(&mut self, view: View) {
        self.view = view;
        self.overlay = Overlay::Nothing;
        self.scroll = 0;
    }

    fn toggle(&mut self, overlay: Overlay) {
        if self.overlay == overlay {
            self.back();
        } else {
            self.below = match self.overlay {
                Overlay::Detail(key) => Overlay::Detail(key),
                _ => Overlay::Nothing,
            };
            self.overlay = overlay;
            self.scroll = 0;
        }
    }

    fn back(&mut self) {
        self.overlay = match self.overlay {
            Overlay::Detail(_) | Overlay::Nothing => Overlay::Nothing,
            _ => std::mem::take(&mut self.below),
        };
        self.scroll = 0;
    }

    fn go(&mut self, by: isize, cx: &Cx<'_>) {
        if self.overlay != Overlay::Nothing {
            let (shown, all) = self.geometry.text;
            self.scroll = self.scroll.saturating_add_signed(by).min(all.saturating_sub(shown));
            return;
        }
        let table = cx.scene.table(self.view);
        let rows = self.rows(cx);
        let cursor = self.cursor(table, &rows).saturating_add_signed(by).min(rows.len().saturating_sub(1));
        self.point_to(cursor, table, &rows);
    }

    fn point_to(&mut self, cursor: usize, table: &dyn Table, rows: &[usize]) {
        let key = rows.get(cursor).and_then(|row| table.key(*row));
        let top = self.top(cursor, rows.len(), usize::from(self.geometry.rows.1));
        if let Some(place) = self.place_mut() {
            (place.row, place.index, place.top) = (key, cursor, top);
        }
    }

    /// The row that the cursor is on, or that is open.
    pub(crate) fn selected(&self, cx: &Cx<'_>) -> Option<usize> {
        let table = cx.scene.table(self.view);
        if let Overlay::Detail(key) = self.overlay {
            return (0..table.len()).find(|row| table.key(*row) == Some(key));
        }
        let rows = self.rows(cx);
        rows.get(self.cursor(table, &rows)).copied()
    }

    fn open(&mut self, cx: &Cx<'_>) {
        if self.overlay != Overlay::Nothing {
            return;
        }
        let table = cx.scene.table(self.view);
        let rows = self.rows(cx);
        let cursor = self.cursor(table, &rows);
        self.point_to(cursor, table, &rows);
        if let Some(key) = rows.get(cursor).and_then(|row| table.key(*row)) {
            self.overlay = Overlay::Detail(key);
            self.scroll = 0;
        }
    }

    fn sort_by_next(&mut self, cx: &Cx<'_>) {
        let layout = cx.scene.table(self.view).layout();
        let now = self.sort();
        let from = now.map_or(0, |(column, _)| column + 1);
        let next = layout.iter().enumerate().skip(from).find(|(_, column)| column.is_sorted_by);
        let sort = next.map(|(column, _)| (column, false));
        self.message = Some(match next {
            Some((_, column)) => format!("sorted by {}", column.title),
            None => "sorted as at the start".to_owned(),
        });
        if let Some(place) = self.place_mut() {
            place.sort = sort;
        }
    }

    fn reverse(&mut self, cx: &Cx<'_>) {
        if self.sort().is_none() {
            self.sort_by_next(cx);
        }
        if let Some(place) = self.place_mut()
            && let Some((_, back)) = &mut place.sort
        {
            *back = !*back;
        }
        self.message = Some("sorted the other way round".to_owned());
    }

    fn copy(&mut self, cx: &Cx<'_>) -> Effect {
        let table = cx.scene.table(self.view);
        let Some(row) = self.selected(cx) else {
            self.message = Some("there is no row to copy from".to_owned());
            return Effect::Nothing;
        };
        let commands = table.commands(row);
        let key = table.key(row);
        let next = match self.copied {
            Some((of, last)) if Some(of) == key && last + 1 < commands.len() => last + 1,
            _ => 0,
        };
        match (commands.get(next), key) {
            (Some(command), Some(key)) => {
                self.copied = Some((key, next));
                self.message = Some(format!("copied {} of {}: {command}", next + 1, commands.len()));
                Effect::Copy(command.clone())
            }
            _ => {
                self.message = Some(match self.view {
                    View::Findings => "this finding has no command: what to do is said in words".to_owned(),
                    _ => "commands are with the findings (1)".to_owned(),
                });
                Effect::Nothing
            }
        }
    }

    fn explain(&mut self, cx: &Cx<'_>) {
        let story = self.selected(cx).and_then(|row| match self.view {
            View::Findings => cx.scene.findings.get(row),
            _ => None,
        });
        match story {
            Some(story) => self.toggle(Overlay::Page(story.latest.code)),
            None if matches!(self.overlay, Overlay::Page(_)) => self.back(),
            None => self.message = Some("pages are of findings (1)".to_owned()),
        }
    }

    fn click(&mut self, column: u16, line: u16, cx: &Cx<'_>) {
        let (tabs, spans) = &self.geometry.tabs;
        if line == *tabs {
            let hit = spans.iter().position(|(from, to)| (*from..*to).contains(&column));
            if let Some(view) = hit.and_then(|index| View::ALL.get(index)) {
                self.show(*view);
            }
            return;
        }
        let (first, count) = self.geometry.rows;
        if self.overlay != Overlay::Nothing || line < first || line >= first + count {
            return;
        }
        let table = cx.scene.table(self.view);
        let rows = self.rows(cx);
        let cursor = self.cursor(table, &rows);
        let top = self.top(cursor, rows.len(), usize::from(count));
        let clicked = top + usize::from(line - first);
        if clicked >= rows.len() {
            return;
        }
        // A second click on the same row opens it.
        if clicked == cursor {
            self.open(cx);
        } else {
            self.point_to(clicked, table, &rows);
        }
    }
}
