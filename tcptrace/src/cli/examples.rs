//! Examples below each `--help`, and on the manual pages. A test parses every one.

use clap::{Command, CommandFactory as _};

use super::args::Cli;

/// Subcommand (empty: tcptrace itself), and its examples: a command line, and what it is for.
const EXAMPLES: &[(&str, &[(&str, &str)])] = &[
    (
        "",
        &[
            ("sudo tcptrace", "what goes wrong on this host from now on, until Ctrl-C"),
            ("sudo tcptrace --port 443,8000-8099 --comm nginx", "only of these ports and this server"),
            ("sudo tcptrace --for 30s --json", "one JSON object a line, for half a minute"),
            ("sudo tcptrace why 10.0.0.5:5432", "why one destination does not answer"),
            (
                "sudo tcptrace rehearse accept-queue-overflow",
                "an incident to try it with, in a namespace of its own",
            ),
        ],
    ),
    (
        "watch",
        &[
            ("sudo tcptrace watch --container web --fail-on critical --for 10m", "a check for a deployment"),
            ("tcptrace watch run.arrows", "a recording, as it was told when it was made"),
        ],
    ),
    (
        "top",
        &[
            ("sudo tcptrace top", "this host on one screen; ? lists the keys"),
            ("sudo tcptrace top --netns blue --theme light", "one network namespace, for a bright terminal"),
            ("tcptrace top run.arrows", "a recording, with a time slider"),
        ],
    ),
    (
        "record",
        &[
            ("sudo tcptrace record -o run.arrows -- wrk -c 400 http://10.0.0.5/", "exactly one load test"),
            ("sudo tcptrace record -o day.arrows --rotate 1h --keep 2G", "the last hours, within 2 GiB"),
        ],
    ),
    (
        "agent",
        &[
            (
                "sudo tcptrace agent --dir /var/lib/tcptrace --metrics 127.0.0.1:9797",
                "always on: the last hours, what led to each incident, and metrics",
            ),
            (
                "sudo tcptrace agent --dir /var/lib/tcptrace --keep-size 2G --keep-age 72h --keep-on warning",
                "more of both",
            ),
        ],
    ),
    ("replay", &[("tcptrace replay run.arrows --from 03:12 --to 03:20", "eight minutes of a recording")]),
    (
        "report",
        &[
            ("tcptrace report run.arrows", "what happened"),
            ("tcptrace report host1.arrows host2.arrows --html page.html", "of two hosts, as one page"),
            ("tcptrace report run.arrows --port 35010 --at 03:16", "who had a port then"),
        ],
    ),
    ("compare", &[("tcptrace compare before.arrows after.arrows", "what a change has made better or worse")]),
    (
        "export",
        &[("tcptrace export run.arrows --format parquet -o run.parquet", "for DuckDB, polars or Spark")],
    ),
    (
        "listeners",
        &[
            ("sudo tcptrace listeners --sort drops", "every listener, its queue, and what limits that"),
            ("sudo tcptrace listeners --for 10s --port 80", "with rates and waits of ten seconds"),
        ],
    ),
    (
        "why",
        &[
            ("sudo tcptrace why web.example:443", "watches ten seconds, unless it is clear at once"),
            ("sudo tcptrace why 10.0.0.5:80 --probe --netns blue", "tries to connect, from a namespace"),
        ],
    ),
    (
        "probes",
        &[
            ("sudo tcptrace probes", "what can be observed here"),
            ("sudo tcptrace probes --self-test", "whether every probe fires, and tells the truth"),
        ],
    ),
    (
        "rehearse",
        &[
            ("tcptrace rehearse list", "the incidents"),
            ("sudo tcptrace rehearse no-answer --variant input-drop", "one of them"),
        ],
    ),
    ("ports", &[("sudo tcptrace ports --for 30s", "who uses the ephemeral ports, and how long they last")]),
    ("who", &[("sudo tcptrace who 8080", "who has a port, in every namespace and state")]),
    (
        "check",
        &[
            ("sudo tcptrace check", "settings that will hurt; exit code 1 if there is one"),
            ("sudo tcptrace check --servers 35000-35100", "before servers of these ports are started"),
        ],
    ),
    ("explain", &[("tcptrace explain accept-queue-overflow", "one kind of finding")]),
    ("config", &[("tcptrace config > tcptrace.toml", "a file that sets what holds now")]),
    ("schema", &[("tcptrace schema finding", "of one type of line")]),
    (
        "completions",
        &[("tcptrace completions bash > ~/.local/share/bash-completion/completions/tcptrace", "for bash")],
    ),
    ("man", &[("tcptrace man record | man -l -", "the page of a subcommand")]),
];

/// The command line, with its examples.
pub(super) fn command() -> Command {
    EXAMPLES.iter().fold(Cli::command(), |all, (name, examples)| {
        let text = in_words(examples);
        if name.is_empty() {
            all.after_help(text)
        } else {
            all.mut_subcommand(name, |of| of.after_help(text))
        }
    })
}

fn in_words(examples: &[(&str, &str)]) -> String {
    let mut text = "Examples:".to_owned();
    for (line, what) in examples {
        text.extend(["\n  ", line, "\n      ", what]);
    }
    text
}

#[cfg(test)]
mod tests {
    use clap::FromArgMatches as _;

    use super::*;

    #[test]
    fn every_subcommand_has_examples_and_all_of_them_are_understood() {
        let mut named: Vec<&str> =
            EXAMPLES.iter().map(|(name, _)| *name).filter(|name| !name.is_empty()).collect();
        let all = Cli::command();
        let mut subcommands: Vec<&str> = all.get_subcommands().map(Command::get_name).collect();
        named.sort_unstable();
        subcommands.sort_unstable();
        assert_eq!(named, subcommands);
        for (name, examples) in EXAMPLES {
            for (line, what) in *examples {
                // What a shell does with it is not ours.
                let ours = line.split(['|', '>']).next().unwrap().trim();
                let words: Vec<&str> =
                    ours.split_whitespace().skip_while(|word| *word != "tcptrace").collect();
                let matches =
                    command().try_get_matches_from(&words).unwrap_or_else(|error| panic!("{line}: {error}"));
                if !name.is_empty() {
                    assert_eq!(matches.subcommand_name(), Some(*name), "{line}");
                }
                Cli::from_arg_matches(&matches).unwrap();
                assert!(!what.is_empty() && cells(line) <= 94, "{line}");
            }
        }
    }

    fn cells(text: &str) -> usize {
        text.chars().count()
    }
}
