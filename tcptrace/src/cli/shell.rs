//! `tcptrace completions` and `tcptrace man`: what a shell and man(1) need, made from the command line's own description.

use std::io::Write as _;

use super::{
    args::{CompletionsArgs, ManArgs, Shell},
    examples,
    exit::{Exit, Failure},
    trace,
};
use crate::output::{ended, stdout_export};

pub(super) fn completions(args: &CompletionsArgs) -> Result<Exit, Failure> {
    print(&completions_of(args.shell))
}

fn completions_of(shell: Shell) -> Vec<u8> {
    let mut text = Vec::new();
    let mut all = examples::command();
    let mut with = |generator: clap_complete::Shell| {
        clap_complete::generate(generator, &mut all, "tcptrace", &mut text);
    };
    match shell {
        Shell::Bash => with(clap_complete::Shell::Bash),
        Shell::Elvish => with(clap_complete::Shell::Elvish),
        Shell::Fish => with(clap_complete::Shell::Fish),
        Shell::Powershell => with(clap_complete::Shell::PowerShell),
        Shell::Zsh => with(clap_complete::Shell::Zsh),
        Shell::Nushell => {
            clap_complete::generate(clap_complete_nushell::Nushell, &mut all, "tcptrace", &mut text);
        }
    }
    text
}

pub(super) fn manual(args: &ManArgs) -> Result<Exit, Failure> {
    let mut all = examples::command();
    all.build();
    let page = match &args.subcommand {
        None => all,
        Some(name) => {
            let Some(found) = all.find_subcommand(name) else {
                let known: Vec<&str> = all.get_subcommands().map(clap::Command::get_name).collect();
                let message =
                    format!("man {name}: there is no such subcommand; there are {}", known.join(", "));
                return Err(Failure::new(Exit::Usage, message));
            };
            let title: &'static str = format!("tcptrace-{name}").leak();
            found.clone().name(title)
        }
    };
    let mut text = Vec::new();
    clap_mangen::Man::new(page).render(&mut text).map_err(|error| trace::cannot_write(&error))?;
    print(&text)
}

fn print(text: &[u8]) -> Result<Exit, Failure> {
    let mut out = stdout_export();
    let written = out.write_all(text).and_then(|()| out.flush());
    ended(written).map_err(|error| trace::cannot_write(&error))?;
    Ok(Exit::Done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_subcommand_has_a_page_and_every_shell_its_completions() {
        for subcommand in examples::command().get_subcommands() {
            let mut page = Vec::new();
            clap_mangen::Man::new(subcommand.clone()).render(&mut page).unwrap();
            assert!(String::from_utf8(page).unwrap().contains(".TH"));
        }
        for shell in clap::ValueEnum::value_variants() {
            let text = String::from_utf8(completions_of(*shell)).unwrap();
            assert!(text.contains("rehearse"), "{shell:?}");
        }
    }
}
