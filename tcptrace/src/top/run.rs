//! Connects the screen with a terminal, the clock, and the events of a trace or a recording.

use std::io;
use std::ops::ControlFlow;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use jiff::tz::TimeZone;
use ratatui::crossterm::event;
use tokio::signal::unix::{SignalKind, signal};

use crate::event::{Event, Timestamp};
use crate::live::{self, Live, drive};
use crate::probe::ProgramCosts;
use crate::record::TapeError;

use super::action::{Action, action_of};
use super::cost::Meter;
use super::desk::{Desk, Effect};
use super::draw::draw;
use super::model::Model;
use super::notices;
use super::player::Player;
use super::scene::{Cx, Header, Mode, Scene};
use super::terminal::{Screen, give_back};

/// How often the rows are made anew.
const REFRESH: Duration = Duration::from_secs(1);

/// Messages that wait while the terminal takes nothing. Beyond that the trace waits as well, and what is lost by that is
/// counted as lost.
const WAITING: usize = 1_024;

/// How long a recording is played between two frames.
const SLICE: Duration = Duration::from_millis(40);

/// How often a frame is drawn while a recording plays.
const FRAME: Duration = Duration::from_millis(200);

/// How long the screen may take to end when it is told to.
const PATIENCE: Duration = Duration::from_secs(2);

/// Finds the inode number of a network namespace by what a person calls it.
pub type FindNetns = Box<dyn Fn(&str) -> Result<u32, String>>;

/// How the screen is to be.
pub struct Options {
    /// View, colours and filter to begin with.
    pub desk: Desk,
    /// Host and kernel, as far as they are known.
    pub header: Header,
    /// The time zone of the reader.
    pub zone: TimeZone,
    /// Whether clicks come here, and not to the terminal's own marking of text.
    pub mouse: bool,
    /// How a person calls network namespaces.
    pub find_netns: FindNetns,
}

