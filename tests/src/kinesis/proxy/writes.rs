//! Forwards the writes to a stream one at a time.
//!
//! ferrokinesis gives the records of a request their sequence numbers before it stores them. While another request does the
//! same, a reader can get its later records first, and then never gets the earlier ones. On Kinesis a record that
//! can be read has no unread predecessor.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::OwnedMutexGuard;

use super::request::Operation;

/// The streams that were written to. Clones share them.
#[derive(Debug, Clone, Default)]
pub(super) struct Writes(Arc<Mutex<BTreeMap<String, Arc<tokio::sync::Mutex<()>>>>>);

impl Writes {
    /// Waits until no other request writes to the stream. The next one waits until the returned guard is dropped. Returns
    /// `None` if the operation writes nothing.
    pub(super) async fn turn(&self, operation: &Operation) -> Option<OwnedMutexGuard<()>> {
        let (Operation::PutRecords { stream } | Operation::PutRecord { stream }) = operation else {
            return None;
        };
        let turn = {
            let mut streams = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            streams.entry(stream.clone()).or_default().clone()
        };
        Some(turn.lock_owned().await)
    }
}
