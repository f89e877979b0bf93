//! Pictures: inline SVG in the page's own colours.

use std::fmt::Write as _;

use crate::event::Timestamp;
use crate::report::{Series, WAIT_BUCKETS, wait_bucket_start_ns};

use super::safe;

/// Size of the plot, without its margins.
const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 120.0;
/// Room for the numbers at the left, and the times below.
const LEFT: f64 = 56.0;
const BELOW: f64 = 18.0;
const ABOVE: f64 = 8.0;

/// A curve.
pub(super) struct Line<'a> {
    pub(super) name: &'a str,
    pub(super) series: &'a Series,
    /// Between two readings, the first holds; otherwise there is nothing between them.
    pub(super) holds: bool,
}

/// A plot with a scale from 0 to `top`, `bins` wide.
struct Plot<'a> {
    out: String,
    series: &'a Series,
    bins: usize,
    top: f64,
    height: f64,
}

impl<'a> Plot<'a> {
    fn new(series: &'a Series, bins: usize, top: f64, height: f64, label: &str) -> Self {
        let (width, whole) = (LEFT + WIDTH + 8.0, ABOVE + height + BELOW);
        let out = format!(
            "<svg viewBox=\"0 0 {width} {whole}\" role=\"img\" aria-label=\"{}\"><title>{}</title>",
            safe(label),
            safe(label)
        );
        Self { out, series, bins: bins.max(1), top: top.max(1.0), height }
    }

    #[expect(clippy::cast_precision_loss, reason = "a few hundred bins")]
    fn x(&self, bin: usize) -> f64 {
        LEFT + WIDTH * bin as f64 / self.bins as f64
    }

    fn y(&self, value: f64) -> f64 {
        ABOVE + self.height * (1.0 - (value / self.top).clamp(0.0, 1.0))
    }

    fn rule(&mut self, value: f64, class: &str, label: &str) {
        let y = self.y(value);
        let _ = write!(
            self.out,
            "<line class=\"{class}\" x1=\"{LEFT}\" x2=\"{:.1}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>\
             <text class=\"scale\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
            LEFT + WIDTH,
            LEFT - 6.0,
            y + 4.0,
            safe(label)
        );
    }

    fn times(&mut self, clock: impl Fn(Timestamp) -> String) {
        let y = ABOVE + self.height + BELOW - 4.0;
        let places = [(0, "start"), (self.bins / 2, "middle"), (self.bins, "end")];
        // Of one bin, the middle is the start.
        for (bin, anchor) in places.into_iter().filter(|(bin, anchor)| *anchor != "middle" || *bin > 0) {
            let (x, time) = (self.x(bin), clock(self.series.time_of(bin)));
            let _ = write!(
                self.out,
                "<text class=\"time\" text-anchor=\"{anchor}\" x=\"{x:.1}\" y=\"{y:.1}\">{}</text>",
                safe(&time)
            );
        }
    }

    fn finish(mut self) -> String {
        self.out.push_str("</svg>\n");
        self.out
    }
}

/// The accept queue against its limit, and what was dropped.
pub(super) fn queue_and_drops(series: &Series, limit: u32, clock: impl Fn(Timestamp) -> String) -> String {
    let deepest = series.bins.iter().filter_map(|bin| bin.queue).max().unwrap_or(0);
    let drops = series.bins.iter().map(|bin| bin.drops).max().unwrap_or(0);
    // A limit far above everything that happened would flatten the curve.
    let shown = limit <= deepest.saturating_mul(4).max(8);
    let top = f64::from(if shown { deepest.max(limit) } else { deepest.max(1) }) * 1.1;
    let label =
        format!("accept queue, at most {deepest} of {limit}; at most {drops} drops in {} s", series.width);
    let mut plot = Plot::new(series, series.bins.len(), top, HEIGHT, &label);
    plot.rule(0.0, "axis", "0");
    if shown {
        plot.rule(f64::from(limit), "limit", &format!("limit {limit}"));
    } else {
        plot.rule(f64::from(deepest), "grid", &deepest.to_string());
    }
    // Drops behind, on a scale of their own.
    for (index, bin) in series.bins.iter().enumerate().filter(|(_, bin)| bin.drops > 0) {
        #[expect(clippy::cast_precision_loss, reason = "a picture")]
        let share = bin.drops as f64 / drops.max(1) as f64;
        let (x, next, height) = (plot.x(index), plot.x(index + 1), HEIGHT * share);
        let text = format!("{}: {} drops", clock(series.time_of(index)), bin.drops);
        let _ = write!(
            plot.out,
            "<rect class=\"drops\" x=\"{x:.1}\" width=\"{:.1}\" y=\"{:.1}\" height=\"{height:.1}\"><title>{}</title></rect>",
            (next - x).max(1.0),
            ABOVE + HEIGHT - height,
            safe(&text)
        );
    }
    let mut path = String::new();
    for (index, bin) in series.bins.iter().enumerate() {
        let Some(queue) = bin.queue else { continue };
        let (x, next, y) = (plot.x(index), plot.x(index + 1), plot.y(f64::from(queue)));
        let step = if path.is_empty() { 'M' } else { 'L' };
        let _ = write!(path, "{step}{x:.1} {y:.1}H{next:.1}");
    }
    let _ = write!(plot.out, "<path class=\"queue\" d=\"{path}\"/>");
    plot.times(clock);
    plot.finish()
        + "<p class=\"legend\"><i class=\"queue\"></i> accept queue <i class=\"drops\"></i> drops</p>"
}

