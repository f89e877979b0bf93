//! Takes the DWARF out of a BPF object and leaves what a loader needs, BTF above all. The lines of the source, with which a
//! verifier may comment on what it refuses, are half of the object and go, too: the user of a refused program cannot do
//! anything with them, and whoever can has the sources and `llvm-objdump`.
//!
//! binutils does not know the format, and LLVM's tools are on few machines.

use anyhow::{Context as _, Result, bail};
use object::build::elf::{Builder, SectionData};

/// The object without `.debug_*`, without line information, and without the relocations of either.
pub(crate) fn debug_information(content: &[u8]) -> Result<Vec<u8>> {
    let mut builder = Builder::read(content)?;
    for section in &mut builder.sections {
        let name = section.name.to_string();
        section.delete = [".debug_", ".rel.debug_", ".rela.debug_", ".rel.BTF.ext"]
            .iter()
            .any(|prefix| name.starts_with(prefix))
            || name == ".llvm_addrsig";
        if name == ".BTF.ext" {
            let SectionData::Data(data) = &mut section.data else { bail!(".BTF.ext is no data") };
            *data = line_information(data)?.into();
        }
    }
    // A symbol whose section is gone stands for debug information; so do relocations against it.
    builder.delete_orphans();
    // LLVM keeps the sections' names in the symbols' string table; the writer wants a table for each.
    if !builder.sections.iter().any(|section| matches!(section.data, SectionData::SectionString)) {
        let names = builder.sections.add();
        names.name = ".shstrtab".into();
        names.sh_type = object::elf::SHT_STRTAB;
        names.sh_addralign = 1;
        names.data = SectionData::SectionString;
    }
    let mut stripped = Vec::new();
    builder.write(&mut stripped)?;
    verify(&stripped)?;
    Ok(stripped)
}

/// `.BTF.ext` without its lines.
fn line_information(content: &[u8]) -> Result<Vec<u8>> {
    // struct btf_ext_header (the kernel's Documentation/bpf/btf.rst), of which all offsets count from its end.
    const HEADER_LENGTH: usize = 4;
    const FUNCTIONS: usize = 8;
    const LINES: usize = 16;
    const LINES_LENGTH: usize = 20;
    const RELOCATIONS: usize = 24;
    const RELOCATIONS_LENGTH: usize = 28;
    let word = |at: usize| -> Result<usize> {
        let bytes = content.get(at..).and_then(<[u8]>::first_chunk).context(".BTF.ext is cut off")?;
        Ok(usize::try_from(u32::from_le_bytes(*bytes))?)
    };
    let (header, functions, lines) = (word(HEADER_LENGTH)?, word(FUNCTIONS)?, word(LINES)?);
    let end = header + lines;
    if functions > lines
        || end + word(LINES_LENGTH)? != content.len()
        || header < RELOCATIONS_LENGTH + 4
        || word(RELOCATIONS_LENGTH)? != 0
    {
        bail!(".BTF.ext is not laid out as LLVM does: functions, then lines, and nothing else");
    }
    let mut shorter = content.get(..end).context(".BTF.ext is cut off")?.to_vec();
    // No relocations there are too, and where they would stand must lie within the section.
    for (at, value) in [(LINES_LENGTH, 0), (RELOCATIONS, lines)] {
        let word = shorter.get_mut(at..at + 4).context(".BTF.ext is cut off")?;
        word.copy_from_slice(&u32::try_from(value)?.to_le_bytes());
    }
    Ok(shorter)
}

/// What every loader needs; an object without it would fail only on a user's machine.
fn verify(content: &[u8]) -> Result<()> {
    use object::{Object as _, ObjectSection as _};
    let object = object::File::parse(content)?;
    for name in [".BTF", ".BTF.ext", "license"] {
        let section =
            object.section_by_name(name).with_context(|| format!("the object has no {name} section"))?;
        if section.size() == 0 {
            bail!("the object's {name} section is empty");
        }
    }
    Ok(())
}
