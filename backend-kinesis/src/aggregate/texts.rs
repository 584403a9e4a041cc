//! The tables of a carrier that is being filled: what its records refer to, each once.

use std::collections::HashMap;

use bytes::Bytes;
use foldhash::fast::RandomState;

use super::message::write;

/// Texts by their places, as the fields that they are written in.
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

    /// The place that a text has or would get, and how many bytes are written when it has one.
    pub(super) fn place(&self, text: &Bytes) -> (usize, usize) {
        match self.places.get(text) {
            Some(place) => (*place, self.written.len()),
            None => {
                let more = write::bytes_len(text.len());
                (self.places.len(), self.written.len() + more)
            }
        }
    }

    /// The place of a text, which gets one if it has none.
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
