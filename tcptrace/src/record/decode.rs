//! Unpacks record batches that anybody may have written.
//!
//! A checksum shows that a batch is what was written, not by whom. So nothing in it is believed: every buffer's place and length is
//! compared with the message's body, what it unpacks to is limited before it is unpacked and counted afterwards, and each
//! array is validated when it is made. Buffers are unpacked into memory of our own, which is aligned whatever the file says.

use std::collections::BTreeMap;
use std::iter::Peekable;
use std::vec::IntoIter;

use arrow_array::{ArrayRef, RecordBatch, RecordBatchOptions, make_array, new_null_array};
use arrow_buffer::{Buffer, MutableBuffer};
use arrow_data::ArrayData;
use arrow_ipc::convert::try_fb_to_schema;
use arrow_ipc::{CompressionType, FieldNode, Message};
use arrow_schema::{ArrowError, DataType, Schema, SchemaRef};
use zstd::bulk::Decompressor;

/// No batch has more rows: four times as many as we write at once.
pub(super) const MOST_ROWS: usize = 1 << 17;

/// A batch and its dictionaries together unpack to no more bytes than this. We write a tenth of it at most.
pub(super) const MOST_UNPACKED: usize = 96 << 20;

/// No schema has more columns.
const MOST_COLUMNS: usize = 1 << 10;

