//! Payloads that count how many of them are in memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::SystemTime;

use bytes::Bytes;
use millstream_core::driver::StoredRecord;
use millstream_core::{Headers, Position};

#[derive(Clone, Default)]
pub(crate) struct LivePayloads(Arc<AtomicUsize>);

impl LivePayloads {
    /// A record of one key whose payload is its position.
    pub(crate) fn record(&self, position: u64, key: &'static str) -> StoredRecord {
        self.0.fetch_add(1, Relaxed);
        let payload = Payload(position.to_string(), self.clone());
        StoredRecord {
            position: Position::from(position),
            timestamp: SystemTime::UNIX_EPOCH,
            key: Some(Bytes::from_static(key.as_bytes())),
            payload: Some(Bytes::from_owner(payload)),
            headers: Headers::new(),
        }
    }

    pub(crate) fn count(&self) -> usize {
        self.0.load(Relaxed)
    }
}

struct Payload(String, LivePayloads);

impl AsRef<[u8]> for Payload {
    fn as_ref(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl Drop for Payload {
    fn drop(&mut self) {
        self.1.0.fetch_sub(1, Relaxed);
    }
}
