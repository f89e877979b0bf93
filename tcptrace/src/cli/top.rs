//! `tcptrace top`: everything on one screen, of this host or of a recording.

use std::path::PathBuf;

use super::{
    args::{TopArgs, union},
    exit::{Exit, Failure},
    netns, selection, tape, trace,
};
use crate::{
    event::PlaceFilter,
    finding::Engine,
    output::{Selection, shows_colour, stdout_screen, zone},
    top::{self, Desk, Filter, FindNetns, Header, Options, Palette, Player, Theme},
};

pub(super) fn run(args: &TopArgs) -> Result<Exit, Failure> {
    top::is_usable().map_err(|why| Failure::new(Exit::Usage, why))?;
    if args.files.is_empty() { live(args) } else { recorded(args) }
}

fn live(args: &TopArgs) -> Result<Exit, Failure> {
    selection::are_there(&args.selection.parties.pid)?;
    let selection = selection::of(&args.selection)?;
    let filters = trace::Filters::of(&args.filter.port, &args.filter.netns)?;
    // What the trace leaves out is said with the coverage; the rest can be changed on the screen.
    let options = trace::options(&args.trace, trace::streams(args.all, args.syns), filters);
    let name = nix::sys::utsname::uname().ok();
    let word = |of: Option<&std::ffi::OsStr>| of.unwrap_or_default().to_string_lossy().into_owned();
    let header = Header {
        host: word(name.as_ref().map(nix::sys::utsname::UtsName::nodename)),
        kernel: word(name.as_ref().map(nix::sys::utsname::UtsName::release)),
        ..Header::default()
    };
    // The kernel measures for as long as somebody holds this open (5.8).
    let _measuring = args
        .bpf_cost
        .then(|| aya::sys::enable_stats(aya::sys::Stats::RunTime))
        .transpose()
        .map_err(|error| Failure::new(Exit::NotPermitted, format!("--bpf-cost: {error}")))?;
    let find_netns = |name: &str| netns::find(name).map(|found| found.id()).map_err(|why| why.message);
    let options_of_screen = screen(args, Filter::of(selection), header, false, Box::new(find_netns));
    ended(top::run_live(options_of_screen, options))
}

fn recorded(args: &TopArgs) -> Result<Exit, Failure> {
    let number = |name: &str| {
        let usage = || format!("--netns {name}: of a recording, a namespace is named by its inode number");
        name.parse::<u32>().map_err(|_| usage())
    };
    let netns = args.filter.netns.iter().map(|name| number(name)).collect::<Result<_, _>>();
    let netns = netns.map_err(|why| Failure::new(Exit::Usage, why))?;
    let place = PlaceFilter { ports: union(&args.filter.port), netns };
    let selection = Selection { place, ..selection::of(&args.selection)? };
    let files = args.files.clone();
    // Several recordings are told apart once, here.
    let metadata = tape::only(&files)?.metadata().clone();
    let player = Player::new(Box::new(move || crate::record::open_one(&files)))?;
    let header = Header {
        host: metadata.host.clone(),
        kernel: metadata.kernel.clone(),
        file: name_of(&args.files),
        ..Header::default()
    };
    let options = screen(args, Filter::of(selection), header, true, Box::new(number));
    ended(top::run_recorded(options, player))
}

fn screen(args: &TopArgs, filter: Filter, header: Header, recording: bool, find_netns: FindNetns) -> Options {
    let theme = match args.theme {
        // What `--color` or `NO_COLOR` says is meant.
        _ if !shows_colour(&stdout_screen()) => Theme::Mono,
        Some(theme) => theme,
        None => Theme::default(),
    };
    let palette = Palette { theme, ascii: args.ascii.unwrap_or_default() || !top::shows_unicode() };
    let codes = Engine::default().codes().collect();
    Options {
        desk: Desk::new(palette, recording, filter, codes),
        header,
        zone: zone::local(),
        mouse: args.mouse.unwrap_or_default(),
        find_netns,
    }
}

fn name_of(files: &[PathBuf]) -> String {
    let first = files.first().and_then(|file| file.file_name());
    let name = first.map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    if files.len() > 1 { format!("{name} +{}", files.len() - 1) } else { name }
}

fn ended(ended: Result<(), top::Ended>) -> Result<Exit, Failure> {
    match ended {
        Ok(()) => Ok(Exit::Done),
        Err(top::Ended::Trace(error)) => Err(error.into()),
        Err(top::Ended::Tape(error)) => Err(error.into()),
        Err(top::Ended::Terminal(error)) => {
            Err(Failure::new(Exit::CannotWrite, format!("the terminal is gone: {error}")))
        }
        Err(failed @ top::Ended::Failed(_)) => Err(Failure::new(Exit::NotSupported, failed)),
    }
}
