//! The filter that is typed into the screen: the options of the command line, written shorter.
//!
//! `port:80,443,8000-8099 comm:nginx container:web peer:10.0.0.0/8 netns:4026531840 pid:7 code:bind-conflict`. A word without a
//! colon is looked for in the row as it is shown.

use std::net::IpAddr;

use clap::Parser as _;

use crate::cli::args::{Cli, union};
use crate::event::{About, PlaceFilter};
use crate::finding::Finding;
use crate::output::Selection;

/// What is shown. The default shows everything.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// As it was typed.
    text: String,
    selection: Selection,
    /// Words that the row must have, in small letters.
    words: Vec<String>,
}

/// Finds the inode number of a network namespace by what a person calls it.
pub(crate) type FindNetns<'a> = &'a dyn Fn(&str) -> Result<u32, String>;

/// What a row of the screen is about, to be filtered.
#[derive(Clone, Debug, Default)]
pub(crate) struct Subject<'a> {
    pub(crate) netns: Option<u32>,
    pub(crate) ports: [Option<u16>; 2],
    /// Processes, where the row can be about one at all.
    pub(crate) processes: Option<Vec<(u32, &'a str)>>,
    pub(crate) container: Option<&'a str>,
    pub(crate) peer: Option<IpAddr>,
}

impl Filter {
    /// From what was typed.
    ///
    /// # Errors
    /// In words, when it is no filter, or one that nothing can pass.
    pub(crate) fn parse(text: &str, codes: &[&str], find_netns: FindNetns<'_>) -> Result<Self, String> {
        let mut words = Vec::new();
        let mut arguments = vec!["tcptrace".to_owned()];
        for word in text.split_whitespace() {
            match word.split_once(':') {
                Some((name, value)) => {
                    let option = match name {
                        "port" | "comm" | "container" | "peer" | "netns" | "pid" | "finding" | "code" => name,
                        "cgroup" | "unit" | "pod" => "container",
                        _ => {
                            return Err(format!(
                                "there is no filter {name}: port, comm, pid, container, peer, netns, code"
                            ));
                        }
                    };
                    arguments.push(format!("--{option}={value}"));
                }
                None => words.push(word.to_lowercase()),
            }
        }
        // The command line's own parser, so that there is one grammar.
        let cli = Cli::try_parse_from(arguments).map_err(|error| in_one_line(&error.to_string()))?;
        let (filter, asked) = (cli.watch.filter, cli.watch.selection);
        if let Some(unknown) = asked.finding.iter().find(|code| !codes.contains(&code.as_str())) {
            return Err(format!("there is no finding {unknown}; tcptrace explain lists them"));
        }
        let netns = filter.netns.iter().map(|name| find_netns(name)).collect::<Result<_, _>>()?;
        let selection = Selection {
            codes: asked.finding,
            pids: asked.parties.pid,
            comms: asked.parties.comm,
            containers: asked.parties.container,
            peers: asked.parties.peer,
            place: PlaceFilter { ports: union(&filter.port), netns },
        };
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        Ok(Self { text, selection, words })
    }

    /// What the command line asked for.
    pub fn of(selection: Selection) -> Self {
        let words: Vec<String> = selection
            .words()
            .iter()
            .filter_map(|word| word.strip_prefix("--"))
            .map(|word| word.replacen(' ', ":", 1))
            .collect();
        Self { text: words.join(" "), selection, words: Vec::new() }
    }

    /// As it was typed.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether it leaves nothing out.
    pub fn is_everything(&self) -> bool {
        self.words.is_empty() && self.selection.is_everything()
    }

    /// Whether words are looked for, for which the row must be written out.
    pub(crate) fn looks_for_words(&self) -> bool {
        !self.words.is_empty()
    }

    /// Whether a row that is shown so has the words.
    pub(crate) fn finds(&self, shown: &str) -> bool {
        let shown = shown.to_lowercase();
        self.words.iter().all(|word| shown.contains(word.as_str()))
    }

    /// Whether a finding is wanted.
    pub(crate) fn wants_finding(&self, finding: &Finding) -> bool {
        self.selection.wants(finding)
    }

