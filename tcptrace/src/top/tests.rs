//! Screens of recordings, as a person would see them: drawn into memory, and compared with what was looked at.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use jiff::tz::TimeZone;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::buffer::Buffer;
use ratatui::crossterm::event::{Event as Input, KeyCode, KeyEvent, KeyModifiers};

use super::action::{Action, action_of};
use super::desk::{Effect, Overlay};
use super::scene::Cx;
use super::*;
use crate::event::{
    Coverage, Endpoints, Event, Family, Kind, Listen, ListenerRef, ListenerSample, ListenerTotals,
    Observation, ObservationStatus, ProcessInfo, SampleSource, SocketOptions, SynDrop, SynDropCause, Task,
    Tier, Timestamp,
};
use crate::finding::Engine;
use crate::output::is_harmful;
use crate::record;

const SIZES: [(u16, u16); 3] = [(80, 24), (120, 40), (200, 60)];

const PLAIN: Palette = Palette { theme: Theme::Mono, ascii: false };

/// A person in front of a recording.
struct Seat {
    player: Player,
    desk: Desk,
    scene: Scene,
    terminal: Terminal<TestBackend>,
    name: String,
    copied: Vec<String>,
}

impl Seat {
    fn at(recording: &str, (width, height): (u16, u16)) -> Self {
        let path = recordings().join(recording);
        let player = Player::new(Box::new(move || record::open_one(std::slice::from_ref(&path)))).unwrap();
        let codes = Engine::default().codes().collect();
        let mut seat = Self {
            player,
            desk: Desk::new(PLAIN, true, Filter::default(), codes),
            scene: Scene::default(),
            terminal: Terminal::new(TestBackend::new(width, height)).unwrap(),
            name: recording.to_owned(),
            copied: Vec::new(),
        };
        seat.settle();
        seat
    }

    fn settle(&mut self) {
        while !self.player.advance(Duration::from_secs(60)).unwrap() {}
        let metadata = self.player.metadata();
        let mut header = Header {
            host: metadata.host.clone(),
            kernel: metadata.kernel.clone(),
            file: self.name.clone(),
            ..Header::default()
        };
        header.fill(self.player.model());
        header.now = Some(self.player.at());
        header.begun = self.player.span().0;
        header.mode = Mode::Recording {
            name: self.name.clone(),
            span: self.player.span(),
            marks: self.player.marks().to_vec(),
            playing: false,
            winding: false,
            shortage: self.player.condition().shortage(),
        };
        self.scene = Scene::of(self.player.model(), header);
    }

    /// Presses keys: `2`, `Enter`, `/`, words to type.
    fn press(&mut self, keys: &str) {
        for key in keys.split_whitespace() {
            let codes: Vec<KeyCode> = match key {
                "Enter" => vec![KeyCode::Enter],
                "Esc" => vec![KeyCode::Esc],
                "Down" => vec![KeyCode::Down],
                "PgDn" => vec![KeyCode::PageDown],
                typed => typed.chars().map(KeyCode::Char).collect(),
            };
            for code in codes {
                let input = Input::Key(KeyEvent::new(code, KeyModifiers::NONE));
                let action = action_of(&input, self.desk.is_typing()).unwrap();
                self.act(action);
            }
        }
    }

    fn act(&mut self, action: Action) {
        // Geometry is that of the last frame.
        self.draw();
        let clock = self.scene.clock(&TimeZone::UTC);
        let cx = Cx { scene: &self.scene, world: self.player.model().world(), clock: &clock };
        match self.desk.apply(action, &cx, &|name| name.parse().map_err(|_| "no".to_owned())) {
            Effect::WindTo(moment) => self.player.wind(moment.after(Duration::from_millis(1))).unwrap(),
            Effect::Wind(by) if by < 0 => {
                self.player.wind(self.player.at().before(Duration::from_millis(by.unsigned_abs()))).unwrap();
            }
            Effect::Wind(by) => {
                self.player.wind(self.player.at().after(Duration::from_millis(by.unsigned_abs()))).unwrap();
            }
            Effect::WindStart => self.player.wind(self.player.span().0).unwrap(),
            Effect::Copy(command) => self.copied.push(command),
            _ => {}
        }
        self.settle();
    }

