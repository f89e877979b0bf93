//! A report as JSON lines: `recording`, then `verdict`, `listener`, `port-user`, `port-space`, `destination`, `network`, `port-holder`, `gap`,
//! `lost` lines, and a `summary`. Of several recordings first: `clock` and `stall` lines.

use serde::Serialize;
use serde_json::{Value, json};

use crate::output::json_text;
use crate::record::{Condition, Metadata};

use super::{Across, Report};

/// The lines for one recording, and for what is wrong with its files.
pub fn json(metadata: &Metadata, condition: &Condition, report: &Report) -> Vec<String> {
    let mut lines = vec![json_text(&json!({
        "type": "recording",
        "host": metadata.host,
        "kernel": metadata.kernel,
        "version": metadata.version,
        "command": metadata.command,
        "from": report.from.to_string(),
        "to": report.to.to_string(),
        "events": report.events,
        "complete": condition.is_complete(),
        "missing": condition.shortage(),
        "damage": condition.marks,
        "left_out": report.left_out.iter().map(|(name, count)| (*name, *count)).collect::<std::collections::BTreeMap<_, _>>(),
    }))];
    let host = metadata.host.as_str();
    let mut add = |kind: &str, value: Value| {
        let mut line = serde_json::Map::new();
        line.insert("type".to_owned(), kind.into());
        line.insert("host".to_owned(), host.into());
        match value {
            Value::Object(object) => line.extend(object),
            other => {
                line.insert("value".to_owned(), other);
            }
        }
        lines.push(json_text(&Value::Object(line)));
    };
    report.verdicts.iter().for_each(|of| add("verdict", value(of)));
    report.listeners.iter().for_each(|of| add("listener", value(of)));
    report.users.iter().for_each(|of| add("port-user", value(of)));
    report.port_spaces.iter().for_each(|of| add("port-space", value(of)));
    report.destinations.iter().for_each(|of| add("destination", value(of)));
    report.networks.iter().for_each(|of| add("network", value(of)));
    if let Some((question, holdings)) = &report.holdings {
        for holding in holdings {
            let mut line = value(holding);
            if let Value::Object(line) = &mut line {
                line.insert("port".to_owned(), question.port.into());
                line.insert("at".to_owned(), question.at.map(|(first, _)| first.to_string()).into());
            }
            add("port-holder", line);
        }
    }
    report.gaps.iter().for_each(|of| add("gap", value(of)));
    report.losses.iter().for_each(|of| add("lost", value(of)));
    let mut summary = value(&report.summary);
    if let Value::Object(summary) = &mut summary {
        summary.insert("complete".to_owned(), condition.is_complete().into());
    }
    add("summary", summary);
    lines
}

/// The lines for what several recordings say together: `clock` and `stall`.
pub fn across_json(across: &Across) -> Vec<String> {
    let line = |kind: &str, value: Value| {
        let mut line = json!({"type": kind});
        if let (Value::Object(line), Value::Object(more)) = (&mut line, value) {
            line.extend(more);
        }
        json_text(&line)
    };
    let clocks = across.clocks.iter().map(|of| line("clock", value(of)));
    clocks.chain(across.stalls.iter().map(|of| line("stall", value(of)))).collect()
}

fn value<T: Serialize>(of: &T) -> Value {
    serde_json::to_value(of).unwrap_or_default()
}
