//! Takes the DWARF out of a BPF object and leaves what a loader reads, BTF above all.
//!
//! binutils does not know the format, and LLVM's tools are on few machines.

use anyhow::{Context as _, Result, bail};
use object::build::elf::{Builder, SectionData};

/// The object without `.debug_*` and their relocations.
pub(crate) fn debug_information(content: &[u8]) -> Result<Vec<u8>> {
    let mut builder = Builder::read(content)?;
    for section in &mut builder.sections {
        let name = section.name.to_string();
        section.delete =
            [".debug_", ".rel.debug_", ".rela.debug_"].iter().any(|prefix| name.starts_with(prefix))
                || name == ".llvm_addrsig";
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
