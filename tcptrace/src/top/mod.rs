//! `tcptrace top`: everything that the engine knows, on one screen that is drawn again every second; of this host, or of a recording.
//!
//! Events go into a [`Model`], which has the engine of `watch` and `replay` and keeps what only a screen needs: how findings went
//! on, how deep queues were, what happened to single connections. A [`Scene`] is what the model knew at one moment, as rows; it can
//! be held while the model goes on. A [`Desk`] is where the person is: which view, which row, which order, which filter. From the
//! two, [`draw`] makes a frame, and from a key and a desk comes an [`Action`]. All of this is pure. [`run`] connects it with a
//! terminal, the clock and the events.

mod action;
mod cost;
mod desk;
mod draw;
mod filter;
mod format;
mod ink;
mod journal;
mod model;
pub(crate) mod notices;
mod player;
mod run;
mod scene;
mod terminal;
mod theme;
mod timeline;

pub use action::{Action, action_of};
pub(crate) use cost::{own_memory, own_time};
pub use desk::{Desk, View};
pub use draw::draw;
pub use filter::Filter;
pub use model::Model;
pub use player::Player;
pub use run::{Ended, FindNetns, Options, run_live, run_recorded};
pub use scene::{Clock, Header, Mode, OwnCost, Scene};
pub use terminal::is_usable;
pub use theme::{Palette, Theme};

pub(crate) use terminal::{GUARD_SUBCOMMAND, guard_main, shows_unicode};

#[cfg(test)]
mod tests;
