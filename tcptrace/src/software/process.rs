//! What a process is, by its name and command line.

use std::cell::OnceCell;

use serde::Deserialize;

/// The kernel keeps this much of a command name.
const COMM_LENGTH: usize = 15;

/// Words of a command line that are looked at. Virtual machines have long ones.
const WORDS: usize = 512;

/// Programs that run other programs' text.
const INTERPRETERS: [&str; 14] = [
    "python*", "pypy*", "node", "nodejs", "bun", "ruby*", "jruby", "perl*", "php", "java", "sh", "bash",
    "dash", "env",
];

/// A name, with `*` before or behind it for any text.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub(super) struct Pattern(String);

impl Pattern {
    fn fits(&self, text: &str) -> bool {
        fits(&self.0, text)
    }

    /// As `fits`, for a name of which the kernel has kept the beginning.
    fn fits_comm(&self, comm: &str) -> bool {
        let cut = self
            .0
            .char_indices()
            .nth(COMM_LENGTH)
            .map_or(self.0.as_str(), |(end, _)| self.0.get(..end).unwrap_or(&self.0));
        self.fits(comm) || (comm.len() >= COMM_LENGTH && fits(cut, comm))
    }
}

fn fits(pattern: &str, text: &str) -> bool {
    match (pattern.strip_prefix('*'), pattern.strip_suffix('*')) {
        (Some(_), Some(_)) => text.contains(pattern.trim_matches('*')),
        (Some(end), None) => text.ends_with(end),
        (None, Some(start)) => text.starts_with(start),
        (None, None) => text == pattern,
    }
}

/// A process as it may be recognised. Whatever it has written there: it is compared, and nothing else.
#[derive(Debug, Default)]
pub struct Process<'a> {
    comm: &'a str,
    command: Option<&'a str>,
    parts: OnceCell<Parts<'a>>,
}

/// The parts of a command line that tell.
#[derive(Debug, Default)]
struct Parts<'a> {
    words: Vec<&'a str>,
    /// The program that was started, without its directory.
    program: Option<&'a str>,
    /// What it interprets: a script's name without its directory, or a module.
    script: Option<&'a str>,
    is_interpreter: bool,
}

impl<'a> Process<'a> {
    /// From its command name and its command line, the arguments joined by blanks.
    pub fn new(comm: &'a str, command: Option<&'a str>) -> Self {
        Self { comm, command: command.filter(|command| !command.trim().is_empty()), parts: OnceCell::new() }
    }

    fn parts(&self) -> &Parts<'a> {
        self.parts.get_or_init(|| self.command.map(Parts::of).unwrap_or_default())
    }

    /// Whether it is one of these programs. The command name counts where the command line is not known, or is that of an
    /// interpreter: who starts a script by its own name gets the script's.
    pub(super) fn runs(&self, names: &[Pattern]) -> bool {
        let parts = self.parts();
        let named = |text: Option<&str>| text.is_some_and(|text| names.iter().any(|name| name.fits(text)));
        named(parts.program)
            || named(parts.script)
            || ((self.command.is_none() || parts.is_interpreter)
                && names.iter().any(|name| name.fits_comm(self.comm)))
    }

    pub(super) fn is_started_as(&self, paths: &[Pattern]) -> bool {
        self.parts().words.first().is_some_and(|first| paths.iter().any(|path| path.fits(first)))
    }

    /// Whether one of its arguments is one of these, the program itself left out.
    pub(super) fn has_argument(&self, arguments: &[Pattern]) -> bool {
        let mut words = self.parts().words.iter().skip(1);
        words.any(|word| arguments.iter().any(|argument| argument.fits(word)))
    }

    /// Whether it is one of these interpreters.
    pub(super) fn is_run_by(&self, interpreters: &[Pattern]) -> bool {
        match self.parts().program {
            Some(program) => interpreters.iter().any(|name| name.fits(program)),
            None => interpreters.iter().any(|name| name.fits_comm(self.comm)),
        }
    }
}

impl<'a> Parts<'a> {
    fn of(command: &'a str) -> Self {
        let words: Vec<&str> = command.split(' ').filter(|word| !word.is_empty()).take(WORDS).collect();
        let Some(first) = words.first() else { return Self::default() };
        // Servers that write their role there put a colon behind their name: `nginx: worker process`.
        let program = base(first).trim_end_matches(':');
        let is_interpreter = INTERPRETERS.iter().any(|name| fits(name, program));
        let script = if is_interpreter { script(&words) } else { None };
        Self { program: Some(program), script, is_interpreter, words }
    }
}

/// What an interpreter runs: the first argument that is no option, or the module behind `-m`.
fn script<'a>(words: &[&'a str]) -> Option<&'a str> {
    let mut words = words.iter().skip(1);
    while let Some(word) = words.next() {
        match *word {
            "-m" => return words.next().and_then(|module| module.split('.').next()),
            // A program's text, or the standard input.
            "-c" | "-e" | "-" => return None,
            option if option.starts_with('-') => {}
            script => return Some(base(script).trim_end_matches(':')),
        }
    }
    None
}

fn base(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}
