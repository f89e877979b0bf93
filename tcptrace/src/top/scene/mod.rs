//! What the model knew at one moment, as rows: complete in itself, so that it can be held while the model goes on.

mod connections;
mod connects;
mod findings;
mod half_open;
mod header;
mod listeners;
mod ports;

pub use header::{Header, Mode, OwnCost};

use std::cmp::Ordering;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use jiff::tz::TimeZone;

use crate::correlate::{Correlator, DestinationKey, ListenerId};
use crate::event::Timestamp;
use crate::finding::words;
use crate::output::{Meaning, Row as Line};

use super::desk::View;
use super::filter::Filter;
use super::format::{or_dash, short_count, short_rate, short_span};
use super::journal::Story;
use super::model::Model;
use super::timeline::{ConnectionKey, Timeline};

pub(crate) use connects::ConnectRow;
pub(crate) use half_open::HalfOpenRow;
pub(crate) use listeners::ListenerRow;
pub(crate) use ports::PortRow;

/// How times are told.
#[derive(Clone, Debug)]
pub struct Clock {
    /// The time zone of the reader.
    pub zone: TimeZone,
    /// The moment of the scene.
    pub now: Timestamp,
}

/// All rows of one moment.
#[derive(Default)]
pub struct Scene {
    /// What is said above all views.
    pub header: Header,
    /// The moment.
    pub(crate) now: Timestamp,
    /// The network namespace that need not be named.
    pub(crate) home: Option<u32>,
    pub(crate) findings: Vec<Rc<Story>>,
    pub(crate) listeners: Vec<ListenerRow>,
    pub(crate) ports: Vec<PortRow>,
    pub(crate) connects: Vec<ConnectRow>,
    pub(crate) half_open: Vec<HalfOpenRow>,
    pub(crate) connections: Vec<Rc<Timeline>>,
}

impl Scene {
    /// Everything, as the model knows it now.
    #[must_use]
    pub fn of(model: &Model, header: Header) -> Self {
        let world = model.world();
        let standpoint = world.standpoint();
        Self {
            now: header.now.unwrap_or_else(|| model.now()),
            home: standpoint.host.or(standpoint.own),
            header,
            findings: model.journal.stories().cloned().collect(),
            listeners: listeners::rows(model),
            ports: ports::rows(model),
            connects: connects::rows(world),
            half_open: half_open::rows(world),
            connections: model.timelines.iter().cloned().collect(),
        }
    }

    /// How times of this scene are told.
    #[must_use]
    pub fn clock(&self, zone: &TimeZone) -> Clock {
        Clock { zone: zone.clone(), now: self.now }
    }

    /// The rows of a view.
    pub(crate) fn table(&self, view: View) -> &dyn Table {
        match view {
            View::Findings => &self.findings,
            View::Listeners => &self.listeners,
            View::Ports => &self.ports,
            View::Connects => &self.connects,
            View::HalfOpen => &self.half_open,
            View::Connections => &self.connections,
        }
    }
}

/// Names a row for as long as the thing that it shows is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RowKey {
    Finding(u64),
    Listener(ListenerId),
    PortRange(u32),
    PortUser(u32, u32),
    PortDestination(u32, IpAddr, SocketAddr),
    Destination(DestinationKey),
    Network(ListenerId, IpAddr, u8),
    Connection(ConnectionKey),
}

/// One value of a row.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Cell {
    Text(String, Option<Meaning>),
    /// A part of a whole.
    Bar {
        part: u64,
        whole: u64,
        meaning: Option<Meaning>,
    },
    /// A course of values, the latest last, whose top is `whole`, or the highest of them.
    Spark {
        values: Vec<u32>,
        whole: Option<u32>,
    },
}

impl Cell {
    pub(crate) fn plain(text: impl Into<String>) -> Self {
        Self::Text(text.into(), None)
    }

    pub(crate) fn meaning(text: impl Into<String>, meaning: Meaning) -> Self {
        Self::Text(text.into(), Some(meaning))
    }