/// Why it ended without having been asked to.
#[derive(Debug, thiserror::Error)]
pub enum Ended {
    /// The terminal cannot be drawn on, or read from.
    #[error("the terminal: {0}")]
    Terminal(#[from] io::Error),
    /// Nothing can be traced.
    #[error(transparent)]
    Trace(#[from] live::Error),
    /// The recording cannot be read.
    #[error(transparent)]
    Tape(#[from] TapeError),
    /// The trace failed, or a part of this program did.
    #[error("{0}")]
    Failed(String),
}

/// What comes to the screen.
enum Message {
    Input(event::Event),
    InputGone(io::Error),
    /// Probes are attached.
    Attached(ProgramCosts),
    Events(Vec<Event>),
    /// The trace is over, or could not begin.
    Over(Result<(), Ended>),
    /// SIGTERM, SIGINT or SIGHUP.
    End,
    /// SIGTSTP.
    Suspend,
    /// SIGCONT.
    Continued,
}

/// Shows this host, until the person ends it.
///
/// # Errors
/// When nothing can be traced, or the terminal is gone.
pub fn run_live(options: Options, trace: live::Options) -> Result<(), Ended> {
    let (sender, messages) = sync_channel(WAITING);
    let (end, ended) = tokio::sync::oneshot::channel();
    listen_for_signals(&sender)?;
    let mut app = App::begin(options, Feed::Live(Box::default()))?;
    // Before anything that takes time: the person sees at once that something happens.
    app.draw()?;
    listen_for_input(sender.clone());
    let tracing = thread::Builder::new().name("tracer".to_owned()).spawn(move || {
        let over = tell_events(&trace, ended, &sender);
        // If the screen is gone, there is nobody to tell.
        let _gone = sender.send(Message::Over(over));
    })?;
    let outcome = app.run(&messages);
    drop(app);
    let _gone = end.send(());
    // It detaches in milliseconds; what is still waiting for the screen waits for nothing any more.
    drop(messages);
    let _panicked = tracing.join();
    outcome
}

/// Shows a recording, until the person ends it.
///
/// # Errors
/// When it cannot be read, or the terminal is gone.
pub fn run_recorded(options: Options, player: Player) -> Result<(), Ended> {
    let (sender, messages) = sync_channel(WAITING);
    listen_for_signals(&sender)?;
    let mut app = App::begin(options, Feed::Recorded(Box::new(player)))?;
    app.draw()?;
    listen_for_input(sender);
    app.run(&messages)
}

fn tell_events(
    options: &live::Options,
    ended: tokio::sync::oneshot::Receiver<()>,
    sender: &SyncSender<Message>,
) -> Result<(), Ended> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (live, first) = Live::start(options)?;
    let send = |message| match sender.send(message) {
        Ok(()) => ControlFlow::Continue(()),
        Err(_) => ControlFlow::Break(()),
    };
    if send(Message::Attached(live.tracer().costs())).is_break() || send(Message::Events(first)).is_break() {
        return Ok(());
    }
    let over = async {
        // Said, or dropped: both are the end.
        let _said = ended.await;
    };
    let driven = runtime.block_on(async {
        drive::drive(live, over, |events| {
            Ok(if events.is_empty() {
                ControlFlow::Continue(())
            } else {
                send(Message::Events(events.to_vec()))
            })
        })
        .await
    });
    driven?;
    Ok(())
}

/// Keys, clicks and new sizes, by a thread that ends with the process.
fn listen_for_input(sender: SyncSender<Message>) {
    let listening = move || {
        loop {
            let message = match event::read() {
                Ok(event) => Message::Input(event),
                Err(error) => {
                    let _gone = sender.send(Message::InputGone(error));
                    return;
                }
            };
            if sender.send(message).is_err() {
                return;
            }
        }
    };
    if let Err(error) = thread::Builder::new().name("keys".to_owned()).spawn(listening) {
        log::warn!("keys cannot be read: {error}");
    }
}

/// Signals, by a thread that ends with the process. They are caught when this returns.
fn listen_for_signals(sender: &SyncSender<Message>) -> Result<(), Ended> {
    let sender = sender.clone();
    let (ready, caught) = sync_channel(1);
    let listening = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let Ok(runtime) = runtime else { return };
        runtime.block_on(async {
            let all = (|| {
                Ok::<_, io::Error>((
                    signal(SignalKind::terminate())?,
                    signal(SignalKind::interrupt())?,
                    signal(SignalKind::hangup())?,
                    signal(SignalKind::from_raw(libc::SIGTSTP))?,
                    signal(SignalKind::from_raw(libc::SIGCONT))?,
                ))
            })();
            let Ok((mut terminate, mut interrupt, mut hangup, mut stop, mut go_on)) = all else { return };
            let _gone = ready.send(());
            loop {
                let message = tokio::select! {
                    _ = terminate.recv() => Message::End,
                    _ = interrupt.recv() => Message::End,
                    _ = hangup.recv() => Message::End,
                    _ = stop.recv() => Message::Suspend,
                    _ = go_on.recv() => Message::Continued,
                };
                let is_end = matches!(message, Message::End);
                // A full queue is one of a screen that does not draw: then the end comes from here.
                let _full = sender.try_send(message);
                if is_end {
                    tokio::time::sleep(PATIENCE).await;
                    end_without_the_screen();
                }
            }
        });
    };
    thread::Builder::new().name("signals".to_owned()).spawn(listening)?;
    caught.recv().map_err(|_| Ended::Failed("signals cannot be caught".to_owned()))
}

/// The terminal takes nothing (Ctrl-S, a dead connection): whoever writes to it waits for ever. The guard gives it back.
fn end_without_the_screen() {
    let _gone = ratatui::crossterm::terminal::disable_raw_mode();
    // SAFETY: ends the process at once, without destructors that would wait for the terminal.
    unsafe { libc::_exit(0) }
}

/// Where events come from.
enum Feed {
    Live(Box<Trace>),
    Recorded(Box<Player>),
}

#[derive(Default)]
struct Trace {
    model: Model,
    over: bool,
    attached: bool,
}

struct App {
    screen: Screen,
    desk: Desk,
    scene: Scene,
    zone: TimeZone,
    header: Header,
    feed: Feed,
    meter: Meter,
    find_netns: FindNetns,
    /// When the rows were last made.
    refreshed: Instant,
    /// A recording plays: since when, and from where.
    playing: Option<(Instant, Timestamp)>,
}

impl App {
    fn begin(options: Options, feed: Feed) -> Result<Self, Ended> {
        let Options { desk, header, zone, mouse, find_netns } = options;
        let screen = Screen::enter(mouse)?;
        notices::hold();
        let mut app = Self {
            screen,
            desk,
            scene: Scene::default(),
            zone,
            header,
            feed,
            meter: Meter::new(),
            find_netns,
            refreshed: Instant::now(),
            playing: None,
        };
        app.refresh();
        Ok(app)
    }

