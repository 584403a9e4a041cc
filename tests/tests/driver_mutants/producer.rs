//! The memory driver with a bug: a producer.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use conformance::ProducerLayer;
use millstream_core::driver::{Producer, Rejected};
use millstream_core::{Headers, Record, RecordMetadata, Result};

use crate::bug::Bug;

/// A producer with a bug.
#[derive(Debug)]
pub(crate) struct MutantProducer {
    pub(crate) inner: Arc<dyn Producer>,
    pub(crate) bug: Bug,
}

impl MutantProducer {
    /// Changes a record before it is stored.
    fn mutate(&self, record: &mut Record) {
        match self.bug {
            Bug::KeylessInOnePartition => {
                record.key.get_or_insert_with(|| "key".into());
            }
            Bug::TombstoneIsAnEmptyPayload => {
                record.payload.get_or_insert_default();
            }
            Bug::NullHeaderIsEmpty => {
                let headers = std::mem::replace(&mut record.headers, Headers::new());
                for (name, value) in headers.iter() {
                    record
                        .headers
                        .push(name, value.cloned().unwrap_or_default());
                }
            }
            Bug::TimestampIsInSeconds => {
                record.timestamp = record.timestamp.map(in_seconds);
            }
            _ => {}
        }
    }
}

fn in_seconds(at: SystemTime) -> SystemTime {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    UNIX_EPOCH + Duration::from_secs(since.as_secs())
}

#[async_trait]
impl ProducerLayer for MutantProducer {
    fn inner(&self) -> &dyn Producer {
        &*self.inner
    }

    fn route(&self, record: &Record) -> Option<u64> {
        match self.bug {
            Bug::RouteIsNotOfTheKey => record.payload.as_ref()?.first().copied().map(u64::from),
            _ => self.inner.route(record),
        }
    }

    async fn send(&self, mut records: Vec<Record>) -> Vec<Result<RecordMetadata, Rejected>> {
        records.iter_mut().for_each(|record| self.mutate(record));
        self.inner.send(records).await
    }
}