/// Why a batch is not unpacked.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unsound {
    #[error("{0}")]
    Impossible(&'static str),
    #[error("a column of a type that this version does not know ({0})")]
    Type(DataType),
    #[error("it unpacks to more than {} MB", MOST_UNPACKED >> 20)]
    TooLarge,
    #[error("it cannot be unpacked: {0}")]
    Packed(#[from] std::io::Error),
    #[error("{0}")]
    Arrow(#[from] ArrowError),
}

/// The columns of a file.
#[derive(Clone, Debug)]
pub(super) struct Columns {
    pub(super) schema: SchemaRef,
    /// For each column, the number of its dictionary, if it has one.
    dictionaries: Vec<Option<i64>>,
}

impl Columns {
    /// As a header describes them; `None` if that is not possible.
    pub(super) fn of(schema: arrow_ipc::Schema<'_>) -> Option<Self> {
        let fields = schema.fields()?;
        if fields.len() > MOST_COLUMNS {
            return None;
        }
        let dictionaries = fields.iter().map(|field| Some(field.dictionary()?.id())).collect();
        let schema = SchemaRef::new(try_fb_to_schema(schema).ok()?);
        Some(Self { schema, dictionaries })
    }

    /// How many nodes a batch of these columns has: one a column, and one for the items of a list.
    pub(super) fn nodes(&self) -> usize {
        self.schema.fields().iter().map(|field| nodes(field.data_type())).sum()
    }
}

fn nodes(of: &DataType) -> usize {
    match of {
        DataType::List(item) => 1 + nodes(item.data_type()),
        _ => 1,
    }
}

/// Unpacks batches.
pub(super) struct Unpacker(Decompressor<'static>);

impl Unpacker {
    /// # Errors
    /// When there is no memory.
    pub(super) fn new() -> std::io::Result<Self> {
        Decompressor::new().map(Self)
    }

    /// The rows of a batch, whose dictionaries come before it. Without `all`, columns in which every row is empty are left out.
    pub(super) fn rows(
        &mut self,
        dictionaries: &[(Message<'_>, &[u8])],
        rows: (Message<'_>, &[u8]),
        columns: &Columns,
        all: bool,
    ) -> Result<RecordBatch, Unsound> {
        let mut left = MOST_UNPACKED;
        let mut known: BTreeMap<i64, ArrayData> = BTreeMap::new();
        for (message, body) in dictionaries {
            let impossible = || Unsound::Impossible("an impossible dictionary");
            let dictionary = message.header_as_dictionary_batch().ok_or_else(impossible)?;
            let owner = columns.dictionaries.iter().position(|of| *of == Some(dictionary.id()));
            let field = owner.and_then(|index| columns.schema.fields().get(index)).ok_or_else(impossible)?;
            let DataType::Dictionary(_, of) = field.data_type() else { return Err(impossible()) };
            let data = dictionary.data().ok_or_else(impossible)?;
            if dictionary.isDelta() || known.contains_key(&dictionary.id()) {
                return Err(impossible());
            }
            let count = length(data.length())?;
            let mut batch = Batch::new(&data, body, &mut self.0, &mut left)?;
            known.insert(dictionary.id(), batch.array(of, None, Some(count), &known)?);
        }
        let (message, body) = rows;
        let data = message.header_as_record_batch().ok_or(Unsound::Impossible("a batch without a header"))?;
        let count = length(data.length())?;
        let mut batch = Batch::new(&data, body, &mut self.0, &mut left)?;
        let (mut fields, mut arrays) = (Vec::new(), Vec::<ArrayRef>::new());
        for (field, dictionary) in columns.schema.fields().iter().zip(&columns.dictionaries) {
            let of = field.data_type();
            let empty = batch.next_is_empty();
            if empty {
                batch.skip(of, Some(count))?;
                if !all {
                    continue;
                }
                // What it would unpack to counts all the same.
                let width = of.primitive_width().unwrap_or(8);
                batch.take(count.saturating_mul(width))?;
                arrays.push(new_null_array(of, count));
            } else {
                arrays.push(make_array(batch.array(of, *dictionary, Some(count), &known)?));
            }
            fields.push(std::sync::Arc::clone(field));
        }
        let schema = Schema::new_with_metadata(fields, columns.schema.metadata().clone());
        let options = RecordBatchOptions::new().with_row_count(Some(count));
        Ok(RecordBatch::try_new_with_options(SchemaRef::new(schema), arrays, &options)?)
    }
}

/// A number of rows or items.
fn length(of: i64) -> Result<usize, Unsound> {
    let length = usize::try_from(of).ok().filter(|length| *length <= MOST_ROWS);
    length.ok_or(Unsound::Impossible("an impossible number of rows"))
}

/// What a message says of its arrays, taken one by one.
struct Batch<'a> {
    nodes: Peekable<IntoIter<FieldNode>>,
    buffers: IntoIter<arrow_ipc::Buffer>,
    body: &'a [u8],
    packed: bool,
    zstd: &'a mut Decompressor<'static>,
    left: &'a mut usize,
}

impl<'a> Batch<'a> {
    fn new(
        of: &arrow_ipc::RecordBatch<'_>,
        body: &'a [u8],
        zstd: &'a mut Decompressor<'static>,
        left: &'a mut usize,
    ) -> Result<Self, Unsound> {
        let packed = match of.compression().map(|how| how.codec()) {
            None => false,
            Some(CompressionType::ZSTD) => true,
            Some(_) => return Err(Unsound::Impossible("it is not packed with zstd")),
        };
        let nodes: Vec<FieldNode> = of.nodes().iter().flatten().copied().collect();
        let buffers: Vec<arrow_ipc::Buffer> = of.buffers().iter().flatten().copied().collect();
        Ok(Self {
            nodes: nodes.into_iter().peekable(),
            buffers: buffers.into_iter(),
            body,
            packed,
            zstd,
            left,
        })
    }

    /// Whether every row of the next column is empty.
    fn next_is_empty(&mut self) -> bool {
        self.nodes.peek().is_some_and(|node| node.null_count() >= node.length())
    }

    /// The next node: its length, which is `count` if that is given, and whether any of its values is null.
    fn node(&mut self, count: Option<usize>) -> Result<(usize, bool), Unsound> {
        let impossible = Unsound::Impossible("a column of an impossible length");
        let Some(node) = self.nodes.next() else {
            return Err(Unsound::Impossible("fewer columns than there are"));
        };
        let Ok(length) = usize::try_from(node.length()) else { return Err(impossible) };
        if length > MOST_UNPACKED || count.is_some_and(|count| count != length) {
            return Err(impossible);
        }
        Ok((length, node.null_count() != 0))
    }

    /// Passes over a column.
    fn skip(&mut self, of: &DataType, count: Option<usize>) -> Result<(), Unsound> {
        self.node(count)?;
        let buffers = match of {
            DataType::Utf8 | DataType::Binary => 3,
            _ => 2,
        };
        for _ in 0..buffers {
            self.buffers.next();
        }
        match of {
            DataType::List(item) => self.skip(item.data_type(), None),
            DataType::Boolean | DataType::Dictionary(_, _) | DataType::Utf8 | DataType::Binary => Ok(()),
            _ if of.primitive_width().is_some() => Ok(()),
            _ => Err(Unsound::Type(of.clone())),
        }
    }

    /// The next column, or the items of a list.
    fn array(
        &mut self,
        of: &DataType,
        dictionary: Option<i64>,
        count: Option<usize>,
        known: &BTreeMap<i64, ArrayData>,
    ) -> Result<ArrayData, Unsound> {
        let (length, nulls) = self.node(count)?;
        let validity = self.buffer(length.div_ceil(8), nulls)?;
        let validity = nulls.then_some(validity);
        // One offset more than there are texts or lists; none at all may stand for no texts.
        let offsets = if length == 0 { 0 } else { 4 * (length + 1) };
        let (buffers, children) = match of {
            DataType::Boolean => (vec![self.buffer(length.div_ceil(8), true)?], Vec::new()),
            DataType::Utf8 | DataType::Binary => {
                (vec![self.buffer(offsets, true)?, self.texts()?], Vec::new())
            }
            DataType::List(item) => {
                let offsets = self.buffer(offsets, true)?;
                (vec![offsets], vec![self.array(item.data_type(), None, None, known)?])
            }
            DataType::Dictionary(key, _) => {
                let width = key.primitive_width().ok_or_else(|| Unsound::Type(of.clone()))?;
                let keys = self.buffer(length.saturating_mul(width), true)?;
                let words = dictionary.and_then(|id| known.get(&id));
                (vec![keys], vec![words.ok_or(Unsound::Impossible("a dictionary is missing"))?.clone()])
            }
            _ => {
                let width = of.primitive_width().ok_or_else(|| Unsound::Type(of.clone()))?;
                (vec![self.buffer(length.saturating_mul(width), true)?], Vec::new())
            }
        };
        Ok(ArrayData::try_new(of.clone(), length, validity, 0, buffers, children)?)
    }

    /// The next buffer, of which `length` bytes are used: what is behind them, which no writer of ours leaves, could be half a
    /// number. One that is not `wanted` stays packed.
    fn buffer(&mut self, length: usize, wanted: bool) -> Result<Buffer, Unsound> {
        if !wanted {
            let passed = self.buffers.next().map(|_| Buffer::default());
            return passed.ok_or(Unsound::Impossible("fewer buffers than there are"));
        }
        let buffer = self.texts()?;
        if buffer.len() < length {
            return Err(Unsound::Impossible("a buffer that is too short"));
        }
        Ok(buffer.slice_with_length(0, length))
    }

    /// The next buffer, as long as it is.
    fn texts(&mut self) -> Result<Buffer, Unsound> {
        let impossible = || Unsound::Impossible("an impossible buffer");
        let place = self.buffers.next().ok_or_else(impossible)?;
        let start = usize::try_from(place.offset()).map_err(|_| impossible())?;
        let length = usize::try_from(place.length()).map_err(|_| impossible())?;
        let end = start.checked_add(length).ok_or_else(impossible)?;
        let bytes = self.body.get(start..end).ok_or_else(impossible)?;
        if self.packed && !bytes.is_empty() {
            let (prefix, packed) = bytes.split_first_chunk().ok_or_else(impossible)?;
            match i64::from_le_bytes(*prefix) {
                // Too small, or too mixed, to be worth packing.
                -1 => self.copy(packed),
                unpacked => self.unpack(packed, usize::try_from(unpacked).map_err(|_| impossible())?),
            }
        } else {
            self.copy(bytes)
        }
    }

    fn copy(&mut self, bytes: &[u8]) -> Result<Buffer, Unsound> {
        self.take(bytes.len())?;
        let mut buffer = MutableBuffer::with_capacity(bytes.len());
        buffer.extend_from_slice(bytes);
        Ok(buffer.into())
    }

    fn unpack(&mut self, packed: &[u8], length: usize) -> Result<Buffer, Unsound> {
        self.take(length)?;
        let mut buffer = MutableBuffer::from_len_zeroed(length);
        // Writes no more than there is room for.
        let written = self.zstd.decompress_to_buffer(packed, buffer.as_slice_mut())?;
        if written != length {
            return Err(Unsound::Impossible("a buffer unpacks to another length than it says"));
        }
        Ok(buffer.into())
    }

    /// Takes so many bytes from what all of the batch may unpack to.
    fn take(&mut self, bytes: usize) -> Result<(), Unsound> {
        *self.left = self.left.checked_sub(bytes).ok_or(Unsound::TooLarge)?;
        Ok(())
    }
}
