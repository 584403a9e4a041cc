//! What batch handlers were handed.

use std::sync::{Arc, Mutex};

use millstream_core::Delivery;

/// The positions and the attempts of a batch.
pub(crate) type Batch = Vec<(u64, u32)>;

/// Notes what it is handed.
#[derive(Clone, Default)]
pub(crate) struct Batches(Arc<Mutex<Vec<Batch>>>);

impl Batches {
    pub(crate) fn note(&self, batch: &[Delivery]) {
        let places = batch
            .iter()
            .map(|delivery| (delivery.position().offset().unwrap(), delivery.attempt()));
        self.0.lock().unwrap().push(places.collect());
    }

    pub(crate) fn seen(&self) -> Vec<Batch> {
        self.0.lock().unwrap().clone()
    }

    pub(crate) fn len(&self) -> usize {
        self.0.lock().unwrap().len()
    }
}
