//! What tracing may cost, and whether it does.

use super::contender::{Contender, FEW, MANY, Turn};
use super::measurement::Measurement;
use super::results::{Results, Spread};

/// A budget and what was measured.
pub(crate) struct Verdict {
    pub(crate) what: &'static str,
    pub(crate) limit: Limit,
    /// `None`: not measured, which is no way to meet it.
    pub(crate) measured: Option<Spread>,
}

/// The median's bound.
#[derive(Clone, Copy)]
pub(crate) enum Limit {
    AtMost(f64),
    AtLeast(f64),
}

impl Verdict {
    pub(crate) fn is_met(&self) -> bool {
        self.measured.is_some_and(|measured| match self.limit {
            Limit::AtMost(most) => measured.median <= most,
            Limit::AtLeast(least) => measured.median >= least,
        })
    }
}

/// Every budget, in the order of importance.
pub(crate) fn judge(results: &Results) -> Vec<Verdict> {
    let few = |contender| Turn { contender, listeners: FEW };
    let ours = few(Contender::Tcptrace);
    let many = Turn { contender: Contender::Tcptrace, listeners: MANY };
    let rate = |measurement: &Measurement| measurement.connections_per_s;
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    let rss = |measurement: &Measurement| {
        Some(measurement.tracer.as_ref()?.idle?.memory.rss_kib as f64 * 1024.0 / 1e6)
    };
    let verdict = |what, limit, measured| Verdict { what, limit, measured };
    vec![
        verdict(
            "default mode: BPF time per connection, of tcpconnlat's",
            Limit::AtMost(1.0),
            results.ratio(ours, few(Contender::Tcpconnlat), Measurement::bpf_ns),
        ),
        verdict(
            "default mode: connections per second, of those without a tracer",
            Limit::AtLeast(0.9),
            results.ratio(ours, few(Contender::Base), rate),
        ),
        verdict(
            "`--all`: BPF time per connection, of tcpstates'",
            Limit::AtMost(0.35),
            results.ratio(few(Contender::TcptraceAll), few(Contender::Tcpstates), Measurement::bpf_ns),
        ),
        verdict("idle: resident memory, MB", Limit::AtMost(32.0), results.spread(ours, rss)),
        verdict(
            "10,000 listeners: BPF time per connection, of that with 10",
            // Not more, within what two measurements of the same thing differ by.
            Limit::AtMost(1.15),
            results.ratio(many, ours, Measurement::bpf_ns),
        ),
    ]
}
