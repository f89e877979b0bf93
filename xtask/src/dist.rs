//! `cargo xtask dist`: what people install: one static, stripped program, with its completions and manual pages beside it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::arch::Arch;
use crate::{binary, paths, tool};

/// Shells that `tcptrace completions` knows, and what each calls such a file.
const COMPLETIONS: &[(&str, &str)] = &[
    ("bash", "completions/tcptrace.bash"),
    ("zsh", "completions/_tcptrace"),
    ("fish", "completions/tcptrace.fish"),
    ("nushell", "completions/tcptrace.nu"),
];

/// Builds it and gives its directory.
pub(crate) fn build(arch: Arch) -> Result<PathBuf> {
    let program = binary::build_as("dist", arch)?;
    ensure!(is_static(&program)?, "{} needs an interpreter: it is not static", program.display());
    // One that this machine can run says what goes beside it.
    let speaker = match arch {
        Arch::X86_64 => program.clone(),
        Arch::Arm64 => binary::build(Arch::X86_64)?,
    };
    let version = tool::capture_text(Command::new(&speaker).arg("--version"))?;
    let version = version.split_whitespace().last().context("tcptrace --version says nothing")?;
    let directory =
        paths::target()?.join("dist").join(format!("tcptrace-{version}-{}-linux", arch.processor()));
    if directory.exists() {
        fs::remove_dir_all(&directory).with_context(|| format!("clearing {}", directory.display()))?;
    }
    for part in ["completions", "man"] {
        let part = directory.join(part);
        fs::create_dir_all(&part).with_context(|| format!("creating {}", part.display()))?;
    }
    fs::copy(&program, directory.join("tcptrace")).context("copying the program")?;
    for (shell, file) in COMPLETIONS {
        keep(&speaker, &["completions", shell], &directory.join(file))?;
    }
    keep(&speaker, &["man"], &directory.join("man/tcptrace.1"))?;
    for subcommand in subcommands(&speaker)? {
        let file = directory.join(format!("man/tcptrace-{subcommand}.1"));
        keep(&speaker, &["man", &subcommand], &file)?;
    }
    let workspace = paths::workspace()?;
    for file in ["README.md", "LICENSE-APACHE", "LICENSE-MIT", "LICENSE-GPL2"] {
        fs::copy(workspace.join(file), directory.join(file)).with_context(|| file.to_owned())?;
    }
    pack(&directory)?;
    Ok(directory)
}

/// Writes what `tcptrace ARGUMENTS` prints into `file`.
fn keep(program: &Path, arguments: &[&str], file: &Path) -> Result<()> {
    let text = tool::capture(Command::new(program).args(arguments))?.stdout;
    fs::write(file, text).with_context(|| format!("writing {}", file.display()))
}

/// The subcommands that `tcptrace --help` lists.
fn subcommands(program: &Path) -> Result<Vec<String>> {
    let help = tool::capture_text(Command::new(program).arg("--help"))?;
    let listed = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let listed = listed.take_while(|line| !line.trim().is_empty());
    // What a command does may go on below it, further in.
    let names = listed.filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    let names: Vec<String> = names
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| *name != "help")
        .map(str::to_owned)
        .collect();
    ensure!(names.len() > 5, "tcptrace --help lists no commands");
    Ok(names)
}

/// Whether a program needs no dynamic linker, so that it runs on distributions older than this one.
fn is_static(program: &Path) -> Result<bool> {
    use object::read::elf::{ElfFile64, ProgramHeader as _};
    let bytes = fs::read(program).with_context(|| format!("reading {}", program.display()))?;
    let file = ElfFile64::<object::Endianness>::parse(&*bytes).context("an ELF file")?;
    let endian = file.endian();
    Ok(file.elf_program_headers().iter().all(|header| header.p_type(endian) != object::elf::PT_INTERP))
}

fn pack(directory: &Path) -> Result<()> {
    let (parent, name) = directory.parent().zip(directory.file_name()).context("a directory with a name")?;
    let archive = format!("{}.tar.gz", directory.display());
    tool::run(Command::new("tar").arg("-C").arg(parent).args(["-czf", &archive]).arg(name))
}
