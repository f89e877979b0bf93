//! Pictures: one quantity each, on an axis of its own, as wide as the page.
//!
//! A plot is an SVG that is a bin wide for each bin and stretched to the page's width; labels are HTML beside it, so that they keep
//! their shape. Its values stand in `data-values`, from which the script tells what is under the pointer; a drag zooms all pictures
//! of the page to the same time. Without the script they are pictures all the same.

use std::fmt::Write as _;

use maud::{Markup, html as markup};

use crate::event::Timestamp;
use crate::finding::Severity;
use crate::report::when::When;
use crate::report::{Series, WAIT_BUCKETS, wait_bucket_start_ns};

/// How high a plot is, in its own units.
const HEIGHT: f64 = 100.0;
/// So many findings are marked.
const MARKS: usize = 40;

/// A curve.
pub(super) struct Line<'a> {
    pub(super) name: &'a str,
    pub(super) series: &'a Series,
    /// Between two readings, the first holds; otherwise there is nothing between them.
    pub(super) holds: bool,
}

/// A finding's place on the time axis.
pub(super) struct Mark {
    pub(super) time: Timestamp,
    pub(super) severity: Severity,
    pub(super) text: String,
}

/// The findings on the time axis, and where that ends: all charts of a report show the same time.
pub(super) struct Marks {
    end: Timestamp,
    marks: Vec<Mark>,
}

impl Marks {
    /// The first of them, if there are very many.
    pub(super) fn new(end: Timestamp, marks: impl Iterator<Item = Mark>) -> Self {
        Self { end, marks: marks.take(MARKS).collect() }
    }
}

/// Where the time axis begins, and how wide a bin is.
#[derive(Clone, Copy)]
struct Axis {
    start: Timestamp,
    /// Seconds.
    width: u64,
    bins: usize,
}

impl Axis {
    /// With so many bins, or as many as there are until `end`.
    fn new(start: Timestamp, width: u64, bins: usize, end: Timestamp) -> Self {
        let until_end = end.since(start).as_millis().div_ceil(u128::from(width.max(1)) * 1_000);
        Self { start, width, bins: bins.max(usize::try_from(until_end).unwrap_or(0)).max(1) }
    }

    /// Bins from the start, with fractions.
    #[expect(clippy::cast_precision_loss, reason = "a picture")]
    fn place(&self, time: Timestamp) -> f64 {
        (time.since(self.start).as_secs_f64() / self.width.max(1) as f64).min(self.bins as f64)
    }

    fn time_of(&self, bin: usize) -> Timestamp {
        let seconds = u64::try_from(bin).unwrap_or(u64::MAX).saturating_mul(self.width);
        self.start.after(std::time::Duration::from_secs(seconds))
    }
}

/// A quantity over time.
struct Plot<'a> {
    /// `accept queue`.
    name: &'a str,
    /// `connections`, `per second`.
    unit: &'a str,
    axis: Axis,
    /// What the upper edge stands for.
    top: f64,
    /// What the page's script shows under the pointer.
    values: Vec<Option<f64>>,
    /// A line across, with its words.
    limit: Option<(f64, String)>,
    curves: Vec<Curve>,
}

struct Curve {
    class: String,
    path: String,
    title: Option<String>,
}

fn y(value: f64, top: f64) -> f64 {
    HEIGHT * (1.0 - (value / top).clamp(0.0, 1.0))
}

impl Plot<'_> {
    fn draw(&self, marks: &Marks) -> Markup {
        let highest = self.values.iter().flatten().copied().fold(0.0, f64::max);
        let label = match &self.limit {
            Some((_, limit)) => format!("{}, at most {} {}, {limit}", self.name, short(highest), self.unit),
            None => format!("{}, at most {} {}", self.name, short(highest), self.unit),
        };
        let values: Vec<String> = self.values.iter().map(|of| of.map_or_else(String::new, short)).collect();
        let within = |mark: &&Mark| mark.time >= self.axis.start;
        markup! {
            div.plot {
                div.scale {
                    span.top { (short(self.top)) }
                    span.name { (self.name) br; (self.unit) @if let Some((_, limit)) = &self.limit { br; span.limit { (limit) } } }
                    span { "0" }
                }
                svg viewBox={ "0 0 " (self.axis.bins) " " (HEIGHT) } preserveAspectRatio="none" role="img"
                    aria-label=(label) data-name=(self.name) data-unit=(self.unit) data-values=(values.join(",")) {
                    title { (label) }
                    @for curve in &self.curves {
                        path class=(curve.class) d=(curve.path) { @if let Some(title) = &curve.title { title { (title) } } }
                    }
                    @if let Some((limit, _)) = &self.limit {
                        line.limit x1="0" x2=(self.axis.bins) y1=(decimal(y(*limit, self.top))) y2=(decimal(y(*limit, self.top))) {}
                    }
                    @for mark in marks.marks.iter().filter(within) {
                        @let x = decimal(self.axis.place(mark.time));
                        line class={ "mark " (mark.severity.name()) } x1=(x) x2=(x) y1="0" y2=(HEIGHT) { title { (mark.text) } }
                    }
                }
            }
        }
    }
}