    /// Whether a row that is about this is wanted. What a row cannot be about is no reason to leave it out.
    pub(crate) fn wants(&self, subject: &Subject<'_>) -> bool {
        let selection = &self.selection;
        if selection.is_everybody() {
            return true;
        }
        let about = About { netns: subject.netns, ports: subject.ports, ..About::default() };
        let by_peer = selection.peers.is_empty()
            || subject.peer.is_none_or(|peer| selection.peers.iter().any(|network| network.contains(peer)));
        selection.place.wants(&about) && by_peer && self.wants_process(subject)
    }

    fn wants_process(&self, subject: &Subject<'_>) -> bool {
        let Selection { pids, comms, containers, .. } = &self.selection;
        if pids.is_empty() && comms.is_empty() && containers.is_empty() {
            return true;
        }
        let Some(processes) = &subject.processes else { return true };
        let within = containers.is_empty()
            || containers
                .iter()
                .any(|wanted| subject.container.is_some_and(|of| of.contains(wanted.as_str())));
        within
            && (pids.is_empty() && comms.is_empty()
                || processes.iter().any(|(pid, comm)| {
                    (pids.is_empty() || pids.contains(pid))
                        && (comms.is_empty() || comms.iter().any(|wanted| wanted == comm))
                }))
    }
}

/// What clap says of a wrong value, without its advice.
fn in_one_line(error: &str) -> String {
    let first = error.lines().find(|line| !line.trim().is_empty()).unwrap_or("it cannot be read");
    first.trim().trim_start_matches("error: ").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Filter, String> {
        Filter::parse(text, &["bind-conflict", "port-leak"], &|name| {
            name.parse().map_err(|_| format!("no namespace {name}"))
        })
    }

    #[test]
    fn the_grammar_is_that_of_the_command_line() {
        let filter =
            parse("port:80,443 port:8000-8099 comm:nginx,haproxy container:web peer:10.0.0.0/8 netns:7 code:port-leak")
                .unwrap();
        let said: Vec<String> = filter.selection.words();
        assert_eq!(
            said,
            [
                "--port 80,443,8000-8099",
                "--netns 7",
                "--comm nginx",
                "--comm haproxy",
                "--container web",
                "--peer 10.0.0.0/8",
                "--finding port-leak"
            ]
        );
        assert!(!filter.looks_for_words());
        // What the command line asked for can be typed again.
        let again = parse(Filter::of(filter.selection.clone()).text()).unwrap();
        assert_eq!(again.selection.words(), said);
    }

    #[test]
    fn a_filter_that_nothing_passes_is_refused() {
        for (text, word) in [
            ("port:0", "port 0"),
            ("port:9-1", "9-1"),
            ("colour:red", "colour"),
            ("code:no-such", "no-such"),
            ("comm:averyveryverylongname", "15 bytes"),
            ("peer:10.0.0.0/99", "10.0.0.0/99"),
            ("netns:web", "no namespace web"),
            ("pid:x", "x"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(word) && !error.contains('\n'), "{text}: {error}");
        }
    }

    #[test]
    fn rows_are_wanted_by_what_they_are_about() {
        let subject = Subject {
            netns: Some(7),
            ports: [Some(443), None],
            processes: Some(vec![(33, "nginx")]),
            container: Some("docker:web-1"),
            peer: None,
        };
        for (text, wanted) in [
            ("", true),
            ("port:80,443", true),
            ("port:80", false),
            ("comm:nginx pid:33", true),
            ("comm:nginx pid:34", false),
            ("container:web", true),
            ("container:db", false),
            ("netns:7", true),
            ("netns:8", false),
            // It has no single peer, so that it may have to do with any.
            ("peer:10.0.0.0/8", true),
        ] {
            assert_eq!(parse(text).unwrap().wants(&subject), wanted, "{text}");
        }
        // What has no process at all is left to the other filters.
        let nobody = Subject { netns: Some(7), ..Subject::default() };
        assert!(parse("comm:nginx").unwrap().wants(&nobody));
    }

    #[test]
    fn words_are_found_in_any_case() {
        let filter = parse("NGINX 10.0").unwrap();
        assert!(filter.looks_for_words() && filter.finds("nginx[3] 10.0.0.1:80"));
        assert!(!filter.finds("nginx[3] 10.1.0.1:80"));
    }
}