    fn model(&self) -> &Model {
        match &self.feed {
            Feed::Live(trace) => &trace.model,
            Feed::Recorded(player) => player.model(),
        }
    }

    /// Makes the rows anew.
    fn refresh(&mut self) {
        self.refreshed = Instant::now();
        let mut header = self.header.clone();
        header.fill(self.model());
        header.warnings = notices::kept();
        match &self.feed {
            Feed::Live(trace) => {
                let now = Timestamp::now();
                header.now = Some(now);
                if trace.model.events() == 0 {
                    header.begun = now;
                }
                header.own = self.meter.read();
                header.mode = match trace {
                    of if of.over => Mode::Over,
                    of if of.attached => Mode::Live,
                    _ => Mode::Attaching,
                };
            }
            Feed::Recorded(player) => {
                header.now = Some(player.at());
                header.begun = player.span().0;
                header.mode = Mode::Recording {
                    name: header.file.clone(),
                    span: player.span(),
                    playing: self.playing.is_some(),
                    winding: !player.is_there(),
                    marks: player.marks().to_vec(),
                    shortage: player.condition().shortage(),
                };
            }
        }
        self.scene = Scene::of(self.model(), header);
    }

    fn draw(&mut self) -> Result<(), Ended> {
        let Self { screen, desk, scene, zone, feed, .. } = self;
        let world = match feed {
            Feed::Live(trace) => trace.model.world(),
            Feed::Recorded(player) => player.model().world(),
        };
        let mut geometry = None;
        screen.draw(|frame| geometry = Some(draw(frame, scene, desk, world, zone)))?;
        if let Some(geometry) = geometry {
            desk.drawn(geometry);
        }
        Ok(())
    }

    fn run(&mut self, messages: &Receiver<Message>) -> Result<(), Ended> {
        loop {
            let first = match messages.recv_timeout(self.pause()) {
                Ok(message) => Some(message),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(Ended::Failed("a part of this program ended before the rest".to_owned()));
                }
            };
            let mut touched = false;
            // Everything that waits, so that a storm of events or sizes is one frame.
            let waiting = std::iter::from_fn(|| messages.try_recv().ok());
            for message in first.into_iter().chain(waiting.take(WAITING)) {
                match self.take(message)? {
                    ControlFlow::Break(()) => return Ok(()),
                    ControlFlow::Continue(drawn) => touched |= drawn,
                }
            }
            let wound = self.play()?;
            let due = self.refreshed.elapsed() >= REFRESH;
            if (due || wound) && !self.desk.frozen {
                self.refresh();
            } else if due {
                self.refreshed = Instant::now();
            }
            if touched || due || wound {
                self.draw()?;
            }
        }
    }

    /// How long nothing needs to be done.
    fn pause(&self) -> Duration {
        if let Feed::Recorded(player) = &self.feed {
            if !player.is_there() {
                return Duration::ZERO;
            }
            if self.playing.is_some() {
                return FRAME;
            }
        }
        REFRESH.saturating_sub(self.refreshed.elapsed())
    }

    /// Plays a recording on, where it is to be elsewhere; whether it did.
    fn play(&mut self) -> Result<bool, Ended> {
        let Feed::Recorded(player) = &mut self.feed else { return Ok(false) };
        if let Some((since, from)) = self.playing {
            player.wind(from.after(since.elapsed()))?;
            if player.is_at_end() {
                self.playing = None;
                return Ok(true);
            }
        }
        if player.is_there() {
            return Ok(false);
        }
        player.advance(SLICE)?;
        Ok(true)
    }

