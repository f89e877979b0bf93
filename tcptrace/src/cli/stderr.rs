//! What is said on standard error: whole sentences, each begun with `tcptrace:`, on a terminal wrapped. Lines of a log are for those who ask for
//! them with `RUST_LOG`.

use std::io::{self, Write as _};

use log::Level;

use crate::output::{Meaning, Screen, escape, shows_colour, wrap};

/// Says why a command failed.
pub(super) fn error(message: &str) {
    say(None, message);
}

/// Says something that goes well.
pub(super) fn note(message: &str) {
    say(Some(("note", Meaning::Faint)), message);
}

fn say(level: Option<(&str, Meaning)>, message: &str) {
    let err = io::stderr();
    let colour = shows_colour(&err);
    // A log keeps one line for each.
    let screen = Screen::of_stderr();
    let width = if screen.terminal { screen.columns() } else { usize::MAX };
    let word = level.map_or_else(String::new, |(word, _)| format!("{word}: "));
    let mut text = String::new();
    for line in message.lines() {
        let lead = if text.is_empty() { format!("tcptrace: {word}") } else { "    ".to_owned() };
        for line in wrap(&escape(line), &lead, "    ", width) {
            text.extend([line.as_str(), "\n"]);
        }
    }
    if colour {
        let style = level.map_or(Meaning::Critical, |(_, meaning)| meaning).style();
        text = text.replacen("tcptrace:", &format!("{style}tcptrace:{style:#}"), 1);
    }
    // If stderr is gone, there is nothing to say it on.
    let _gone = err.lock().write_all(text.as_bytes());
}

/// Makes warnings sentences; with `RUST_LOG` everything is lines of a log.
pub(super) fn begin() {
    let asked = std::env::var_os("RUST_LOG").is_some();
    let filter = env_logger::Env::default().default_filter_or("warn,aya=error,aya_obj=error");
    let mut builder = env_logger::Builder::from_env(filter);
    builder
        .format(move |out, record| {
            if !asked {
                let level = match record.level() {
                    Level::Error => ("error", Meaning::Critical),
                    Level::Warn => ("warning", Meaning::Warning),
                    _ => ("note", Meaning::Faint),
                };
                if !crate::top::notices::keep(&record.args().to_string()) {
                    say(Some(level), &record.args().to_string());
                }
                return Ok(());
            }
            // A screen that is drawn there would be torn.
            if crate::top::notices::keep(&record.args().to_string()) {
                return Ok(());
            }
            let time = out.timestamp_millis();
            let level = record.level();
            let style = out.default_level_style(level);
            for line in record.args().to_string().lines() {
                // What is told of names foreign to us.
                let line = escape(line);
                writeln!(out, "[{time} {style}{level:<5}{style:#} {}] {line}", record.target())?;
            }
            Ok(())
        })
        .write_style(if shows_colour(&io::stderr()) {
            env_logger::WriteStyle::Always
        } else {
            env_logger::WriteStyle::Never
        })
        .init();
}
