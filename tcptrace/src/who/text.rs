//! The answer for people.

use std::fmt::Write as _;
use std::io::Write;
use std::time::Duration;

use jiff::tz::TimeZone;

use super::holder::Since;
use super::{Answer, Belonging, Holder, Outlook, Place, Taken, Way};
use crate::command::{Inside, Standpoint};
use crate::event::{Family, SocketState, Timestamp};
use crate::finding::{ProcessName, at_device};
use crate::output::zone;
use crate::output::{Lines, Meaning, Written, escape};

/// So many sockets of a port are told one by one: a busy server has thousands of connections on its port.
const TOLD: usize = 20;

impl Answer {
    /// Writes the answer about `ports` as text.
    ///
    /// # Errors
    /// When it cannot be written; a reader that has gone is none.
    pub fn write_text(
        &self,
        ports: &[u16],
        now: Timestamp,
        zone: &TimeZone,
        out: &mut Lines<impl Write>,
    ) -> Written {
        let mut text = String::new();
        let scribe = Scribe { now, zone, standpoint: self.standpoint };
        let mut free = Vec::new();
        for &port in ports {
            let places: Vec<&Place> = self.places.iter().filter(|place| place.has(port)).collect();
            if places.is_empty() {
                free.push(port);
                continue;
            }
            for place in places {
                scribe.place(&mut text, port, place);
            }
            if let Some(own) = self.places.iter().find(|place| place.is_own && !place.has(port)) {
                let _ = writeln!(text, "port {port} in {}: nobody has it", name(own));
                scribe.outlook(&mut text, port, own);
            }
        }
        if let Some(own) = self.places.iter().find(|place| place.is_own) {
            scribe.nobody(&mut text, &free, own, self.places.len());
        }
        for gap in &self.gaps {
            let _ = writeln!(text, "not looked at: {}", escape(&gap.why));
        }
        for line in text.lines() {
            // What stands at the margin is a heading: a port and a place.
            let written =
                if line.starts_with(' ') { out.line(line)? } else { out.marked(Meaning::Label, line)? };
            if written.is_break() {
                return Ok(written);
            }
        }
        out.flush()
    }
}

struct Scribe<'a> {
    now: Timestamp,
    zone: &'a TimeZone,
    standpoint: Standpoint,
}

