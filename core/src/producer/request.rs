//! One call of the driver, with its pending completions.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::time::Instant;

use super::accounting::{Accounting, InFlightLimits};
use super::accumulator::RecordBatch;
use super::key_queue::{self, Item, ItemBatch};
use super::receipt::Completer;
use crate::driver::{self, Rejected};
use crate::telemetry::event;
use crate::{Error, ErrorKind, Record, RecordMetadata, Result};

/// A record that waits in the queue, with its completer.
pub(super) type QueuedRecord = Item<(Record, Completer)>;

/// Records for one call of the driver, with their completions.
pub(super) struct SendRequest {
    records: Vec<Record>,
    pending: PendingCompletions,
}

/// Completions in the order of the records, and the keys that the call binds.
pub(super) struct PendingCompletions {
    pub(super) completions: Vec<PendingCompletion>,
    pub(super) keys: Vec<u64>,
}

/// A completer for a whole batch or for one record, and how long it is retried.
pub(super) struct PendingCompletion {
    pub(super) completer: Completer,
    pub(super) deadline: Instant,
    pub(super) attempts: u32,
    /// Whether an attempt ended in `Timeout`: the record may already be stored.
    pub(super) unclear: bool,
}

/// The end of a call. Without results, the driver has panicked.
pub(super) struct SendResult {
    /// The call, as numbered by the caller.
    pub(super) id: u64,
    pub(super) pending: PendingCompletions,
    pub(super) results: Option<Vec<Result<RecordMetadata, Rejected>>>,
}

impl SendRequest {
    /// Creates a request from a batch, unchanged. It binds no key.
    pub(super) fn from_batch(batch: RecordBatch) -> Self {
        let completion = PendingCompletion {
            completer: batch.completer,
            deadline: batch.deadline,
            attempts: 0,
            unclear: false,
        };
        let pending = PendingCompletions {
            completions: vec![completion],
            keys: Vec::new(),
        };
        Self {
            records: batch.records,
            pending,
        }
    }

    /// Creates requests from a batch, one for each route of its records. They bind no key. A batch of one route stays
    /// whole.
    pub(super) fn by_route(
        batch: RecordBatch,
        limits: InFlightLimits,
        route: impl Fn(&Record) -> Option<u64>,
    ) -> Vec<Self> {
        let mut routes = batch.records.iter().map(&route);
        let first = routes.next();
        if routes.all(|route| Some(route) == first) {
            return vec![Self::from_batch(batch)];
        }
        let deadline = batch.deadline;
        let mut indexes = HashMap::new();
        let mut requests: Vec<Self> = Vec::new();
        for (record, completer) in split(batch, limits) {
            let index = *indexes.entry(route(&record)).or_insert(requests.len());
            if index == requests.len() {
                let pending = PendingCompletions {
                    completions: Vec::new(),
                    keys: Vec::new(),
                };
                let records = Vec::new();
                requests.push(Self { records, pending });
            }
            let completion = PendingCompletion {
                completer,
                deadline,
                attempts: 0,
                unclear: false,
            };
            requests[index].records.push(record);
            requests[index].pending.completions.push(completion);
        }
        requests
    }

    /// Creates a request from the records that the queue releases.
    pub(super) fn from_items(batch: ItemBatch<(Record, Completer)>) -> Self {
        let mut records = Vec::with_capacity(batch.items.len());
        let mut completions = Vec::with_capacity(batch.items.len());
        for item in batch.items {
            let (record, completer) = item.load;
            records.push(record);
            completions.push(PendingCompletion {
                completer,
                deadline: item.deadline,
                attempts: item.attempts,
                unclear: item.unclear,
            });
        }
        let keys = batch.keys;
        Self {
            records,
            pending: PendingCompletions { completions, keys },
        }
    }

    /// Calls the driver. A panic of the driver ends only this call: the task continues, and completes the pending
    /// records. `id` is returned with the result.
    pub(super) fn make(
        self,
        id: u64,
        driver: Arc<dyn driver::Producer>,
        accounting: Arc<Accounting>,
    ) -> BoxFuture<'static, SendResult> {
        let Self { records, pending } = self;
        let send = async move { driver.send(records).await };
        async move {
            let results = AssertUnwindSafe(send).catch_unwind().await.ok();
            if results.is_none() {
                event!(
                    error, "millstream.producer.panicked", stream = %accounting.stream,
                    "the backend's driver panicked"
                );
            }
            SendResult {
                id,
                pending,
                results,
            }
        }
        .boxed()
    }
}

impl PendingCompletion {
    /// Returns the item for a record that was returned with `error` and must wait for its retry.
    pub(super) fn again(
        &self,
        record: Record,
        error: &Error,
        completer: Completer,
    ) -> QueuedRecord {
        Item {
            key: key(&record),
            bytes: record.size(),
            deadline: self.deadline,
            attempts: self.attempts,
            unclear: self.unclear || error.kind() == ErrorKind::Timeout,
            load: (record, completer),
        }
    }
}

/// Returns the records of a batch one by one.
pub(super) fn into_items(
    batch: RecordBatch,
    limits: InFlightLimits,
) -> impl Iterator<Item = QueuedRecord> {
    let deadline = batch.deadline;
    split(batch, limits).map(move |(record, completer)| Item {
        key: key(&record),
        bytes: record.size(),
        deadline,
        attempts: 0,
        unclear: false,
        load: (record, completer),
    })
}

/// Returns the records of a batch, each with a completer of its own.
fn split(batch: RecordBatch, limits: InFlightLimits) -> impl Iterator<Item = (Record, Completer)> {
    let mut charges = batch
        .records
        .iter()
        .map(|record| limits.charge(record.size()));
    let completers = batch.completer.split(|| {
        charges
            .next()
            .expect("a batch is charged for each of its records")
    });
    batch.records.into_iter().zip(completers)
}

/// Returns the hash of the record's key, if it has one.
pub(super) fn key(record: &Record) -> Option<u64> {
    record.key.as_deref().map(key_queue::hash)
}
