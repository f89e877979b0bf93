//! What `tcptrace ports` prints for people.

use std::io;

use super::Space;
use super::trend::in_words;
use crate::output::json::ProcessPortsLine;
use crate::output::{Lines, Meaning, escape, go_on, stdout_lines};
use crate::stock::Survey;

pub(super) fn text(survey: &Survey, spaces: &[Space<'_>], shown: usize) -> io::Result<()> {
    let mut out = stdout_lines();
    for space in spaces {
        let line = space.line();
        let own = if space.namespace.is_own { " (this one)" } else { "" };
        let heading = format!("network namespace {}{own}", escape(&space.namespace.to_string()));
        go_on(out.marked(Meaning::Label, &heading))?;
        let reserved = match line.reserved.as_deref() {
            Some([]) => "nothing reserved".to_owned(),
            Some(reserved) => {
                let ranges: Vec<String> = reserved.iter().map(ToString::to_string).collect();
                format!("reserved {}", ranges.join(","))
            }
            None => "what is reserved is not known".to_owned(),
        };
        out.say(format_args!("  {} ports: range {}, {reserved}", line.capacity, line.range))?;
        let percent = f64::from(line.in_use) * 100.0 / f64::from(line.capacity.max(1));
        out.say(format_args!("  {} in use ({percent:.1} %): {} by TIME_WAIT alone, {} by sockets that listen or are only bound; {} free",
            line.in_use, line.time_wait, line.blocked, line.free))?;
        let half = line.capacity.div_ceil(2);
        out.say(format_args!("  of about {half} each: {} in the half that connect() prefers, {} in the half of bind() to port 0",
            line.in_use_connect_half, line.in_use_bind_half))?;
        if let Some(trend) = &line.trend {
            out.say(format_args!("  all together: {}", in_words(trend)))?;
        }
        if !line.processes.is_empty() {
            go_on(out.marked(Meaning::Label, "  PORTS ESTAB CLOSE-WAIT BOUND TIME-WAIT PROCESS"))?;
        }
        for process in line.processes.iter().take(shown) {
            process_text(&mut out, process)?;
        }
        more(&mut out, line.processes.len(), shown)?;
        for of in line.containers.iter().take(shown) {
            let trend = of.trend.as_ref().map_or_else(String::new, |trend| format!(": {}", in_words(trend)));
            out.say(format_args!("  {:5} in {}{trend}", of.ports, escape(&of.container.to_string())))?;
        }
        if !line.destinations.is_empty() {
            go_on(out.marked(Meaning::Label, "   USED TIME-WAIT  FREE DESTINATION"))?;
        }
        for lane in line.destinations.iter().take(shown) {
            let owner = lane.process.as_ref().and_then(|of| Some((of.comm.as_ref()?, of.pid?)));
            let owner = owner.map_or_else(String::new, |(comm, pid)| {
                format!(", mostly {}", escape(&format!("{comm}[{pid}]")))
            });
            let growth = lane.growth_per_s.filter(|growth| *growth != 0.0);
            let growth = growth.map_or_else(String::new, |growth| format!(", {growth:+}/s"));
            out.say(format_args!(
                "  {:5} {:9} {:5} {} from {}{owner}{growth}",
                lane.used, lane.time_wait, lane.free, lane.remote, lane.source
            ))?;
        }
        more(&mut out, line.destinations.len(), shown)?;
        for risk in &line.risks {
            let title = escape(&risk.title);
            let text = format!("  risk {}: {title} (tcptrace check says what to do)", risk.code);
            go_on(out.marked(Meaning::Warning, &text))?;
        }
    }
    for gap in &survey.gaps {
        out.say(format_args!("not looked at: {}", escape(&gap.why)))?;
    }
    go_on(out.flush())
}

fn process_text(out: &mut Lines<impl io::Write>, process: &ProcessPortsLine) -> io::Result<()> {
    let name = match (&process.process.comm, process.process.pid) {
        (Some(comm), Some(pid)) => escape(&format!("{comm}[{pid}]")).into_owned(),
        _ => "no process (TIME_WAIT, closing)".to_owned(),
    };
    let to = process.most_to.map_or_else(String::new, |remote| format!(", mostly to {remote}"));
    out.say(format_args!(
        "  {:5} {:5} {:10} {:5} {:9} {name}{to}",
        process.ports, process.established, process.close_wait, process.bound, process.time_wait
    ))?;
    match &process.trend {
        Some(trend) => out.say(format_args!("        {}", in_words(trend))),
        None => Ok(()),
    }
}

fn more(out: &mut Lines<impl io::Write>, all: usize, shown: usize) -> io::Result<()> {
    if all > shown { out.say(format_args!("  … and {} more (--all)", all - shown)) } else { Ok(()) }
}
