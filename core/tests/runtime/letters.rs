//! The stream of the fake backend that takes dead letters.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use millstream_core::driver::{self, Pipelining, Rejected, StreamLimits};
use millstream_core::{Error, ErrorKind, Partition, Position, Record, RecordMetadata, Result};

/// Says what is wrong with a record, if anything is.
pub(crate) type Refuses = fn(&Record) -> Option<ErrorKind>;

/// What the dead letter stream takes, and what it has.
#[derive(Debug)]
pub(crate) struct LetterBox {
    pub(crate) limits: Mutex<StreamLimits>,
    pub(crate) refuses: Mutex<Refuses>,
    /// What the driver refuses without asking the broker.
    pub(crate) validate: Mutex<Refuses>,
    /// How long one call takes.
    pub(crate) latency: Mutex<Duration>,
    pub(crate) records: Mutex<Vec<Record>>,
    /// How many calls have begun.
    calls: AtomicUsize,
}

impl Default for LetterBox {
    fn default() -> Self {
        let limits = StreamLimits {
            record_bytes: 10_000,
            key_bytes: 100,
            key_chars: None,
            empty_key: true,
            text_key: false,
            batch_records: 1_000,
            batch_bytes: 1_000_000,
        };
        Self {
            limits: Mutex::new(limits),
            refuses: Mutex::new(|_| None),
            validate: Mutex::new(|_| None),
            latency: Mutex::default(),
            records: Mutex::default(),
            calls: AtomicUsize::new(0),
        }
    }
}

impl LetterBox {
    pub(crate) fn records(&self) -> Vec<Record> {
        self.records.lock().unwrap().clone()
    }

    /// How many calls have begun.
    pub(crate) fn calls(&self) -> usize {
        self.calls.load(Relaxed)
    }
}

#[derive(Debug)]
pub(crate) struct LetterProducer(pub(crate) Arc<LetterBox>);

#[async_trait]
impl driver::Producer for LetterProducer {
    fn limits(&self) -> StreamLimits {
        *self.0.limits.lock().unwrap()
    }

    fn pipelining(&self) -> Pipelining {
        Pipelining::ByKey { calls: 1 }
    }

    fn validate(&self, record: &Record) -> Result<()> {
        let validate = *self.0.validate.lock().unwrap();
        match validate(record) {
            Some(kind) => Err(Error::new(kind, "send", "set headers to allow")),
            None => Ok(()),
        }
    }

    fn route(&self, _record: &Record) -> Option<u64> {
        None
    }

    async fn send(&self, records: Vec<Record>) -> Vec<Result<RecordMetadata, Rejected>> {
        self.0.calls.fetch_add(1, Relaxed);
        let latency = *self.0.latency.lock().unwrap();
        tokio::time::sleep(latency).await;
        let refuses = *self.0.refuses.lock().unwrap();
        let store = |record: Record| match refuses(&record) {
            Some(kind) => {
                let error = Error::new(kind, "send", "as scripted");
                Err(Rejected::new(record, error))
            }
            None => {
                let mut stored = self.0.records.lock().unwrap();
                stored.push(record);
                let position = Position::from(stored.len() as u64 - 1);
                Ok(RecordMetadata::new(Partition::new("dead", "0"), position))
            }
        };
        records.into_iter().map(store).collect()
    }

    async fn close(&self) -> Result<()> {
        Ok(())
    }
}
