//! `tcptrace config`, and what the settings mean for the other subcommands.

use clap::ColorChoice;

use super::{
    args::{Cli, Command, LookArgs, TopArgs, WatchArgs},
    exit::{Exit, Failure},
    stderr, trace,
};
use crate::{
    config::{ConfigError, Filters, Settings, When, put_in_force},
    output::{ended, go_on, stdout_lines},
};

/// The settings, those that flags of every subcommand set among them.
pub(super) fn of(look: &LookArgs) -> Result<Settings, ConfigError> {
    let mut settings = Settings::find(look.config.clone())?;
    if let Some(color) = look.color {
        settings.config.look.color = match color {
            ColorChoice::Auto => When::Auto,
            ColorChoice::Always => When::Always,
            ColorChoice::Never => When::Never,
        };
        settings.note("look.color", "--color".to_owned());
    }
    if let Some(utc) = look.utc {
        settings.config.look.utc = utc;
        settings.note("look.utc", "--utc".to_owned());
    }
    Ok(settings)
}

/// When there are colours; of settings that cannot be used, as far as the flag says.
pub(super) fn colours(look: &LookArgs, settings: Option<&Settings>) -> anstream::ColorChoice {
    let flag = match look.color {
        Some(ColorChoice::Always) => When::Always,
        Some(ColorChoice::Never) => When::Never,
        Some(ColorChoice::Auto) | None => When::Auto,
    };
    match settings.map_or(flag, |settings| settings.config.look.color) {
        When::Auto => anstream::ColorChoice::Auto,
        When::Always => anstream::ColorChoice::Always,
        When::Never => anstream::ColorChoice::Never,
    }
}

/// Makes the settings what the command line did not say. What changes what is reported is said on stderr, in every use.
pub(super) fn fill_in(cli: &mut Cli, settings: &Settings) {
    let config = &settings.config;
    let mut said = Vec::new();
    let finds = match &mut cli.command {
        None => {
            said.extend(watch(&mut cli.watch, settings));
            true
        }
        Some(Command::Watch(args)) => {
            // What is recorded was limited when it was recorded.
            if args.files.is_empty() {
                said.extend(watch(&mut args.watch, settings));
            }
            true
        }
        Some(Command::Top(args)) => {
            said.extend(top(args, settings));
            true
        }
        Some(
            Command::Agent(_)
            | Command::Record(_)
            | Command::Replay(_)
            | Command::Report(_)
            | Command::Compare(_)
            | Command::Why(_),
        ) => true,
        // A rehearsal is judged by the thresholds that it was made for; the others find nothing.
        _ => false,
    };
    if finds {
        put_in_force(config.thresholds);
        said.extend(settings.set_below("thresholds"));
    }
    for file in settings.left_out() {
        stderr::note(&format!(
            "{} is left out: the user who called sudo may not read it",
            file.path.display()
        ));
    }
    if !said.is_empty() {
        stderr::note(&format!("set by the configuration: {}", said.join(", ")));
    }
}

fn watch(args: &mut WatchArgs, settings: &Settings) -> Vec<String> {
    let filters = &settings.config.filters;
    let said = filters_in_force(filters, settings, |name| match name {
        "port" => args.filter.port.is_empty(),
        "netns" => args.filter.netns.is_empty(),
        "comm" => args.selection.parties.comm.is_empty(),
        "container" => args.selection.parties.container.is_empty(),
        "peer" => args.selection.parties.peer.is_empty(),
        _ => args.selection.finding.is_empty(),
    });
    fill_filters(filters, &mut args.filter, &mut args.selection);
    said
}

fn top(args: &mut TopArgs, settings: &Settings) -> Vec<String> {
    let look = &settings.config.top;
    args.theme = args.theme.or(look.theme);
    args.ascii = args.ascii.or(Some(look.ascii));
    args.mouse = args.mouse.or(Some(look.mouse));
    if args.files.is_empty() {
        // The screen shows them itself.
        fill_filters(&settings.config.filters, &mut args.filter, &mut args.selection);
    }
    Vec::new()
}

/// The filters that the command line left to the settings.
fn filters_in_force(filters: &Filters, settings: &Settings, is_left: impl Fn(&str) -> bool) -> Vec<String> {
    let set = [
        ("port", &filters.port),
        ("netns", &filters.netns),
        ("comm", &filters.comm),
        ("container", &filters.container),
        ("peer", &filters.peer),
        ("finding", &filters.finding),
    ];
    let left = set.into_iter().filter(|(name, values)| !values.is_empty() && is_left(name));
    left.map(|(name, values)| {
        let source = settings.source(&format!("filters.{name}")).unwrap_or_default();
        format!("--{name} {} ({source})", values.join(","))
    })
    .collect()
}

fn fill_filters(
    filters: &Filters,
    filter: &mut super::args::FilterArgs,
    selection: &mut super::args::SelectionArgs,
) {
    fn fill<T>(args: &mut Vec<T>, set: impl FnOnce() -> Vec<T>) {
        if args.is_empty() {
            *args = set();
        }
    }
    fill(&mut filter.port, || filters.ports());
    fill(&mut filter.netns, || filters.netns.clone());
    fill(&mut selection.parties.comm, || filters.comm.clone());
    fill(&mut selection.parties.container, || filters.container.clone());
    fill(&mut selection.parties.peer, || filters.networks());
    fill(&mut selection.finding, || filters.finding.clone());
}

/// Prints the settings.
pub(super) fn run(settings: &Settings) -> Result<Exit, Failure> {
    let mut out = stdout_lines();
    let lines = settings.in_words();
    let written = lines.iter().try_for_each(|line| go_on(out.line(line))).and_then(|()| go_on(out.flush()));
    ended(written).map_err(|error| trace::cannot_write(&error))?;
    Ok(Exit::Done)
}