impl Scribe<'_> {
    /// One port in one namespace. Writing to a String does not fail.
    fn place(&self, text: &mut String, port: u16, place: &Place) {
        let holders: Vec<&Holder> =
            place.holders.iter().filter(|holder| holder.local.port() == port).collect();
        let (sockets, s) = (holders.len(), if holders.len() == 1 { "" } else { "s" });
        let _ = writeln!(text, "port {port} in {}: {sockets} socket{s}", name(place));
        for holder in holders.iter().take(TOLD) {
            self.holder(text, place, holder);
        }
        if let Some(rest) = holders.get(TOLD..).filter(|rest| !rest.is_empty()) {
            let mut states: Vec<(SocketState, usize)> = Vec::new();
            for holder in rest {
                match states.iter_mut().find(|(state, _)| *state == holder.state) {
                    Some((_, count)) => *count += 1,
                    None => states.push((holder.state, 1)),
                }
            }
            let states: Vec<String> =
                states.iter().map(|(state, count)| format!("{count} {state}")).collect();
            let _ = writeln!(text, "  and {} more (--json shows all): {}", rest.len(), states.join(", "));
        }
        self.outlook(text, port, place);
    }

    fn holder(&self, text: &mut String, place: &Place, holder: &Holder) {
        let device = place.device_name(holder);
        let local = at_device(holder.local, device.as_deref());
        let ends = match holder.remote {
            Some(remote) => format!("{local} -> {remote}"),
            None => local,
        };
        let family = match (holder.family, holder.local.is_ipv4()) {
            (Family::V6, true) => ", IPv6 socket",
            (Family::V6, false) if holder.v6only && holder.remote.is_none() => ", IPv6 only",
            _ => "",
        };
        let mptcp = if holder.mptcp { ", MPTCP" } else { "" };
        let _ = writeln!(text, "  {ends}  {}{family}{mptcp}  {}", holder.state, escape(&owner(holder)));
        if let Some(command) = holder.processes.first().and_then(|process| process.command.as_deref()) {
            let _ = writeln!(text, "      runs    {}", escape(command));
        }
        if let [_, others @ ..] = holder.processes.as_slice()
            && !others.is_empty()
        {
            let mut names: Vec<String> =
                others.iter().take(8).map(|process| format!("{}[{}]", process.comm, process.pid)).collect();
            if others.len() > names.len() {
                names.push(format!("{} more", others.len() - names.len()));
            }
            let _ = writeln!(text, "      shared  with {}", escape(&names.join(", ")));
        }
        if let Some(taken) = self.taken(holder) {
            let _ = writeln!(text, "      taken   {}", escape(&taken));
        }
        let mut facts = Vec::new();
        if let Some((depth, limit)) = holder.queue {
            // It is full when depth > limit, so it holds limit + 1.
            facts.push(format!("accept queue {depth} of {}", u64::from(limit) + 1));
        }
        if let Some(options) = holder.options {
            facts.push(format!("options: {options}"));
        }
        if let Some(device) = device {
            facts.push(format!("bound to {device} (SO_BINDTODEVICE): takes only what comes by it"));
        }
        if let Some(uid) = holder.uid {
            facts.push(format!("user {uid}"));
        }
        if !facts.is_empty() {
            let _ = writeln!(text, "      socket  {}", facts.join("; "));
        }
    }

    /// How and since when.
    fn taken(&self, holder: &Holder) -> Option<String> {
        let how = match holder.taken {
            Some(Taken::Bind) => Some("by bind() to this very port"),
            Some(Taken::BindAny) => Some("the kernel chose it (bind() or listen() without a port)"),
            Some(Taken::Connect) => Some("the kernel chose it for connect()"),
            Some(Taken::Accepted) => Some("with the connection, from its listener"),
            None => None,
        };
        let since = match holder.since(self.now) {
            Since::At(time) => {
                Some(format!("closed {} ago, at {}", ago(self.now.since(time)), self.clock(time)))
            }
            Since::NotBefore(time) => Some(format!(
                "not before {} ({} ago), when the process was started",
                self.clock(time),
                ago(self.now.since(time))
            )),
            Since::Unknown => None,
        };
        let parts: Vec<String> = how.map(str::to_owned).into_iter().chain(since).collect();
        (!parts.is_empty()).then(|| parts.join("; "))
    }

    /// What a bind would meet, and whether the kernel gives the port away.
    fn outlook(&self, text: &mut String, port: u16, place: &Place) {
        for pair in Way::ALL.chunks(2) {
            let [plain, reusing] = pair else { continue };
            let (without, with) = (Outlook::of(*plain, port, place), Outlook::of(*reusing, port, place));
            let address = plain.address(port);
            let line = match (&without, &with) {
                (Outlook::Succeeds, _) => "would succeed".to_owned(),
                (Outlook::Fails(holder) | Outlook::Depends(holder), Outlook::Succeeds) => {
                    format!("would fail without SO_REUSEADDR ({}), succeed with it", in_short(holder))
                }
                (_, Outlook::Depends(holder)) => format!(
                    "would fail without SO_REUSEADDR ({}); with it, that depends on whether the other socket has it as well, \
                     which cannot be read",
                    in_short(holder)
                ),
                (_, Outlook::Fails(holder)) => {
                    format!("would fail, SO_REUSEADDR or not: {}", in_short(holder))
                }
            };
            let _ = writeln!(text, "  bind {address:<15} {}", escape(&line));
        }
        let _ = writeln!(text, "  range {}", range(port, place, self.standpoint));
    }

    /// The ports that nobody has.
    fn nobody(&self, text: &mut String, free: &[u16], own: &Place, places: usize) {
        let everywhere = if places > 1 { format!(", nor in {} others", places - 1) } else { String::new() };
        match free {
            [] => {}
            [port] => {
                let _ = writeln!(text, "port {port}: nobody has it in {}{everywhere}", name(own));
                self.outlook(text, *port, own);
            }
            [first, .., last] => {
                let _ = writeln!(
                    text,
                    "{} ports between {first} and {last}: nobody has them in {}{everywhere}",
                    free.len(),
                    name(own)
                );
            }
        }
    }

    fn clock(&self, time: Timestamp) -> String {
        zone::moment_and_offset(self.zone, time)
    }
}

