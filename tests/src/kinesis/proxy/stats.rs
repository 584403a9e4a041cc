//! Counts the requests and records that passed a proxy.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::request::{Request, Service};

/// The counters of one proxy. Clones share them.
#[derive(Debug, Clone)]
pub struct RequestStats {
    /// The origin of all times.
    begun: Instant,
    counts: Arc<Mutex<Counts>>,
}

#[derive(Debug, Default)]
struct Counts {
    requests: BTreeMap<(Service, String), u64>,
    sent: Sent,
    reads: BTreeMap<String, Vec<Read>>,
    /// The requests for records, by client.
    polls: BTreeMap<String, Polls>,
}

/// The entries of requests to store batches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sent {
    /// Entries with a result.
    pub completed: u64,
    /// Entries that were not stored.
    pub refused: u64,
}

/// Requests for records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Polls {
    /// All of them.
    pub requests: u64,
    /// Those that exceeded the limits of a shard.
    pub throttled: u64,
}

/// One response with records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Read {
    /// The time of its request, since the proxy started.
    pub at: Duration,
    /// The size of its records in bytes.
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

    /// Returns the number of requests of each operation, such as `PutRecords`, including those that got no response.
    pub fn requests(&self) -> BTreeMap<(Service, String), u64> {
        self.lock().requests.clone()
    }

    /// Returns the number of requests to DynamoDB.
    pub fn to_dynamodb(&self) -> u64 {
        let counts = self.lock();
        let requests = counts.requests.iter();
        let to_dynamodb = requests.filter(|((service, _), _)| *service == Service::DynamoDb);
        to_dynamodb.map(|(_, requests)| requests).sum()
    }

    /// Returns the entries of requests to store batches.
    pub fn sent(&self) -> Sent {
        self.lock().sent
    }

    /// Returns the responses with records of each shard, in order. Shard names are unique within one stream
    /// only.
    pub fn reads(&self) -> BTreeMap<String, Vec<Read>> {
        self.lock().reads.clone()
    }

    /// Returns the requests for records of the clients whose name has this prefix.
    pub fn polls(&self, begins: &str) -> Polls {
        let counts = self.lock();
        let of = counts
            .polls
            .iter()
            .filter(|(client, _)| client.starts_with(begins));
        of.fold(Polls::default(), |sum, (_, polls)| Polls {
            requests: sum.requests + polls.requests,
            throttled: sum.throttled + polls.throttled,
        })
    }

    pub(super) fn add_poll(&self, client: &str, is_admitted: bool) {
        let mut counts = self.lock();
        let polls = counts.polls.entry(client.to_owned()).or_default();
        polls.requests += 1;
        polls.throttled += u64::from(!is_admitted);
    }

    pub(super) fn add_request(&self, request: &Request) {
        let operation = (request.service, request.name.clone());
        *self.lock().requests.entry(operation).or_default() += 1;
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
