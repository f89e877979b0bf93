//! Series as text: OpenMetrics by `prometheus-client`, and from it the older Prometheus format, for whoever does not ask for the other.
//!
//! The crate has no native histograms in text (no text format has them): accept waits are classic histograms, whose counts are exact.

use std::fmt::{self, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeLabelValue, LabelValueEncoder, MetricEncoder, NoLabelSet,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use crate::output::escape;

use super::super::Status;
use super::Snapshot;
use super::listeners::{BOUNDS, ListenerLabels, ListenerRow};
use super::table::NetnsLabel;

/// A label's value, made harmless: names of processes and containers are whatever somebody chose to write there, and the crate
/// writes them as they are.
struct Value<'a>(&'a str);

impl EncodeLabelValue for Value<'_> {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), fmt::Error> {
        for character in escape(self.0).chars() {
            match character {
                '\\' => encoder.write_str("\\\\")?,
                '"' => encoder.write_str("\\\"")?,
                // `escape` has left none; the format would break at one.
                '\n' => encoder.write_str("\\n")?,
                _ => encoder.write_char(character)?,
            }
        }
        Ok(())
    }
}

type Label<'a> = (&'static str, Value<'a>);

/// One number of a family: with which labels, and how many.
type Sample<'a, N> = (Vec<Label<'a>>, N);

struct Writer<'a>(DescriptorEncoder<'a>);

impl Writer<'_> {
    fn family<N>(
        &mut self,
        (name, help): (&str, &str),
        kind: MetricType,
        samples: Vec<Sample<'_, N>>,
        put: impl Fn(&mut MetricEncoder<'_>, N) -> fmt::Result,
    ) -> fmt::Result {
        if samples.is_empty() {
            return Ok(());
        }
        let mut metric = self.0.encode_descriptor(name, help, None, kind)?;
        for (labels, number) in samples {
            if labels.is_empty() {
                put(&mut metric, number)?;
            } else {
                put(&mut metric.encode_family(&labels)?, number)?;
            }
        }
        Ok(())
    }

    fn counter(&mut self, about: (&str, &str), samples: Vec<Sample<'_, u64>>) -> fmt::Result {
        self.family(about, MetricType::Counter, samples, |metric, number| {
            metric.encode_counter::<NoLabelSet, _, f64>(&number, None)
        })
    }

    fn counter_f64(&mut self, about: (&str, &str), samples: Vec<Sample<'_, f64>>) -> fmt::Result {
        self.family(about, MetricType::Counter, samples, |metric, number| {
            metric.encode_counter::<NoLabelSet, _, f64>(&number, None)
        })
    }

    fn gauge(&mut self, about: (&str, &str), samples: Vec<Sample<'_, u64>>) -> fmt::Result {
        self.family(about, MetricType::Gauge, samples, |metric, number| {
            metric.encode_gauge(&i64::try_from(number).unwrap_or(i64::MAX))
        })
    }

    fn gauge_f64(&mut self, about: (&str, &str), samples: Vec<Sample<'_, f64>>) -> fmt::Result {
        self.family(about, MetricType::Gauge, samples, |metric, number| metric.encode_gauge(&number))
    }
}

#[derive(Debug)]
struct Page {
    snapshot: Snapshot,
    status: Arc<Status>,
}

impl Collector for Page {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let mut to = Writer(encoder);
        self.listeners(&mut to)?;
        self.ports(&mut to)?;
        self.connects(&mut to)?;
        self.findings(&mut to)?;
        self.trace(&mut to)?;
        self.recording(&mut to)?;
        self.cost(&mut to)
    }
}

fn of_listener(labels: &ListenerLabels) -> Vec<Label<'_>> {
    vec![
        ("address", Value(&labels.address)),
        ("port", Value(&labels.port)),
        ("process", Value(&labels.process)),
        ("container", Value(&labels.container)),
        ("netns", Value(&labels.netns)),
    ]
}

fn of_netns(label: &NetnsLabel) -> Vec<Label<'_>> {
    vec![("netns", Value(&label.0))]
}