    pub(crate) fn count(count: u64) -> Self {
        Self::plain(short_count(count))
    }

    /// Marked if it is more than nothing.
    pub(crate) fn bad_count(count: u64) -> Self {
        Self::Text(short_count(count), (count > 0).then_some(Meaning::Warning))
    }

    pub(crate) fn known_count(count: Option<u64>) -> Self {
        Self::plain(or_dash(count, short_count))
    }

    pub(crate) fn known_bad_count(count: Option<u64>) -> Self {
        count.map_or_else(|| Self::known_count(None), Self::bad_count)
    }

    pub(crate) fn rate(per_second: Option<f64>) -> Self {
        Self::plain(or_dash(per_second, short_rate))
    }

    pub(crate) fn span(span: Option<Duration>) -> Self {
        Self::plain(or_dash(span, short_span))
    }
}

/// A column of a view.
pub(crate) struct Column<R: 'static> {
    pub(crate) title: &'static str,
    /// Cells that it needs.
    pub(crate) width: u16,
    /// Its share of what is left of the width.
    pub(crate) grow: u16,
    /// Whether it is set flush right, as numbers are.
    pub(crate) right: bool,
    /// In a narrow terminal the columns with the highest rank are left out first; 0 stays.
    pub(crate) rank: u8,
    pub(crate) cell: fn(&R, &Cx<'_>) -> Cell,
    /// The order in which `s` puts the rows: what hurts most comes first. Columns without it are not sorted by.
    pub(crate) order: Option<fn(&R, &R) -> Ordering>,
}

/// A column of numbers, the greatest first when it is sorted by: its title, width and rank, the number, and the cell for it.
macro_rules! number {
    ($title:literal, $width:literal, $rank:literal, |$row:ident| $value:expr, $cell:path) => {
        Column {
            title: $title,
            width: $width,
            grow: 0,
            right: true,
            rank: $rank,
            cell: |$row, _| $cell($value),
            order: Some(|one, other| {
                let of = |$row: &Self| $value;
                most(&of(one), &of(other))
            }),
        }
    };
}
use number;

/// What rows need to show themselves.
pub(crate) struct Cx<'a> {
    pub(crate) scene: &'a Scene,
    /// For names that only the model has.
    pub(crate) world: &'a Correlator,
    pub(crate) clock: &'a Clock,
}

impl Cx<'_> {
    /// `blue (4026532943)`, where that is not the host's own.
    pub(crate) fn netns(&self, netns: u32) -> String {
        let elsewhere = self.elsewhere(netns);
        elsewhere.strip_prefix(" netns ").unwrap_or("host").to_owned()
    }

    /// ` netns blue (4026532943)`, where that is not the host's own.
    pub(crate) fn elsewhere(&self, netns: u32) -> String {
        match self.scene.home {
            Some(home) if home == netns => String::new(),
            _ if netns == 0 => String::new(),
            _ => format!(" {}", words::netns(netns, self.world.netns_name(netns))),
        }
    }
}

/// A row of a view.
pub(crate) trait Row: Sized + 'static {
    const COLUMNS: &'static [Column<Self>];
    fn key(&self) -> RowKey;
    fn is_wanted(&self, filter: &Filter) -> bool;
    /// All there is to say of it, wrapped at `width`.
    fn detail(&self, cx: &Cx<'_>, width: usize) -> Vec<Line>;
    /// A heading of the detail.
    fn title(&self, cx: &Cx<'_>) -> String;
    /// What can be copied.
    fn commands(&self) -> Vec<String> {
        Vec::new()
    }
    /// When it began, where a recording can be wound to.
    fn moment(&self) -> Option<Timestamp> {
        None
    }
    /// The order without a choice.
    fn natural(&self, _other: &Self) -> Ordering {
        Ordering::Equal
    }
    /// What a view without rows says.
    fn nothing() -> &'static str;
}

/// How a column is laid out.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Layout {
    pub(crate) title: &'static str,
    pub(crate) width: u16,
    pub(crate) grow: u16,
    pub(crate) right: bool,
    pub(crate) rank: u8,
    pub(crate) is_sorted_by: bool,
}