/// How long connections waited for accept(), over time; `None` if no wait is known.
pub(super) fn heat_map(series: &Series, clock: impl Fn(Timestamp) -> String) -> Option<String> {
    let most = series.bins.iter().flat_map(|bin| &bin.waits).max().copied().filter(|most| *most > 0)?;
    let used =
        |bucket: &usize| series.bins.iter().any(|bin| bin.waits.get(*bucket).is_some_and(|count| *count > 0));
    let lowest = (0..WAIT_BUCKETS).find(used)?;
    let highest = (0..WAIT_BUCKETS).rev().find(used)?;
    #[expect(clippy::cast_precision_loss, reason = "26 buckets")]
    let rows = (highest - lowest + 1) as f64;
    let mut plot = Plot::new(series, series.bins.len(), rows, 10.0 * rows, "accept waits over time");
    for bucket in lowest..=highest {
        #[expect(clippy::cast_precision_loss, reason = "26 buckets")]
        let level = (bucket - lowest) as f64;
        let y = plot.y(level + 1.0);
        let name = wait_in_words(wait_bucket_start_ns(bucket));
        if bucket == lowest || bucket == highest || (bucket - lowest) % 3 == 0 {
            let _ = write!(
                plot.out,
                "<text class=\"scale\" x=\"{:.1}\" y=\"{:.1}\">{name}</text>",
                LEFT - 6.0,
                y + 9.0
            );
        }
        for (index, bin) in series.bins.iter().enumerate() {
            let Some(count) = bin.waits.get(bucket).copied().filter(|count| *count > 0) else { continue };
            #[expect(clippy::cast_precision_loss, reason = "a colour")]
            let strength = 0.15 + 0.85 * (count as f64).ln_1p() / (most as f64).ln_1p();
            let (x, next) = (plot.x(index), plot.x(index + 1));
            let text = format!("{}: {count} waited {name} or longer", clock(series.time_of(index)));
            let _ = write!(
                plot.out,
                "<rect class=\"heat\" fill-opacity=\"{strength:.2}\" x=\"{x:.1}\" width=\"{:.1}\" y=\"{y:.1}\" height=\"10\"><title>{}</title></rect>",
                (next - x).max(1.0),
                safe(&text)
            );
        }
    }
    plot.times(clock);
    Some(plot.finish() + "<p class=\"legend\"><i class=\"heat\"></i> accept waits (stronger: more)</p>")
}

fn wait_in_words(ns: u64) -> String {
    match ns {
        0..1_000_000 => format!("{} µs", ns / 1000),
        1_000_000..1_000_000_000 => format!("{} ms", ns / 1_000_000),
        _ => format!("{} s", ns / 1_000_000_000),
    }
}

/// Several curves in one picture.
pub(super) fn lines(curves: &[Line<'_>], clock: impl Fn(Timestamp) -> String) -> String {
    let Some(first) = curves.first() else { return String::new() };
    let widest = curves.iter().map(|of| of.series.width).max().unwrap_or(1);
    // All on the time of the longest; each keeps its own bins.
    let seconds = |of: &Series| u64::try_from(of.bins.len()).unwrap_or(0) * of.width;
    let longest = curves.iter().map(|of| seconds(of.series)).max().unwrap_or(1);
    let bins = usize::try_from(longest.div_ceil(widest)).unwrap_or(1);
    let levels = curves.iter().flat_map(|of| &of.series.bins).filter_map(|bin| bin.level);
    #[expect(clippy::cast_precision_loss, reason = "a picture")]
    let top = levels.max().unwrap_or(1) as f64 * 1.1;
    let frame = Series { width: widest, ..Series::new(first.series.start) };
    let mut plot = Plot::new(&frame, bins, top, HEIGHT, "over time");
    plot.rule(0.0, "axis", "0");
    plot.rule(top / 1.1, "grid", &format!("{:.0}", top / 1.1));
    let mut legend = String::from("<p class=\"legend\">");
    for (number, curve) in curves.iter().enumerate() {
        let mut path = String::new();
        let mut held = None;
        for (index, bin) in curve.series.bins.iter().enumerate() {
            let level = if curve.holds { bin.level.or(held) } else { Some(bin.level.unwrap_or(0)) };
            held = level;
            let Some(level) = level else { continue };
            #[expect(clippy::cast_precision_loss, reason = "a picture")]
            let (share, y) = (curve.series.width as f64 / widest as f64, plot.y(level as f64));
            #[expect(clippy::cast_precision_loss, reason = "a few hundred bins")]
            let at = |index: usize| LEFT + WIDTH * index as f64 * share / plot.bins as f64;
            let step = if path.is_empty() { 'M' } else { 'L' };
            let _ = write!(path, "{step}{:.1} {y:.1}H{:.1}", at(index), at(index + 1));
        }
        let _ = write!(
            plot.out,
            "<path class=\"c{number}\" d=\"{path}\"><title>{}</title></path>",
            safe(curve.name)
        );
        let _ = write!(legend, "<i class=\"c{number}\"></i> {} ", safe(curve.name));
    }
    plot.times(clock);
    plot.finish() + &legend + "</p>"
}
