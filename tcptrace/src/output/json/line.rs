//! Every type of line there is.

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Serialize;

use super::check::RiskLine;
use super::finding::FindingLine;
use super::listeners::ListenerLine;
use super::ports::SpaceLine;
use super::probes::{ProbeLine, RecordLine};
use super::rehearsal::RehearsalLine;
use super::report::{
    ClockLine, ComparisonLine, DamageLine, DestinationLine, GapLine, ListenerReportLine, NetworkLine,
    PortHolderLine, PortSpaceLine, PortUserLine, RecordingLine, StallLine,
};
use super::row::RowLine;
use super::trace::{CoverageLine, EventOutput, LostLine, SummaryLine};
use super::who::{HolderLine, PortLine};
use super::why::WhyLine;

/// Of a type of line: its name, which commands print it, and its schema.
pub(super) struct LineType {
    pub(super) name: &'static str,
    pub(super) commands: &'static str,
    pub(super) schema: fn(&mut SchemaGenerator) -> Schema,
}

macro_rules! lines {
    ($($variant:ident($content:ty) $name:literal by $commands:literal,)*) => {
        /// What can be printed as JSON.
        #[derive(Debug, Serialize)]
        #[serde(untagged)]
        #[expect(missing_docs, reason = "each content says what it is")]
        pub enum Line {
            $($variant(Box<$content>),)*
        }

        impl Line {
            /// Its `type`.
            pub fn kind(&self) -> &'static str {
                match self {
                    $(Self::$variant(_) => $name,)*
                }
            }

            /// Every type there is.
            pub(super) const TYPES: &[LineType] = &[
                $(LineType { name: $name, commands: $commands, schema: <$content>::json_schema },)*
            ];
        }

        $(impl From<$content> for Line {
            fn from(content: $content) -> Self {
                Self::$variant(Box::new(content))
            }
        })*
    };
}

lines! {
    Coverage(CoverageLine) "coverage" by "watch, replay, rehearse, probes, listeners --for",
    Finding(FindingLine) "finding" by "watch, replay, rehearse, report, listeners --for",
    Event(EventOutput) "event" by "watch, replay, rehearse with --events or --all",
    Lost(LostLine) "lost" by "watch, replay, rehearse, report",
    Summary(SummaryLine) "summary" by "all but compare, the last line; of report one for each recording",
    Why(WhyLine) "why" by "why",
    Holder(HolderLine) "holder" by "who",
    Port(PortLine) "port" by "who",
    Listener(ListenerLine) "listener" by "listeners",
    Ports(SpaceLine) "ports" by "ports",
    Risk(RiskLine) "risk" by "check",
    Probe(ProbeLine) "probe" by "probes",
    Record(RecordLine) "record" by "probes --self-test",
    Rehearsal(RehearsalLine) "rehearsal" by "rehearse",
    Recording(RecordingLine) "recording" by "report",
    ListenerReport(ListenerReportLine) "listener-report" by "report",
    PortUser(PortUserLine) "port-user" by "report",
    PortSpace(PortSpaceLine) "port-space" by "report",
    Destination(DestinationLine) "destination" by "report",
    Network(NetworkLine) "network" by "report",
    PortHolder(PortHolderLine) "port-holder" by "report --port",
    Gap(GapLine) "gap" by "report",
    Clock(ClockLine) "clock" by "report of several recordings",
    Stall(StallLine) "stall" by "report of several recordings",
    Row(RowLine) "row" by "export --format jsonl",
    Damage(DamageLine) "damage" by "replay",
    Comparison(ComparisonLine) "comparison" by "compare",
}
