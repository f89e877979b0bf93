//! Plays incidents without tracing them: the ground truth alone, one JSON line each.
//!
//! `rehearse NAME|all|everything [--variant V] [--family 4|6|mapped] [--syncookies N] [--abort-on-overflow] [--older]`

use std::io::Write;
use std::process::ExitCode;

use tcptrace::rehearse::{ACTOR_SUBCOMMAND, Error, Family, Options, actor_main, catalogue, incident};

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1).peekable();
    if args.next_if(|first| first == ACTOR_SUBCOMMAND).is_some() {
        return actor_main(args);
    }
    let words: Vec<String> = args.map(|arg| arg.to_string_lossy().into_owned()).collect();
    match run(&words) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            say(&error.to_string());
            ExitCode::from(2)
        }
    }
}

/// Diagnostics; if stderr is gone there is nobody to tell.
fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

fn run(words: &[String]) -> Result<bool, Error> {
    let (mut name, mut options) = ("all".to_owned(), Options::default());
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let mut value = || words.next().cloned().ok_or_else(|| Error::Usage(format!("{word} needs a value")));
        match word.as_str() {
            "--variant" => options.variant = Some(value()?),
            "--family" => options.family = value()?.parse()?,
            "--syncookies" => options.syncookies = value()?.parse().ok(),
            "--abort-on-overflow" => options.abort_on_overflow = true,
            "--older" => options.older = true,
            other => other.clone_into(&mut name),
        }
    }
    let mut plays = Vec::new();
    match name.as_str() {
        "all" => plays.extend(catalogue().iter().map(|entry| (entry.name, options.clone()))),
        "everything" => {
            for entry in catalogue() {
                for variant in entry.variants {
                    for family in Family::ALL {
                        let variant = Some(variant.name.to_owned());
                        plays.push((entry.name, Options { variant, family, ..options.clone() }));
                    }
                }
            }
        }
        one => plays.push((one, options)),
    }
    let mut all_well = true;
    for (name, options) in plays {
        let what = format!("{name} {} {:?}", options.variant.as_deref().unwrap_or("default"), options.family);
        match play(name, &options) {
            Ok(line) => {
                let _ = tcptrace::output::stdout_lines().text(&line.to_string());
            }
            Err(error) => {
                all_well = false;
                say(&format!("{what}: {error}"));
            }
        }
    }
    Ok(all_well)
}

fn play(name: &str, options: &Options) -> Result<String, Error> {
    let mut incident = incident(name, options)?;
    say(&incident.describe());
    incident.prepare()?;
    incident.play().map(|truth| truth.to_json())
}
