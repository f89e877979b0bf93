//! `tcptrace export`: a recording in another form.

use std::{
    fs::{self, File},
    io,
    path::Path,
};

use super::{
    args::{ExportArgs, ExportFormat},
    exit::{Exit, Failure},
    tape, trace,
};
use crate::output::stdout_export;
use crate::record::{
    Condition, Mark, ReadError, Reader, TapeError, create,
    export::{ExportError, Format, export},
    write_failure,
};

pub(super) fn run(args: &ExportArgs) -> Result<Exit, Failure> {
    let format = match args.format {
        ExportFormat::Parquet => Format::Parquet,
        ExportFormat::Jsonl => Format::Jsonl,
        ExportFormat::Csv => Format::Csv,
    };
    let unreadable = |error: ReadError| Failure::from(TapeError { path: args.file.clone(), error });
    let mut reader = Reader::open(&args.file).map_err(unreadable)?;
    let done = match &args.output {
        Some(path) => {
            let file = create(path, args.force)
                .map_err(|error| Failure::new(Exit::Usage, format!("{}: {error}", path.display())))?;
            to_file(&mut reader, format, path, &file)
        }
        None => export(&mut reader, format, stdout_export()),
    };
    let marks = reader.damage().iter().map(|damage| Mark::new(Some(&args.file), damage)).collect();
    let condition = Condition { marks };
    let output =
        args.output.as_ref().map_or_else(|| "the output".to_owned(), |path| path.display().to_string());
    match done {
        Ok(0) if !condition.is_complete() => Err(tape::unreadable(&condition)),
        Ok(_) => {
            for mark in &condition.marks {
                log::warn!("{mark}");
            }
            Ok(Exit::Done)
        }
        Err(ExportError::Write(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(Exit::Done),
        Err(ExportError::Write(error)) => Err(Failure::new(
            Exit::CannotWrite,
            format!("{output} cannot be written: {}{}", write_failure(&error), trace::full(&error)),
        )),
        Err(ExportError::Read(error)) => Err(unreadable(error)),
    }
}

/// Exports to a file, down to the disk. Half an export looks like a whole one, so none is left.
fn to_file(reader: &mut Reader<File>, format: Format, path: &Path, file: &File) -> Result<u64, ExportError> {
    let is_file = file.metadata().is_ok_and(|found| found.is_file());
    let done = export(reader, format, io::BufWriter::new(file));
    let done = done.and_then(|rows| {
        if is_file {
            file.sync_all()?;
        }
        Ok(rows)
    });
    if done.is_err() && is_file {
        let _gone = fs::remove_file(path);
    }
    done
}
