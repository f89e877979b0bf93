//! Recordings in other forms: the same rows and columns as JSON lines, CSV or Parquet.

use std::io::{self, Read, Write};
use std::sync::Arc;

use arrow_array::cast::AsArray as _;
use arrow_array::types::{Int32Type, TimestampNanosecondType, UInt8Type, UInt16Type, UInt32Type, UInt64Type};
use arrow_array::{Array, ArrayRef, RecordBatch};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;
use serde_json::{Map, Value};

use crate::event::Timestamp;
use crate::output::json::RowLine;
use crate::output::{JsonWriter, escape, go_on};

use super::damage::ReadError;
use super::reader::Reader;

/// The form of an export.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// One JSON object a line; empty columns are left out.
    Jsonl,
    /// Comma-separated values, names in the first line.
    Csv,
    /// Parquet, packed with zstd.
    Parquet,
}

/// Why an export failed.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The recording.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The output.
    #[error("the output cannot be written: {0}")]
    Write(#[from] io::Error),
}

/// Writes every row of `from` to `to`; how many could be read. Rows of `lost` events stand where some are missing.
///
/// # Errors
/// When the recording cannot be read, or the output not be written.
pub fn export<R: Read>(
    from: &mut Reader<R>,
    format: Format,
    to: impl Write + Send,
) -> Result<u64, ExportError> {
    match format {
        Format::Jsonl => {
            let mut to = JsonWriter::new(to, &from.metadata().host, "export");
            while let Some(batch) = from.next_batch()? {
                for row in 0..batch.num_rows() {
                    let (time, line) = json_line(&batch, row);
                    go_on(to.write(time, &line.into()))?;
                }
            }
            go_on(to.flush())?;
            Ok(u64::try_from(from.rows_read()).unwrap_or(u64::MAX))
        }
        Format::Csv => {
            let mut to = to;
            let schema = from.schema();
            let names: Vec<String> = schema.fields().iter().map(|field| quoted(field.name())).collect();
            writeln!(to, "{}", names.join(","))?;
            lines(from, to, csv_line)
        }
        Format::Parquet => parquet(from, to),
    }
}

fn lines<R: Read>(
    from: &mut Reader<R>,
    mut to: impl Write,
    line: impl Fn(&RecordBatch, usize) -> String,
) -> Result<u64, ExportError> {
    while let Some(batch) = from.next_batch()? {
        for row in 0..batch.num_rows() {
            writeln!(to, "{}", line(&batch, row))?;
        }
    }
    to.flush()?;
    Ok(u64::try_from(from.rows_read()).unwrap_or(u64::MAX))
}

fn json_line(batch: &RecordBatch, row: usize) -> (Timestamp, RowLine) {
    let mut object = Map::new();
    let mut time = Timestamp::default();
    for (field, column) in batch.schema_ref().fields().iter().zip(batch.columns()) {
        let stamp = column.as_primitive_opt::<TimestampNanosecondType>().filter(|_| field.name() == "time");
        if let Some(of) = stamp.filter(|of| of.is_valid(row)) {
            time = Timestamp::from_nanos(of.value(row).cast_unsigned());
            continue;
        }
        let value = match cell(column, row) {
            Value::Null => continue,
            // All of a rare event: JSON in itself.
            Value::String(json) if field.name() == "detail" => {
                serde_json::from_str(&json).unwrap_or(Value::String(json))
            }
            value => value,
        };
        object.insert(field.name().clone(), value);
    }
    (time, RowLine(object))
}

fn csv_line(batch: &RecordBatch, row: usize) -> String {
    let cells = batch.columns().iter().map(|column| match cell(column, row) {
        Value::Null => String::new(),
        Value::String(text) => quoted(&text),
        Value::Array(numbers) => quoted(&Value::Array(numbers).to_string()),
        other => other.to_string(),
    });
    cells.collect::<Vec<_>>().join(",")
}

/// A text as a CSV cell: quoted where it must be, nothing in it that moves a terminal, and no formula for a spreadsheet.
fn quoted(text: &str) -> String {
    let text = escape(text);
    let formula = if text.starts_with(['=', '+', '-', '@']) { "'" } else { "" };
    if formula.is_empty() && !text.contains([',', '"', ' ', '\'']) {
        return text.into_owned();
    }
    format!("\"{formula}{}\"", text.replace('"', "\"\""))
}

/// One cell. Types that this version does not write are empty.
fn cell(column: &ArrayRef, row: usize) -> Value {
    if column.is_null(row) {
        return Value::Null;
    }
    if let Some(of) = column.as_primitive_opt::<TimestampNanosecondType>() {
        return Timestamp::from_nanos(of.value(row).cast_unsigned()).to_string().into();
    }
    if let Some(of) = column.as_primitive_opt::<UInt8Type>() {
        return of.value(row).into();
    }
    if let Some(of) = column.as_primitive_opt::<UInt16Type>() {
        return of.value(row).into();
    }
    if let Some(of) = column.as_primitive_opt::<UInt32Type>() {
        return of.value(row).into();
    }
    if let Some(of) = column.as_primitive_opt::<UInt64Type>() {
        return of.value(row).into();
    }
    if let Some(of) = column.as_boolean_opt() {
        return of.value(row).into();
    }
    if let Some(of) = column.as_string_opt::<i32>() {
        return of.value(row).into();
    }
    if let Some(of) = column.as_dictionary_opt::<Int32Type>() {
        return match (of.key(row), of.values().as_string_opt::<i32>()) {
            (Some(key), Some(values)) if key < values.len() => values.value(key).into(),
            _ => Value::Null,
        };
    }
    if let Some(of) = column.as_list_opt::<i32>() {
        let numbers = of.value(row);
        return numbers
            .as_primitive_opt::<UInt64Type>()
            .map_or(Value::Null, |of| of.values().to_vec().into());
    }
    Value::Null
}

fn parquet<R: Read>(from: &mut Reader<R>, to: impl Write + Send) -> Result<u64, ExportError> {
    // What the output said is inside, and decides how we end.
    let wrong = |error: parquet::errors::ParquetError| {
        ExportError::Write(match error {
            parquet::errors::ParquetError::External(inner) => match inner.downcast::<io::Error>() {
                Ok(inner) => *inner,
                Err(other) => io::Error::other(other),
            },
            other => io::Error::other(other),
        })
    };
    let level = ZstdLevel::try_new(3).map_err(wrong)?;
    let properties = WriterProperties::builder().set_compression(Compression::ZSTD(level)).build();
    let schema = Arc::new(from.schema());
    let mut writer = ArrowWriter::try_new(to, schema, Some(properties)).map_err(wrong)?;
    while let Some(batch) = from.next_batch()? {
        writer.write(&batch).map_err(wrong)?;
        // Row groups of bounded size keep the memory bounded.
        if writer.in_progress_size() > 64 << 20 {
            writer.flush().map_err(wrong)?;
        }
    }
    writer.close().map_err(wrong)?;
    Ok(u64::try_from(from.rows_read()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_quoted_and_harmless() {
        assert_eq!(quoted("nginx"), "nginx");
        assert_eq!(quoted("a,\"b\""), "\"a,\"\"b\"\"\"");
        assert_eq!(quoted("=HYPERLINK(1)"), "\"'=HYPERLINK(1)\"");
        assert_eq!(quoted("a\nb\u{1b}"), "a\\nb\\x1b");
    }
}
