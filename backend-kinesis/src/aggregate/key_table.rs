//! The tables of an aggregate that is being built: the keys to which its records refer, each once.

use std::collections::HashMap;

use bytes::Bytes;
use foldhash::fast::RandomState;

use super::message::write;

/// Keys by their indexes, encoded as fields.
#[derive(Debug)]
pub(super) struct KeyTable {
    field: u8,
    written: Vec<u8>,
    places: HashMap<Bytes, usize, RandomState>,
}

impl KeyTable {
    pub(super) fn new(field: u8) -> Self {
        Self {
            field,
            written: Vec::new(),
            places: HashMap::default(),
        }
    }

    /// Returns the index that a key has or would get, and the bytes that are written once it has one.
    pub(super) fn place(&self, key: &Bytes) -> (usize, usize) {
        match self.places.get(key) {
            Some(place) => (*place, self.written.len()),
            None => {
                let more = write::bytes_len(key.len());
                (self.places.len(), self.written.len() + more)
            }
        }
    }

    /// Returns the index of a key, and adds it if it is missing.
    pub(super) fn add(&mut self, key: &Bytes) -> usize {
        let (place, _) = self.place(key);
        if place == self.places.len() {
            self.places.insert(key.clone(), place);
            write::bytes(&mut self.written, self.field, key);
        }
        place
    }

    pub(super) fn written(&self) -> &[u8] {
        &self.written
    }
}