    fn draw(&mut self) -> String {
        let (scene, desk, world) = (&self.scene, &self.desk, self.player.model().world());
        let mut geometry = None;
        self.terminal.draw(|frame| geometry = Some(draw(frame, scene, desk, world, &TimeZone::UTC))).unwrap();
        self.desk.drawn(geometry.unwrap());
        shown(self.terminal.backend().buffer())
    }
}

fn recordings() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recordings")
}

/// The text of a frame, without blanks at the ends of lines.
fn shown(buffer: &Buffer) -> String {
    let mut text = String::new();
    for y in 0..buffer.area.height {
        let mut line = String::new();
        let mut skip = 0;
        for x in 0..buffer.area.width {
            let symbol = buffer[(x, y)].symbol();
            // The second cell of a wide character is empty.
            if skip > 0 {
                skip -= 1;
                continue;
            }
            skip = crate::output::cells(symbol).saturating_sub(1);
            line.push_str(symbol);
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// What is looked at: a name, a recording that has something of it, and the keys that lead there.
const SCREENS: [(&str, &str, &str); 15] = [
    ("findings", "accept-overflow.arrows", ""),
    ("finding", "accept-overflow.arrows", "Enter"),
    ("page", "accept-overflow.arrows", "e"),
    ("findings-port-grab", "port-grab.arrows", ""),
    ("findings-at-its-moment", "accept-overflow.arrows", "t"),
    ("listeners", "accept-overflow.arrows", "2"),
    ("listener", "accept-overflow.arrows", "2 Enter"),
    ("ports", "port-exhaustion.arrows", "3"),
    ("port-range", "port-exhaustion.arrows", "3 Enter"),
    ("connects", "accept-overflow.arrows", "4"),
    ("half-open", "backlog-capture-fexit.arrows", "5"),
    ("connections", "accept-overflow.arrows", "6"),
    ("connection", "accept-overflow.arrows", "6 Enter"),
    ("coverage", "accept-overflow.arrows", "c"),
    ("keys", "accept-overflow.arrows", "?"),
];

/// `TCPTRACE_BLESS=1 cargo test -p tcptrace --lib top::` takes over what is drawn now: look at the difference.
#[test]
fn every_view_looks_as_before_at_every_size() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/top");
    let bless = std::env::var_os("TCPTRACE_BLESS").is_some();
    let mut changed = Vec::new();
    for (name, recording, keys) in SCREENS {
        let mut all = format!("{recording}, keys: {keys}\n");
        for (width, height) in SIZES {
            let mut seat = Seat::at(recording, (width, height));
            seat.press(keys);
            let _ = writeln!(all, "--- {width}x{height}\n{}", seat.draw());
        }
        let golden = directory.join(format!("{name}.txt"));
        if bless {
            fs::create_dir_all(&directory).unwrap();
            fs::write(&golden, &all).unwrap();
        }
        if fs::read_to_string(&golden).unwrap_or_default() != all {
            changed.push(name);
        }
    }
    assert!(
        changed.is_empty(),
        "they look otherwise: {changed:?}. If that is meant: TCPTRACE_BLESS=1 cargo test -p tcptrace --lib top::"
    );
}

/// The tour's pictures are screens of the tool: `<!-- screen NAME RECORDING WIDTHxHEIGHT KEYS -->`, the screen in a block below, and
/// as a picture in `docs/tour/NAME.svg`. `cargo xtask tour` makes both, and checks the colours as well.
#[test]
fn the_tour_shows_what_the_tool_draws() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs");
    let tour = fs::read_to_string(docs.join("tour.md")).unwrap();
    let mut pictures = 0;
    let mut old = Vec::new();
    for part in tour.split("<!-- screen ").skip(1) {
        let (order, rest) = part.split_once(" -->").unwrap();
        let mut words = order.splitn(4, ' ');
        let (name, recording) = (words.next().unwrap(), words.next().unwrap());
        let (width, height) = words.next().and_then(|size| size.split_once('x')).unwrap();
        let mut seat = Seat::at(recording, (width.parse().unwrap(), height.parse().unwrap()));
        seat.press(words.next().unwrap_or_default());
        let drawn = seat.draw();
        let (_, block) = rest.split_once("```text\n").unwrap();
        let (block, _) = block.split_once("```").unwrap();
        let picture = fs::read_to_string(docs.join(format!("tour/{name}.svg"))).unwrap_or_default();
        if block != drawn || text_of_picture(&picture) != without_blank_lines(&drawn) {
            old.push(name);
        }
        pictures += 1;
    }
    assert!(pictures >= 5, "{pictures}");
    assert!(
        old.is_empty(),
        "docs/tour.md shows other screens: {old:?}; run cargo xtask tour, and look at them"
    );
}

fn without_blank_lines(screen: &str) -> Vec<String> {
    screen.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect()
}

/// The lines of text of an SVG picture.
fn text_of_picture(svg: &str) -> Vec<String> {
    let line = |line: &str| {
        // What is between the tags.
        let pieces = line.split('<').filter_map(|piece| piece.split_once('>')).map(|(_, text)| text);
        let text: String = pieces.collect();
        let text = [("&lt;", "<"), ("&gt;", ">"), ("&amp;", "&")]
            .iter()
            .fold(text, |text, (coded, plain)| text.replace(coded, plain));
        text.trim_end().to_owned()
    };
    svg.lines().filter(|line| line.starts_with("<text ")).map(line).collect()
}

/// From the first screen, without a key: which setting of which process limits.
#[test]
fn the_first_screen_says_which_setting_of_which_process_limits() {
    for (recording, who, setting) in [
        ("accept-overflow.arrows", "tt-proxy[", "listen(fd, 20)"),
        ("port-grab.arrows", "tt-server[", "ip_local_reserved_ports"),
        ("syn-queue-full-fexit.arrows", "tt-", "backlog"),
        ("accept-failed.arrows", "tt-", "open files"),
    ] {
        let screen = Seat::at(recording, (80, 24)).draw();
        assert!(screen.contains(who) && screen.contains(setting), "{recording}:\n{screen}");
    }
}

#[test]
fn whatever_size_a_terminal_has_and_whatever_is_open_it_is_drawn() {
    let mut seat = Seat::at("accept-overflow.arrows", (80, 24));
    for keys in ["1", "2", "3", "4", "5", "6", "Enter", "Esc", "1 Enter", "e", "c", "?"] {
        seat.press(keys);
        for width in (0..=130).step_by(7).chain([1, 39, 40, 41, 79, 80, 300]) {
            for height in [0, 1, 2, 9, 10, 11, 13, 14, 24, 100] {
                seat.terminal.backend_mut().resize(width, height);
                let _ = seat.draw();
            }
        }
        seat.terminal.backend_mut().resize(80, 24);
    }
}

#[test]
fn winding_back_and_on_shows_the_same_again() {
    let mut seat = Seat::at("accept-overflow.arrows", (120, 40));
    let end = seat.draw();
    let open = seat.player.open_findings();
    assert_eq!(open, 0);
    seat.press("t");
    assert_eq!(seat.player.open_findings(), 1, "{}", seat.draw());
    assert!(seat.draw().contains("open 0 s"));
    seat.press("] ]");
    let middle = seat.draw();
    seat.press("[");
    seat.press("]");
    assert_eq!(seat.draw(), middle);
    for _ in 0..20 {
        seat.press("]");
    }
    assert_eq!(seat.draw(), end);
    seat.press("<");
    assert!(seat.draw().contains("0.0 of"), "{}", seat.draw());
}

#[test]
fn a_command_is_copied_as_it_is_and_then_the_next_one() {
    let mut seat = Seat::at("port-grab.arrows", (80, 24));
    seat.press("y y y");
    assert!(seat.copied.len() == 3 && seat.copied[0] != seat.copied[1], "{:?}", seat.copied);
    assert_eq!(seat.copied[0], seat.copied[2]);
    let commands = seat.scene.table(View::Findings).commands(0);
    assert_eq!(commands, seat.copied[..2]);
    assert!(seat.draw().contains("copied 1 of 2"));
    seat.press("2 y");
    assert_eq!(seat.copied.len(), 3);
}

#[test]
fn a_filter_leaves_out_and_says_so() {
    let mut seat = Seat::at("accept-overflow.arrows", (80, 24));
    let rows = |seat: &mut Seat, view: View| {
        let clock = seat.scene.clock(&TimeZone::UTC);
        let cx = Cx { scene: &seat.scene, world: seat.player.model().world(), clock: &clock };
        seat.desk.view = view;
        seat.desk.rows(&cx).len()
    };
    assert_eq!(rows(&mut seat, View::Findings), 2);
    seat.press("/ comm:tt-proxy Enter");
    assert_eq!(rows(&mut seat, View::Findings), 1);
    assert_eq!(rows(&mut seat, View::Listeners), 1);
    assert!(seat.draw().contains("only comm:tt-proxy"));
    seat.press("x / port:9 Enter");
    assert_eq!(rows(&mut seat, View::Listeners), 0);
    assert!(seat.draw().contains("The filter leaves out all 1"));
    // What is wrong is said, and can be mended.
    seat.press("/");
    seat.act(Action::EraseAll);
    seat.press("port:0 Enter");
    assert!(seat.desk.is_typing() && seat.draw().contains("port 0 is no port"), "{}", seat.draw());
    seat.press("Esc");
    assert!(!seat.desk.is_typing() && seat.draw().contains("only port:9"));
}

#[test]
fn the_cursor_stays_on_its_row_however_rows_are_sorted() {
    let mut seat = Seat::at("accept-overflow.arrows", (80, 24));
    seat.press("6 Down Down");
    let before = seat.desk.overlay;
    assert_eq!(before, Overlay::Nothing);
    let selected = |seat: &Seat| {
        let clock = seat.scene.clock(&TimeZone::UTC);
        let cx = Cx { scene: &seat.scene, world: seat.player.model().world(), clock: &clock };
        let row = seat.desk.selected(&cx).unwrap();
        seat.scene.table(View::Connections).key(row)
    };
    let key = selected(&seat);
    seat.press("s s r");
    assert_eq!(selected(&seat), key);
    assert!(seat.draw().contains('▶'));
    seat.press("g");
    assert_ne!(selected(&seat), key);
}

#[test]
fn without_colours_and_beyond_ascii_nothing_is_drawn_that_was_not_asked_for() {
    let mut seat = Seat::at("accept-overflow.arrows", (120, 40));
    seat.desk.palette = Palette { theme: Theme::Mono, ascii: true };
    for keys in ["1", "2", "3", "4", "5", "6"] {
        seat.press(keys);
        let screen = seat.draw();
        assert!(screen.is_ascii(), "{screen}");
        let colours = |cell: &ratatui::buffer::Cell| {
            [cell.fg, cell.bg].iter().any(|colour| *colour != ratatui::style::Color::Reset)
        };
        assert!(!seat.terminal.backend().buffer().content.iter().any(colours));
    }
}

fn time(milliseconds: u64) -> Timestamp {
    Timestamp::from_nanos(1_795_344_012_000_000_000 + milliseconds * 1_000_000)
}

fn coverage() -> Kind {
    let attached = |name: &str| Observation {
        name: name.to_owned(),
        status: ObservationStatus::Attached,
        via: "test".to_owned(),
        reason: None,
    };
    Kind::Coverage(Box::new(Coverage {
        kernel: "6.12".to_owned(),
        architecture: "x86_64".to_owned(),
        tier: Tier::Fexit,
        observations: ["syn-drop", "listen", "accept", "enqueue"].map(attached).to_vec(),
        filters: Vec::new(),
        scope: Vec::new(),
        hindrances: Vec::new(),
        own_netns: Some(1),
        host_netns: Some(1),
    }))
}

/// Listeners, each of a process with this name.
fn listeners(count: u16, comm: &str) -> Vec<Event> {
    let mut events = vec![Event { time: time(0), kind: coverage() }];
    for number in 0..count {
        let pid = 1000 + u32::from(number);
        let endpoints = Endpoints {
            netns: 1,
            family: Family::V4,
            local: format!("10.0.0.1:{}", 2000 + number).parse().unwrap(),
            remote: None,
            device: 0,
        };
        let listener = ListenerRef {
            sk: 100 + u64::from(number),
            inode: 100 + u64::from(number),
            depth: 0,
            limit: 20,
            syn_queue: 0,
        };
        let info = ProcessInfo {
            pid,
            comm: comm.to_owned(),
            command: Some(comm.to_owned()),
            container: Some(format!("docker:{comm}")),
            ..ProcessInfo::default()
        };
        let listen = Listen {
            endpoints,
            listener,
            task: Task { pid, tid: pid, comm: comm.into(), ..Task::default() },
            backlog: Some(20),
            somaxconn: Some(128),
            options: SocketOptions::NONE,
            again: false,
        };
        let sample = ListenerSample {
            endpoints,
            listener,
            source: SampleSource::Observed,
            totals: ListenerTotals::ZERO,
            waits: None,
            handshakes: None,
        };
        events.push(Event { time: time(0), kind: Kind::ProcessInfo(Box::new(info)) });
        events.push(Event { time: time(1), kind: Kind::Listen(Box::new(listen)) });
        events.push(Event { time: time(2), kind: Kind::ListenerSample(Box::new(sample)) });
    }
    events
}

fn overflow(number: u16, at: u64, drops: u64) -> Vec<Event> {
    let drop = |total: u64| SynDrop {
        endpoints: Endpoints {
            netns: 1,
            family: Family::V4,
            local: format!("10.0.0.1:{}", 2000 + number).parse().unwrap(),
            remote: Some(format!("192.0.2.7:{}", 40_000 + total).parse().unwrap()),
            device: 0,
        },
        listener: ListenerRef {
            sk: 100 + u64::from(number),
            inode: 100 + u64::from(number),
            depth: 21,
            limit: 20,
            syn_queue: 0,
        },
        cause: SynDropCause::AcceptQueue,
        syncookies: 1,
        total,
    };
    let mut events: Vec<Event> =
        (1..=drops).map(|total| Event { time: time(at + total), kind: Kind::SynDrop(drop(total)) }).collect();
    events.push(Event { time: time(at + 1000), kind: Kind::Tick });
    events
}

fn frames(model: &Model, (width, height): (u16, u16)) -> Vec<Buffer> {
    let mut header = Header { mode: Mode::Live, ..Header::default() };
    header.fill(model);
    let scene = Scene::of(model, header);
    let codes: Vec<&'static str> = Engine::default().codes().collect();
    let mut all = Vec::new();
    for view in View::ALL {
        for open in [false, true] {
            let mut desk = Desk::new(
                Palette { theme: Theme::Dark, ascii: false },
                false,
                Filter::default(),
                codes.clone(),
            );
            let clock = scene.clock(&TimeZone::UTC);
            let cx = Cx { scene: &scene, world: model.world(), clock: &clock };
            desk.apply(Action::Show(view), &cx, &|_| Err("none".to_owned()));
            if open {
                desk.apply(Action::Open, &cx, &|_| Err("none".to_owned()));
                desk.apply(Action::Copy, &cx, &|_| Err("none".to_owned()));
            }
            let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
            terminal
                .draw(|frame| {
                    draw(frame, &scene, &desk, model.world(), &TimeZone::UTC);
                })
                .unwrap();
            all.push(terminal.backend().buffer().clone());
        }
    }
    all
}

/// A process may be called anything, and so may its container.
#[test]
fn no_name_moves_the_terminal() {
    let name = "a\u{1b}[2J\u{9b}31m\u{202e}\u{7}\nx\u{200b}\u{feff}";
    let mut model = Model::default();
    listeners(3, name).iter().chain(&overflow(1, 10, 50)).for_each(|event| model.note(event));
    let mut named = false;
    for buffer in frames(&model, (200, 60)) {
        assert!(!buffer.content.iter().any(|cell| cell.symbol().chars().any(is_harmful)));
        named |= shown(&buffer).contains("a\\x1b[2J\\x9b31m");
    }
    assert!(named);
}

#[test]
fn a_queue_that_drops_is_at_the_top_and_full() {
    let mut model = Model::default();
    listeners(50, "proxy").iter().chain(&overflow(33, 10, 60)).for_each(|event| model.note(event));
    let screen = shown(&frames(&model, (120, 40))[2]);
    let first = screen.lines().nth(4).unwrap();
    assert!(first.contains("10.0.0.1:2033") && first.contains("21/20") && first.contains("60"), "{screen}");
    assert!(first.contains("backlog") && first.contains("proxy[1033]"), "{screen}");
    assert!(screen.contains("1-") && screen.contains("of 50"), "{screen}");
}

#[test]
fn what_is_frozen_stays_while_the_model_goes_on() {
    let mut model = Model::default();
    listeners(1, "proxy").iter().for_each(|event| model.note(event));
    let scene = Scene::of(&model, Header::default());
    overflow(0, 10, 60).iter().for_each(|event| model.note(event));
    assert!(scene.findings.is_empty());
    assert_eq!(Scene::of(&model, Header::default()).findings.len(), 1);
}

/// A second of a thousand listeners costs a few milliseconds of an optimized build; this one is not, and may be on a busy machine.
#[test]
fn ten_thousand_listeners_are_drawn() {
    let mut model = Model::default();
    listeners(10_000, "proxy").iter().for_each(|event| model.note(event));
    let begun = Instant::now();
    let scene = Scene::of(&model, Header { mode: Mode::Live, ..Header::default() });
    let clock = scene.clock(&TimeZone::UTC);
    let cx = Cx { scene: &scene, world: model.world(), clock: &clock };
    let mut desk = Desk::new(PLAIN, false, Filter::default(), Vec::new());
    desk.apply(Action::Show(View::Listeners), &cx, &|_| Err("none".to_owned()));
    let mut terminal = Terminal::new(TestBackend::new(120, 40)).unwrap();
    terminal
        .draw(|frame| {
            draw(frame, &scene, &desk, model.world(), &TimeZone::UTC);
        })
        .unwrap();
    let took = begun.elapsed();
    println!("10,000 listeners: {took:?}");
    assert!(took < Duration::from_secs(5), "{took:?}");
}

/// Keys that are said to be there are there.
#[test]
fn the_keys_that_are_listed_do_something() {
    for (keys, _, _) in action::KEYS {
        for key in keys.split([' ', ',']).filter(|key| key.chars().count() == 1 && *key != "…") {
            let code = KeyCode::Char(key.chars().next().unwrap());
            let input = Input::Key(KeyEvent::new(code, KeyModifiers::NONE));
            assert!(action_of(&input, false).is_some(), "{key}");
        }
    }
}