    /// Takes in a message; whether there is something to draw at once.
    fn take(&mut self, message: Message) -> Result<ControlFlow<(), bool>, Ended> {
        match message {
            Message::Input(event::Event::Resize(..)) => return Ok(ControlFlow::Continue(true)),
            Message::Input(input) => {
                let Some(action) = action_of(&input, self.desk.is_typing()) else {
                    return Ok(ControlFlow::Continue(false));
                };
                return self.act(action);
            }
            Message::InputGone(error) => return Err(Ended::Terminal(error)),
            Message::Attached(programs) => {
                self.meter.attached(programs);
                if let Feed::Live(trace) = &mut self.feed {
                    trace.attached = true;
                }
            }
            Message::Events(events) => {
                if let Feed::Live(trace) = &mut self.feed {
                    // The first of them are the first thing there is to show.
                    let first = trace.model.events() == 0;
                    events.iter().for_each(|event| trace.model.note(event));
                    if first && !self.desk.frozen {
                        self.refresh();
                        return Ok(ControlFlow::Continue(true));
                    }
                }
            }
            Message::Over(over) => {
                over?;
                if let Feed::Live(trace) = &mut self.feed {
                    trace.over = true;
                }
                return Ok(ControlFlow::Continue(true));
            }
            Message::End => return Ok(ControlFlow::Break(())),
            Message::Suspend => {
                self.screen.suspend()?;
                return Ok(ControlFlow::Continue(true));
            }
            Message::Continued => {
                self.screen.again()?;
                return Ok(ControlFlow::Continue(true));
            }
        }
        Ok(ControlFlow::Continue(false))
    }

    fn act(&mut self, action: Action) -> Result<ControlFlow<(), bool>, Ended> {
        let clock = self.scene.clock(&self.zone);
        let Self { desk, scene, feed, find_netns, .. } = self;
        let world = match feed {
            Feed::Live(trace) => trace.model.world(),
            Feed::Recorded(player) => player.model().world(),
        };
        let cx = Cx { scene, world, clock: &clock };
        match desk.apply(action, &cx, find_netns) {
            Effect::Nothing => {}
            Effect::Quit => return Ok(ControlFlow::Break(())),
            Effect::Copy(command) => self.screen.copy(&command)?,
            Effect::Freeze => {
                if !self.desk.frozen {
                    self.refresh();
                }
            }
            Effect::Suspend => self.screen.suspend()?,
            Effect::Redraw => self.screen.forget()?,
            Effect::Mouse => {
                let taken = self.screen.turn_mouse()?;
                self.desk.message = Some(if taken {
                    "clicks and the wheel come here; with Shift the terminal marks text".to_owned()
                } else {
                    "clicks are the terminal's, which marks text".to_owned()
                });
            }
            wind => self.wind(&wind)?,
        }
        Ok(ControlFlow::Continue(true))
    }

    fn wind(&mut self, effect: &Effect) -> Result<(), Ended> {
        let Feed::Recorded(player) = &mut self.feed else { return Ok(()) };
        let (from, to) = player.span();
        // Keys come faster than a long recording is wound.
        let at = player.goal();
        let length = to.since(from);
        let shifted = |by: Duration, forward: bool| {
            if forward { at.after(by).min(to) } else { at.before(by).max(from) }
        };
        let was_playing = self.playing.take().is_some();
        match effect {
            Effect::Wind(by) => {
                player.wind(shifted(Duration::from_millis(by.unsigned_abs()), *by > 0))?;
            }
            Effect::WindShare(by) => {
                let share = u32::try_from(by.unsigned_abs()).unwrap_or(u32::MAX);
                player.wind(shifted(length / 100 * share, *by > 0))?;
            }
            Effect::WindStart => player.wind(from)?,
            Effect::WindEnd => player.wind_to_end(),
            // A little later: what the row shows has then begun.
            Effect::WindTo(moment) => player.wind(moment.after(Duration::from_millis(1)))?,
            Effect::Play if !was_playing => {
                if player.is_at_end() {
                    player.wind(from)?;
                }
                let at = if player.is_at_end() { from } else { player.at() };
                self.playing = Some((Instant::now(), at));
            }
            _ => {}
        }
        // Another moment is what was asked for, so that holding this one is over.
        self.desk.frozen = false;
        self.refresh();
        Ok(())
    }
}

impl Drop for App {
    fn drop(&mut self) {
        give_back();
        for warning in notices::release() {
            log::warn!("{warning}");
        }
    }
}
