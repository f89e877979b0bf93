//! `tcptrace export`: a recording in another form.

use std::io;

use super::{
    args::{ExportArgs, ExportFormat},
    exit::{Exit, Failure},
};
use crate::output::stdout_export;
use crate::record::{
    ReadError, Reader, TapeError, create,
    export::{ExportError, Format, export},
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
            export(&mut reader, format, io::BufWriter::new(file))
        }
        None => export(&mut reader, format, stdout_export()),
    };
    for damage in reader.damage() {
        log::warn!("{}: {damage}", args.file.display());
    }
    match done {
        Ok(_) => Ok(Exit::Done),
        Err(ExportError::Write(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(Exit::Done),
        Err(ExportError::Read(error)) => Err(unreadable(error)),
        Err(ExportError::Write(error)) => Err(super::trace::cannot_write(&error)),
    }
}
