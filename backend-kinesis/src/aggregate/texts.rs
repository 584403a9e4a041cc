//! The tables of a carrier that is being filled: keys to which its records refer, each once.

use std::collections::HashMap;

use bytes::Bytes;
use foldhash::fast::RandomState;

use super::message::write;

/// Texts by their indexes, encoded as fields.
#[derive(Debug)]
pub(super) struct Texts {
    field: u8,
    written: Vec<u8>,
    places: HashMap<Bytes, usize, RandomState>,
}

impl Texts {
    pub(super) fn new(field: u8) -> Self {
        Self {
            field,
            written: Vec::new(),
            places: HashMap::default(),
        }
    }

    /// Returns the index that a text has or would get, and the bytes that are written once it has one.
    pub(super) fn place(&self, text: &Bytes) -> (usize, usize) {
        match self.places.get(text) {
            Some(place) => (*place, self.written.len()),
            None => {
                let more = write::bytes_len(text.len());
                (self.places.len(), self.written.len() + more)
            }
        }
    }

    /// Returns the index of a text, and adds the text if it is missing.
    pub(super) fn add(&mut self, text: &Bytes) -> usize {
        let (place, _) = self.place(text);
        if place == self.places.len() {
            self.places.insert(text.clone(), place);
            write::bytes(&mut self.written, self.field, text);
        }
        place
    }

    pub(super) fn written(&self) -> &[u8] {
        &self.written
    }
}