fn of_code(counts: &[(&'static str, u64)]) -> Vec<Sample<'static, u64>> {
    counts.iter().map(|(code, count)| (vec![("code", Value(code))], *count)).collect()
}

fn one<N>(number: N) -> Vec<Sample<'static, N>> {
    vec![(Vec::new(), number)]
}

impl Page {
    /// A number of each listener that has one, or several told apart by more labels.
    fn each<'a, N>(
        &'a self,
        of: impl Fn(&'a ListenerRow) -> Vec<(Vec<Label<'static>>, Option<N>)>,
    ) -> Vec<Sample<'a, N>> {
        let mut samples = Vec::new();
        for (labels, row) in &self.snapshot.listeners {
            for (more, number) in of(row) {
                let Some(number) = number else { continue };
                let mut labels = of_listener(labels);
                labels.extend(more);
                samples.push((labels, number));
            }
        }
        samples
    }

    fn listeners(&self, to: &mut Writer<'_>) -> fmt::Result {
        let only = |number| vec![(Vec::new(), number)];
        let more = |name: &'static str, value: &'static str| (name, Value(value));
        to.gauge(
            ("tcptrace_listener_sockets", "Sockets that listen with these labels"),
            self.each(|row| only(Some(row.sockets))),
        )?;
        to.gauge(
            ("tcptrace_listener_queue_depth", "Connections that wait in the accept queue"),
            self.each(|row| only(Some(row.depth))),
        )?;
        to.gauge(
            (
                "tcptrace_listener_queue_limit",
                "Limit of the accept queue, which holds one more than that; of several sockets the sum",
            ),
            self.each(|row| only(row.limit)),
        )?;
        to.gauge(
            ("tcptrace_listener_queue_depth_max", "Most connections seen waiting since the agent started"),
            self.each(|row| only(Some(row.depth_max))),
        )?;
        to.gauge(
            ("tcptrace_listener_half_open", "Requests in the SYN queue when last seen"),
            self.each(|row| only(row.half_open)),
        )?;
        to.counter(
            ("tcptrace_listener_arrivals", "SYNs that reached the listener, those sent again included"),
            self.each(|row| only(row.totals.syns)),
        )?;
        to.counter(
            ("tcptrace_listener_queued", "Connections put into the accept queue"),
            self.each(|row| only(row.totals.enqueued)),
        )?;
        to.counter(
            ("tcptrace_listener_accepts", "Connections taken from the accept queue"),
            self.each(|row| only(row.totals.accepted)),
        )?;
        to.counter(
            (
                "tcptrace_listener_drops",
                "Dropped packets of handshakes, by stage (syn, ack; unknown where it is deduced from a counter) and cause",
            ),
            self.each(|row| {
                let totals = &row.totals;
                let drop = |stage, cause, count: Option<u64>| {
                    (vec![more("stage", stage), more("cause", cause)], count)
                };
                let or = |count: Option<u64>, inferred: u64| {
                    if inferred > 0 { Some(count.unwrap_or(0) + inferred) } else { count }
                };
                vec![
                    drop("syn", "accept-queue", totals.syn_drops_accept_queue),
                    drop("ack", "accept-queue", totals.ack_drops_accept_queue),
                    drop("unknown", "accept-queue", or(None, row.inferred)),
                    drop("syn", "syn-queue", or(totals.syn_drops_syn_queue, row.inferred_syns.0)),
                    drop("syn", "max-syn-backlog", or(totals.syn_drops_max_syn_backlog, row.inferred_syns.1)),
                    drop("syn", "no-route", totals.syn_drops_no_route),
                    drop("ack", "other", totals.ack_drops_other),
                ]
            }),
        )?;
        to.counter(
            ("tcptrace_listener_cookies", "SYN cookies: sent, come back valid or invalid, made a connection"),
            self.each(|row| {
                let totals = &row.totals;
                let cookie = |kind, count| (vec![more("kind", kind)], count);
                let sent = match row.inferred_syns.2 {
                    0 => totals.cookies_sent,
                    inferred => Some(totals.cookies_sent.unwrap_or(0) + inferred),
                };
                vec![
                    cookie("sent", sent),
                    cookie("valid", totals.cookies_valid),
                    cookie("invalid", totals.cookies_invalid),
                    cookie("accepted", totals.cookies_accepted),
                ]
            }),
        )?;
        to.counter(
            ("tcptrace_listener_synack_retransmits", "SYN-ACKs sent again"),
            self.each(|row| {
                let totals = &row.totals;
                let again = |reason, count| (vec![more("reason", reason)], count);
                vec![
                    again("timer", totals.retransmits_timer),
                    again("duplicate-syn", totals.retransmits_duplicate_syn),
                    again("unknown", totals.retransmits_unknown),
                ]
            }),
        )?;
        to.counter(
            ("tcptrace_listener_requests_ended", "Half-open requests that did not become connections"),
            self.each(|row| {
                let totals = &row.totals;
                let end = |how, count| (vec![more("how", how)], count);
                vec![
                    end("expired", totals.expired),
                    end("reset-by-peer", totals.resets),
                    end("aborted", totals.aborts),
                    end("icmp", totals.icmp_ends),
                ]
            }),
        )?;
        let waits =
            self.each(|row| vec![(Vec::new(), row.waits.map(|buckets| (buckets, row.totals.wait_total_ns)))]);
        to.family(
            ("tcptrace_listener_accept_wait_seconds", "How long connections waited in the accept queue"),
            MetricType::Histogram,
            waits,
            |metric, (buckets, total)| {
                let bounds = BOUNDS.iter().map(|bits| seconds(1 << bits)).chain([f64::MAX]);
                let counts: Vec<(f64, u64)> = bounds.zip(buckets).collect();
                let sum = seconds(total.unwrap_or(0));
                metric.encode_histogram::<NoLabelSet>(sum, buckets.iter().sum(), &counts, None)
            },
        )
    }

    fn ports(&self, to: &mut Writer<'_>) -> fmt::Result {
        let users = |of: fn(&super::PortRow) -> u64| {
            let rows = self.snapshot.users.iter();
            rows.map(|(labels, row)| {
                let labels = vec![
                    ("process", Value(&labels.process)),
                    ("container", Value(&labels.container)),
                    ("netns", Value(&labels.netns)),
                ];
                (labels, of(row))
            })
            .collect()
        };
        to.gauge(
            ("tcptrace_ports_held", "Ephemeral ports taken since the agent started and not given back"),
            users(|row| row.held),
        )?;
        to.counter(("tcptrace_ports_taken", "Ephemeral ports taken"), users(|row| row.taken))?;
        to.counter(
            ("tcptrace_ports_refused", "connect() calls that found no ephemeral port"),
            users(|row| row.refused),
        )?;
        let ranges = |of: fn(&super::RangeRow) -> Option<u64>| {
            let rows = self.snapshot.ranges.iter();
            rows.filter_map(|(label, row)| Some((of_netns(label), of(row)?))).collect()
        };
        to.gauge(
            ("tcptrace_port_range_ports", "Ephemeral ports of the namespace that are not reserved"),
            ranges(|row| row.capacity),
        )?;
        to.gauge(
            (
                "tcptrace_port_range_in_use",
                "Of these: in use; told for a minute after each look, which is made when ports run short",
            ),
            ranges(|row| row.in_use),
        )?;
        to.gauge(
            (
                "tcptrace_port_range_held",
                "Of these: taken since the agent started and not given back, so at least as many are in use",
            ),
            ranges(|row| Some(row.held)),
        )?;
        to.gauge(
            ("tcptrace_port_range_exhausted", "1 while sockets find no ephemeral port"),
            ranges(|row| Some(u64::from(row.exhausted))),
        )?;
        let left = self.snapshot.ranges.iter();
        let left = left.filter_map(|(label, row)| Some((of_netns(label), row.seconds_left?))).collect();
        to.gauge_f64(
            (
                "tcptrace_port_range_seconds_left",
                "Until no ephemeral port is left, if processes go on as in the last minute; absent if they do not only grow",
            ),
            left,
        )
    }

    fn connects(&self, to: &mut Writer<'_>) -> fmt::Result {
        let rows = || self.snapshot.connects.iter();
        to.counter(
            ("tcptrace_connects_dialled", "Connects that had a port of the kernel's choice"),
            rows().map(|(label, row)| (of_netns(label), row.dialled)).collect(),
        )?;
        to.counter(
            ("tcptrace_connect_syn_retransmits", "SYNs of this host's connects that were sent again"),
            rows().map(|(label, row)| (of_netns(label), row.totals.syns_again)).collect(),
        )?;
        let mut samples = Vec::new();
        for (label, row) in rows() {
            let totals = &row.totals;
            for (result, count) in [
                ("answered-late", totals.established),
                ("refused", totals.refused),
                ("unreachable", totals.unreachable),
                ("timed-out", totals.timed_out),
                ("cancelled", totals.cancelled),
                ("error", totals.errors),
            ] {
                let mut labels = of_netns(label);
                labels.push(("result", Value(result)));
                samples.push((labels, count));
            }
        }
        to.counter(
            ("tcptrace_connects_troubled", "Connects that were not simply answered, by what became of them"),
            samples,
        )
    }

    fn findings(&self, to: &mut Writer<'_>) -> fmt::Result {
        let snapshot = &self.snapshot;
        to.counter(("tcptrace_findings", "Findings that were opened"), of_code(&snapshot.findings))?;
        let open = snapshot.findings_open.iter();
        let open = open.map(|((code, severity), count)| {
            (vec![("code", Value(code)), ("severity", Value(severity))], *count)
        });
        to.gauge(("tcptrace_findings_open", "Findings that are open"), open.collect())?;
        to.counter(
            ("tcptrace_findings_untold", "Findings that were not told because too many were open"),
            of_code(&snapshot.untold),
        )
    }

    fn trace(&self, to: &mut Writer<'_>) -> fmt::Result {
        let snapshot = &self.snapshot;
        let info = vec![
            ("version", Value(env!("CARGO_PKG_VERSION"))),
            ("kernel", Value(&snapshot.kernel)),
            ("tier", Value(snapshot.tier)),
        ];
        to.gauge(("tcptrace_info", "This agent, its kernel and the tier of its probes"), vec![(info, 1)])?;
        let observations = snapshot.observations.iter();
        let observations = observations
            .map(|(name, status)| (vec![("observation", Value(name)), ("status", Value(status))], 1));
        to.gauge(
            ("tcptrace_observation", "What is observed: attached (each case), polled (by counters), missing"),
            observations.collect(),
        )?;
        let events = snapshot.events.iter();
        to.counter(
            ("tcptrace_events", "Events that the kernel side reported"),
            events.map(|(kind, count)| (vec![("kind", Value(kind))], *count)).collect(),
        )?;
        let lost = snapshot.lost.iter();
        let lost =
            lost.map(|(what, place, count)| (vec![("what", Value(what)), ("place", Value(place))], *count));
        to.counter(("tcptrace_lost", "What the tracer itself lost"), lost.collect())?;
        let forgotten = snapshot.forgotten.iter();
        to.counter(
            ("tcptrace_forgotten", "What was forgotten because a table was full"),
            forgotten.map(|(table, count)| (vec![("table", Value(table))], *count)).collect(),
        )?;
        let rows = snapshot.reconciliation.iter();
        to.gauge(
            (
                "tcptrace_kernel_counters",
                "The kernel's own counters beside ours: exact, partial, mismatch, unobserved",
            ),
            rows.map(|(status, count)| (vec![("status", Value(status))], *count)).collect(),
        )?;
        let overflow = snapshot.overflow.iter();
        to.counter(
            ("tcptrace_series_overflow", "Things that share the series (other), because there were too many"),
            overflow.map(|(of, count)| (vec![("of", Value(of))], *count)).collect(),
        )
    }

    fn recording(&self, to: &mut Writer<'_>) -> fmt::Result {
        let status = &self.status;
        let read = |of: &AtomicU64| one(of.load(Ordering::Relaxed));
        to.gauge(
            ("tcptrace_recording", "1 while events are recorded, 0 while the disk does not take them"),
            one(u64::from(!status.is_failing())),
        )?;
        to.gauge(("tcptrace_ring_bytes", "Size of the ring"), read(&status.ring_bytes))?;
        to.gauge(("tcptrace_ring_parts", "Parts of the ring"), read(&status.ring_parts))?;
        to.gauge(("tcptrace_ring_seconds", "How far the ring reaches back"), read(&status.ring_seconds))?;
        to.counter(
            ("tcptrace_ring_parts_deleted", "Parts that were deleted to keep the ring within its bounds"),
            read(&status.ring_deleted),
        )?;
        to.gauge(("tcptrace_incidents", "Incidents that are kept"), read(&status.incidents))?;
        to.gauge(
            ("tcptrace_incidents_open", "Of these: how many go on, and get more parts"),
            read(&status.incidents_open),
        )?;
        to.gauge(("tcptrace_incident_bytes", "Size of all incidents"), read(&status.incident_bytes))?;
        to.counter(
            ("tcptrace_incidents_kept", "Incidents that this run of the agent began to keep"),
            read(&status.incidents_kept),
        )?;
        to.counter(
            ("tcptrace_incidents_deleted", "Incidents that were deleted to keep them within their bound"),
            read(&status.incidents_deleted),
        )?;
        to.counter(
            (
                "tcptrace_recording_failures",
                "How often recording had to pause because the disk did not take it",
            ),
            read(&status.record_failures),
        )?;
        to.counter(
            ("tcptrace_unrecorded_events", "Events that are in no recording for that"),
            read(&status.unrecorded),
        )?;
        to.counter(
            ("tcptrace_http_refused", "Clients that were turned away because there were too many at once"),
            read(&status.clients_refused),
        )?;
        to.counter(
            ("tcptrace_config_reloads", "How often the configuration was read again and taken over"),
            read(&status.reloads),
        )?;
        to.counter(
            ("tcptrace_config_reloads_refused", "How often it was not, because something in it is wrong"),
            read(&status.reloads_refused),
        )
    }

    fn cost(&self, to: &mut Writer<'_>) -> fmt::Result {
        let cost = &self.snapshot.cost;
        to.counter_f64(
            ("process_cpu_seconds", "Processor time of the agent"),
            one(cost.processor.as_secs_f64()),
        )?;
        to.gauge(
            ("process_resident_memory_bytes", "Memory of the agent"),
            cost.memory.map(one).unwrap_or_default(),
        )?;
        to.counter_f64(
            (
                "tcptrace_bpf_seconds",
                "Processor time of the agent's BPF programs, where the kernel measures it (--bpf-cost)",
            ),
            cost.programs.map(|(time, _)| one(time.as_secs_f64())).unwrap_or_default(),
        )?;
        to.counter(
            ("tcptrace_bpf_runs", "Runs of the agent's BPF programs, likewise"),
            cost.programs.map(|(_, runs)| one(runs)).unwrap_or_default(),
        )
    }
}