/// Plots on one time axis.
fn frame(axis: Axis, when: When<'_>, plots: &Markup) -> Markup {
    let start = axis.start.nanos() / 1_000_000;
    let end = axis.time_of(axis.bins);
    markup! {
        div.chart data-start=(start) data-bin=(axis.width) data-bins=(axis.bins) {
            (plots)
            div.times {
                span { (when.second(axis.start)) }
                span.middle { @if axis.bins > 1 { (when.second(axis.time_of(axis.bins / 2))) } }
                span { (when.second(end)) }
            }
            output {}
        }
    }
}

/// A listener: its accept queue against its limit, what was dropped, what was accepted, half-open requests, and how long connections
/// waited; each only if there was any.
pub(super) fn listener(series: &Series, limit: u32, when: When<'_>, marks: &Marks) -> Markup {
    let axis = Axis::new(series.start, series.width, series.bins.len(), marks.end);
    let mut plots = vec![queue(series, axis, limit)];
    #[expect(clippy::cast_precision_loss, reason = "a picture")]
    let per_second = |count: u64| count as f64 / series.width.max(1) as f64;
    for (name, class, values) in [
        ("dropped", "drops", series.bins.iter().map(|bin| Some(per_second(bin.drops))).collect::<Vec<_>>()),
        ("accepted", "accepted", series.bins.iter().map(|bin| Some(per_second(bin.accepted))).collect()),
    ] {
        plots.extend(bars(name, "per second", class, axis, values));
    }
    let half_open = series.bins.iter().map(|bin| bin.syn_queue.map(f64::from)).collect();
    plots.extend(bars("half-open", "requests", "half-open", axis, half_open));
    let drawn = markup! {
        @for plot in &plots { (plot.draw(marks)) }
        @if let Some(map) = heat_map(series, axis, when) { (map) }
    };
    frame(axis, when, &drawn)
}

fn queue(series: &Series, axis: Axis, limit: u32) -> Plot<'static> {
    let deepest = series.bins.iter().filter_map(|bin| bin.queue).max().unwrap_or(0);
    // A limit far above everything that happened would flatten the curve.
    let shown = limit <= deepest.saturating_mul(4).max(8);
    let top = f64::from(if shown { deepest.max(limit) } else { deepest.max(1) }) * 1.1;
    let values: Vec<Option<f64>> = series.bins.iter().map(|bin| bin.queue.map(f64::from)).collect();
    Plot {
        name: "accept queue",
        unit: "connections",
        axis,
        top,
        limit: shown.then(|| (f64::from(limit), format!("limit {limit}"))),
        curves: vec![Curve { class: "queue".to_owned(), path: steps(&values, top, 1.0), title: None }],
        values,
    }
}

/// Bars from the bottom; none if all are zero.
fn bars<'a>(
    name: &'a str,
    unit: &'a str,
    class: &str,
    axis: Axis,
    values: Vec<Option<f64>>,
) -> Option<Plot<'a>> {
    let highest = values.iter().flatten().copied().fold(0.0, f64::max);
    if highest <= 0.0 {
        return None;
    }
    let top = highest * 1.1;
    let mut path = String::new();
    for (bin, value) in values.iter().enumerate() {
        if let Some(value) = value.filter(|value| *value > 0.0) {
            let _ = write!(path, "M{bin} {HEIGHT}V{}h1V{HEIGHT}z", decimal(y(value, top)));
        }
    }
    let curves = vec![Curve { class: class.to_owned(), path, title: None }];
    Some(Plot { name, unit, axis, top, values, limit: None, curves })
}

/// A curve of steps, each bin `width` wide; where nothing is known there is a gap.
fn steps(values: &[Option<f64>], top: f64, width: f64) -> String {
    let mut path = String::new();
    let mut drawing = false;
    for (bin, value) in values.iter().enumerate() {
        let Some(value) = value else {
            drawing = false;
            continue;
        };
        #[expect(clippy::cast_precision_loss, reason = "a few hundred bins")]
        let (from, to) = (bin as f64 * width, (bin + 1) as f64 * width);
        let step = if drawing { 'L' } else { 'M' };
        let _ = write!(path, "{step}{} {}H{}", decimal(from), decimal(y(*value, top)), decimal(to));
        drawing = true;
    }
    path
}