/// A namespace, as people call it.
fn name(place: &Place) -> String {
    match (&place.name, place.is_own) {
        (Some(name), _) => format!("network namespace {} ({})", escape(name), place.id),
        (None, true) => "this network namespace".to_owned(),
        (None, false) => format!("network namespace {}", place.id),
    }
}

fn owner(holder: &Holder) -> String {
    match holder.belongs {
        Belonging::Processes => {
            let name: ProcessName = holder.name();
            match &name.container {
                Some(container) => format!("{name} ({container})"),
                None => name.to_string(),
            }
        }
        Belonging::Hidden => "a process that cannot be seen".to_owned(),
        Belonging::NoProcess => {
            "no process has it open: the kernel's own, or io_uring's, or on its way from one process to another".to_owned()
        }
        Belonging::NotAccepted if holder.state == SocketState::SynRecv => {
            "half open, nobody's yet".to_owned()
        }
        Belonging::NotAccepted => "no process has it yet: not accepted".to_owned(),
        Belonging::Nobody => match (holder.state, holder.time_wait_left) {
            (SocketState::FinWait2, Some(left)) => format!(
                "no process any more; its peer has not closed: free in {} s (net.ipv4.tcp_fin_timeout)",
                left.as_millis().div_ceil(1000)
            ),
            (_, Some(left)) => {
                format!("no process any more; free in {} s", left.as_millis().div_ceil(1000))
            }
            (SocketState::FinWait1 | SocketState::LastAck | SocketState::Closing, None) => {
                "no process any more; its peer has not acknowledged the close (net.ipv4.tcp_orphan_retries)"
                    .to_owned()
            }
            (_, None) => "no process any more: it has been closed".to_owned(),
        },
    }
}

/// A clause: `nginx[812] listens at 0.0.0.0:80`, `10.0.0.1:80 is in time-wait`.
fn in_short(holder: &Holder) -> String {
    let who = match holder.belongs {
        Belonging::Processes => holder.name().to_string(),
        Belonging::NoProcess => "a socket that no process has open".to_owned(),
        Belonging::Hidden => "a process that cannot be seen".to_owned(),
        Belonging::Nobody | Belonging::NotAccepted => {
            return format!("{} is in {}", holder.local, holder.state);
        }
    };
    match holder.state {
        SocketState::Listen => format!("{who} listens at {}", holder.local),
        SocketState::Bound => format!("{who} has bound {}", holder.local),
        state => format!("{who} has {} in {state}", holder.local),
    }
}

fn range(port: u16, place: &Place, standpoint: Standpoint) -> String {
    let knobs = &place.knobs;
    let mut text = match knobs.ip_local_port_range {
        None => "the ephemeral range could not be read".to_owned(),
        Some(range) if !range.contains(port) => {
            format!("outside of the ephemeral range {}-{}: no client is given it", range.first, range.last)
        }
        Some(range) => {
            let within = format!("in the ephemeral range {}-{}", range.first, range.last);
            match &knobs.ip_local_reserved_ports {
                Some(reserved) if reserved.contains(port) => {
                    format!("{within}, but reserved: no client is given it")
                }
                Some(reserved) => {
                    let mut merged = reserved.clone();
                    merged.add_range(port, port);
                    // The setting is the namespace's own.
                    let member = place.holders.iter().flat_map(|holder| &holder.processes).next();
                    let inside = Inside {
                        netns: place.id,
                        pid: member.map(|process| process.pid),
                        name: place.name.as_deref(),
                    };
                    let setting = format!("sysctl -w net.ipv4.ip_local_reserved_ports={merged}");
                    let command = standpoint.inside(inside, &setting);
                    format!(
                        "{within} and not reserved: any client may be given it; to keep it for a server: {command}"
                    )
                }
                None => format!("{within}; what is reserved could not be read"),
            }
        }
    };
    if knobs.ip_unprivileged_port_start.is_some_and(|start| u32::from(port) < start) {
        text.push_str("; binding it takes CAP_NET_BIND_SERVICE");
    }
    text
}

fn ago(span: Duration) -> String {
    let seconds = span.as_secs();
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}
