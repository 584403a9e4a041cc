//! Counts the requests and records that passed a proxy.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::request::{Request, Service};

/// The counts of one proxy. Clones are one.
#[derive(Debug, Clone)]
pub struct RequestStats {
    /// Times are measured from here.
    begun: Instant,
    counts: Arc<Mutex<Counts>>,
}

#[derive(Debug, Default)]
struct Counts {
    to_dynamodb: u64,
    sent: Sent,
    reads: BTreeMap<String, Vec<Read>>,
}

/// The entries of requests to store batches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sent {
    /// Entries with a result.
    pub completed: u64,
    /// Those of them that were not stored.
    pub refused: u64,
}

/// One response with records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Read {
    /// When it was asked for, from the proxy's beginning.
    pub at: Duration,
    /// What its records count, in bytes.
    pub bytes: u64,
}

impl RequestStats {
    pub(super) fn new() -> Self {
        Self {
            begun: Instant::now(),
            counts: Arc::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Requests to DynamoDB.
    pub fn to_dynamodb(&self) -> u64 {
        self.lock().to_dynamodb
    }

    /// The entries of requests to store batches.
    pub fn sent(&self) -> Sent {
        self.lock().sent
    }

    /// The responses of each shard that had records, in their order. Names of shards are those of one
    /// stream alone.
    pub fn reads(&self) -> BTreeMap<String, Vec<Read>> {
        self.lock().reads.clone()
    }

    pub(super) fn request_times(&self, request: &Request) {
        self.lock().to_dynamodb += u64::from(request.service == Service::DynamoDb);
    }

    pub(super) fn add_batch_response(&self, response: &Value) {
        let Some(records) = response["Records"].as_array() else {
            return;
        };
        let sent = &mut self.lock().sent;
        sent.completed += records.len() as u64;
        sent.refused += response["FailedRecordCount"].as_u64().unwrap_or_default();
    }

    pub(super) fn read(&self, shard: &str, asked: Instant, bytes: u64) {
        let at = asked.duration_since(self.begun);
        let mut counts = self.lock();
        let reads = counts.reads.entry(shard.to_owned()).or_default();
        reads.push(Read { at, bytes });
    }
}