/// How long connections waited for accept(), over time; `None` if no wait is known.
fn heat_map(series: &Series, axis: Axis, when: When<'_>) -> Option<Markup> {
    let most = series.bins.iter().flat_map(|bin| &bin.waits).max().copied().filter(|most| *most > 0)?;
    let used =
        |bucket: &usize| series.bins.iter().any(|bin| bin.waits.get(*bucket).is_some_and(|count| *count > 0));
    let lowest = (0..WAIT_BUCKETS).find(used)?;
    let highest = (0..WAIT_BUCKETS).rev().find(used)?;
    let rows = highest - lowest + 1;
    let words = |bucket| wait_in_words(wait_bucket_start_ns(bucket));
    let mut cells: Vec<(usize, usize, String, String)> = Vec::new();
    for (index, bin) in series.bins.iter().enumerate() {
        for bucket in lowest..=highest {
            let Some(count) = bin.waits.get(bucket).copied().filter(|count| *count > 0) else { continue };
            #[expect(clippy::cast_precision_loss, reason = "a colour")]
            let strength = 0.15 + 0.85 * (count as f64).ln_1p() / (most as f64).ln_1p();
            let text =
                format!("{}: {count} waited {} or longer", when.second(axis.time_of(index)), words(bucket));
            cells.push((index, highest - bucket, format!("{strength:.2}"), text));
        }
    }
    let label = format!("accept waits over time, from {} to {}", words(lowest), words(highest));
    Some(markup! {
        div.plot.waits {
            div.scale {
                span.top { (words(highest)) }
                span.name { "accept wait" br; "stronger: more" }
                span { (words(lowest)) }
            }
            svg viewBox={ "0 0 " (axis.bins) " " (rows) } preserveAspectRatio="none" role="img" aria-label=(label) {
                title { (label) }
                @for (x, y, strength, text) in &cells {
                    rect.heat fill-opacity=(strength) x=(x) y=(y) width="1" height="1" { title { (text) } }
                }
            }
        }
    })
}

fn wait_in_words(ns: u64) -> String {
    match ns {
        0..1_000_000 => format!("{} µs", ns / 1000),
        1_000_000..1_000_000_000 => format!("{} ms", ns / 1_000_000),
        _ => format!("{} s", ns / 1_000_000_000),
    }
}

/// Several curves of one quantity in one picture.
pub(super) fn lines(name: &str, unit: &str, curves: &[Line<'_>], when: When<'_>, marks: &Marks) -> Markup {
    let Some(first) = curves.first() else { return Markup::default() };
    let widest = curves.iter().map(|of| of.series.width).max().unwrap_or(1).max(1);
    // All on the time of the longest; each keeps its own bins.
    let seconds = |of: &Series| u64::try_from(of.bins.len()).unwrap_or(0) * of.width;
    let longest = curves.iter().map(|of| seconds(of.series)).max().unwrap_or(1);
    let bins = usize::try_from(longest.div_ceil(widest)).unwrap_or(1).max(1);
    let axis = Axis::new(first.series.start, widest, bins, marks.end);
    let levels: Vec<Vec<Option<f64>>> = curves.iter().map(levels).collect();
    let highest = levels.iter().flatten().flatten().copied().fold(1.0, f64::max);
    let top = highest * 1.1;
    let drawn = curves.iter().zip(&levels).enumerate().map(|(number, (curve, levels))| {
        #[expect(clippy::cast_precision_loss, reason = "a picture")]
        let width = curve.series.width as f64 / widest as f64;
        Curve {
            class: format!("c{number}"),
            path: steps(levels, top, width),
            title: Some(curve.name.to_owned()),
        }
    });
    // Under the pointer: the sum of what is drawn.
    let sum = |bin: usize| {
        let of = |(curve, levels): (&Line<'_>, &Vec<Option<f64>>)| {
            let narrow = usize::try_from(widest / curve.series.width.max(1)).unwrap_or(1).max(1);
            levels.get(bin * narrow).copied().flatten()
        };
        curves.iter().zip(&levels).filter_map(of).reduce(|a, b| a + b)
    };
    let plot = Plot {
        name,
        unit,
        axis,
        top,
        values: (0..bins).map(sum).collect(),
        limit: None,
        curves: drawn.collect(),
    };
    markup! {
        figure {
            figcaption {
                (name) ":"
                @for (number, curve) in curves.iter().enumerate() { " " span.key { i class={ "c" (number) } {} " " (curve.name) } }
            }
            (frame(axis, when, &plot.draw(marks)))
        }
    }
}

fn levels(curve: &Line<'_>) -> Vec<Option<f64>> {
    let mut held = None;
    let level = |bin: &crate::report::Bin| {
        held = if curve.holds { bin.level.or(held) } else { Some(bin.level.unwrap_or(0)) };
        #[expect(clippy::cast_precision_loss, reason = "a picture")]
        held.map(|level: u64| level as f64)
    };
    curve.series.bins.iter().map(level).collect()
}

/// Two digits behind the point at most.
fn decimal(value: f64) -> String {
    let text = format!("{value:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// For people: digits that say something.
fn short(value: f64) -> String {
    if value >= 100.0 { format!("{value:.0}") } else { decimal(value) }
}