/// Rows of any kind.
pub(crate) trait Table {
    fn len(&self) -> usize;
    fn layout(&self) -> Vec<Layout>;
    fn key(&self, row: usize) -> Option<RowKey>;
    fn cell(&self, row: usize, column: usize, cx: &Cx<'_>) -> Cell;
    fn detail(&self, row: usize, cx: &Cx<'_>, width: usize) -> Vec<Line>;
    fn title(&self, row: usize, cx: &Cx<'_>) -> String;
    fn commands(&self, row: usize) -> Vec<String>;
    fn moment(&self, row: usize) -> Option<Timestamp>;
    fn nothing(&self) -> &'static str;
    /// The rows that the filter wants, in the order of a column (the other way round if so asked), or in their own.
    fn arranged(&self, filter: &Filter, sort: Option<(usize, bool)>, cx: &Cx<'_>) -> Vec<usize>;
}

impl<R: Row> Table for Vec<R> {
    fn len(&self) -> usize {
        Vec::len(self)
    }

    fn layout(&self) -> Vec<Layout> {
        R::COLUMNS
            .iter()
            .map(|column| Layout {
                title: column.title,
                width: column.width,
                grow: column.grow,
                right: column.right,
                rank: column.rank,
                is_sorted_by: column.order.is_some(),
            })
            .collect()
    }

    fn key(&self, row: usize) -> Option<RowKey> {
        self.get(row).map(Row::key)
    }

    fn cell(&self, row: usize, column: usize, cx: &Cx<'_>) -> Cell {
        match (self.get(row), R::COLUMNS.get(column)) {
            (Some(row), Some(column)) => (column.cell)(row, cx),
            _ => Cell::plain(""),
        }
    }

    fn detail(&self, row: usize, cx: &Cx<'_>, width: usize) -> Vec<Line> {
        self.get(row).map(|row| row.detail(cx, width)).unwrap_or_default()
    }

    fn title(&self, row: usize, cx: &Cx<'_>) -> String {
        self.get(row).map(|row| row.title(cx)).unwrap_or_default()
    }

    fn commands(&self, row: usize) -> Vec<String> {
        self.get(row).map(Row::commands).unwrap_or_default()
    }

    fn moment(&self, row: usize) -> Option<Timestamp> {
        self.get(row).and_then(Row::moment)
    }

    fn nothing(&self) -> &'static str {
        R::nothing()
    }

    fn arranged(&self, filter: &Filter, sort: Option<(usize, bool)>, cx: &Cx<'_>) -> Vec<usize> {
        let shown = |row: &R| -> String {
            let cells = R::COLUMNS.iter().map(|column| (column.cell)(row, cx));
            let texts = cells.filter_map(|cell| match cell {
                Cell::Text(text, _) => Some(text),
                _ => None,
            });
            texts.collect::<Vec<_>>().join(" ")
        };
        let wanted =
            |row: &R| row.is_wanted(filter) && (!filter.looks_for_words() || filter.finds(&shown(row)));
        let mut kept: Vec<(usize, &R)> = self.iter().enumerate().filter(|(_, row)| wanted(row)).collect();
        kept.sort_by(|(_, one), (_, other)| one.natural(other));
        let column = sort.and_then(|(column, back)| Some((R::COLUMNS.get(column)?.order?, back)));
        if let Some((order, back)) = column {
            kept.sort_by(|(_, one), (_, other)| {
                let order = order(one, other);
                if back { order.reverse() } else { order }
            });
        }
        kept.into_iter().map(|(index, _)| index).collect()
    }
}

/// The greater first; what is not known last.
pub(crate) fn most<T: PartialOrd>(one: &T, other: &T) -> Ordering {
    other.partial_cmp(one).unwrap_or(Ordering::Equal)
}

/// Names and values below a heading.
pub(crate) fn facts(label: &str, texts: Vec<String>, width: usize) -> Vec<Line> {
    crate::output::labelled(label, texts, width)
}
