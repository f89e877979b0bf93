//! Columns of IP addresses.

use std::net::IpAddr;

use ahash::AHashMap;
use arrow_array::ArrayRef;
use arrow_array::builder::StringBuilder;
use arrow_array::types::Int32Type;
use arrow_schema::{ArrowError, DataType};

use super::number::{NumberView, Numbers};
use super::word::{Word, dictionary, dictionary_of, next_key};
use super::{Build, Column, Order, View};

/// IP addresses, written as text.
pub(in super::super) struct Address;

/// Collects addresses.
#[derive(Default)]
pub(in super::super) struct Addresses {
    keys: Numbers<Int32Type>,
    known: AHashMap<IpAddr, i32>,
    values: StringBuilder,
}

impl Addresses {
    pub(in super::super) fn put(&mut self, row: usize, address: impl Into<Option<IpAddr>>) {
        let Some(address) = address.into() else { return };
        let next = next_key(self.known.len());
        let values = &mut self.values;
        let key = *self.known.entry(address).or_insert_with(|| {
            values.append_value(address.to_string());
            next
        });
        self.keys.put(row, key);
    }
}

impl Build for Addresses {
    fn finish(&mut self, order: &Order) -> Result<ArrayRef, ArrowError> {
        self.known.clear();
        dictionary_of(self.keys.array(order)?, &mut self.values)
    }
}

/// Addresses.
#[derive(Default)]
pub(in super::super) struct AddressView {
    keys: NumberView<Int32Type>,
    values: Vec<Option<IpAddr>>,
}

impl View for AddressView {
    fn new(array: &ArrayRef) -> Self {
        let Some((keys, values)) = dictionary(array) else { return Self::default() };
        Self { keys, values: values.iter().map(|text| text?.parse().ok()).collect() }
    }
}

impl AddressView {
    #[inline]
    pub(in super::super) fn get(&self, row: usize) -> Option<IpAddr> {
        *self.values.get(usize::try_from(self.keys.get(row)?).ok()?)?
    }
}

impl Column for Address {
    type Builder = Addresses;
    type View = AddressView;
    const NAME: &'static str = Word::NAME;
    fn data_type() -> DataType {
        Word::data_type()
    }
}