#[expect(clippy::cast_precision_loss, reason = "times of years are exact to a microsecond")]
fn seconds(nanos: u64) -> f64 {
    nanos as f64 / 1e9
}

/// OpenMetrics 1.0.
pub(crate) fn open_metrics(snapshot: Snapshot, status: &Arc<Status>) -> String {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Page { snapshot, status: Arc::clone(status) }));
    let mut text = String::new();
    // Writing to a String does not fail.
    let _ = encode(&mut text, &registry);
    text
}

/// The same in Prometheus' own text format (0.0.4), in which a counter's family is called as its samples are.
pub(crate) fn classic(open_metrics: &str) -> String {
    let mut text = String::with_capacity(open_metrics.len() + open_metrics.len() / 16);
    let mut help = None;
    for line in open_metrics.lines() {
        if let Some(about) = line.strip_prefix("# HELP ") {
            help = about.split_once(' ');
        } else if let Some(about) = line.strip_prefix("# TYPE ") {
            let (name, kind) = about.split_once(' ').unwrap_or((about, "untyped"));
            let suffix = if kind == "counter" { "_total" } else { "" };
            if let Some((_, help)) = help.take().filter(|(of, _)| *of == name) {
                let _ = writeln!(text, "# HELP {name}{suffix} {help}");
            }
            let _ = writeln!(text, "# TYPE {name}{suffix} {kind}");
        } else if !line.starts_with('#') {
            text.push_str(line);
            text.push('\n');
        }
    }
    text
}
