//! The read limits of a shard, which no emulator enforces: [5 requests per second, 2 MiB per second and 10 MiB
//! per response][limits], shared by all pollers.
//!
//! A response uses up 2 MiB per second from the time of its request, and requests before that are rejected: "if a
//! call returns 10 MiB, subsequent calls within the next 5 seconds" are.
//!
//! [limits]: https://docs.aws.amazon.com/kinesis/latest/APIReference/API_GetRecords.html

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::request::Shard;

const REQUESTS: usize = 5;
const SECOND: Duration = Duration::from_secs(1);
const BYTES_A_SECOND: f64 = 2_097_152.0;
const MAX_RESPONSE: u64 = 10 << 20;

/// The tolerance: clocks differ between client and service, and latency varies.
const SLACK: Duration = Duration::from_millis(20);

/// The limits of the streams behind a proxy that have any. Clones share them.
#[derive(Debug, Clone, Default)]
pub(super) struct Limits(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    /// The streams whose shards have limits.
    limited: BTreeSet<String>,
    shards: BTreeMap<Shard, Spent>,
}

impl State {
    fn is_limited(&self, shard: &Shard) -> bool {
        self.limited.contains(&shard.stream)
    }
}

/// The reads from a shard.
#[derive(Debug, Default)]
struct Spent {
    requests: VecDeque<Instant>,
    paid: Option<Instant>,
    /// The average size of a record. It helps to avoid responses that are too large, which would be wasted.
    record: u64,
}

impl Limits {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Limits the shards of a stream from now on.
    pub(super) fn enforce(&self, stream: &str) {
        self.lock().limited.insert(stream.to_owned());
    }

    /// Counts a request, and returns whether it is within the limits.
    pub(super) fn admit(&self, shard: &Shard, now: Instant) -> bool {
        let mut state = self.lock();
        if !state.is_limited(shard) {
            return true;
        }
        let spent = state.shards.entry(shard.clone()).or_default();
        let now = now + SLACK;
        while spent.requests.front().is_some_and(|at| *at + SECOND <= now) {
            spent.requests.pop_front();
        }
        let admitted = spent.requests.len() < REQUESTS && spent.paid.is_none_or(|paid| paid <= now);
        if admitted {
            spent.requests.push_back(now - SLACK);
        }
        admitted
    }

    /// Returns the approximate number of records that a response may have, if known.
    pub(super) fn most(&self, shard: &Shard) -> Option<u64> {
        let record = self.lock().shards.get(shard)?.record;
        (record > 0).then(|| (MAX_RESPONSE / record).max(1))
    }

    /// Returns the number of records of a too large response that fit.
    pub(super) fn fitting(&self, shard: &Shard, response: &Value) -> Option<u64> {
        if !self.lock().is_limited(shard) {
            return None;
        }
        let mut bytes = 0;
        let mut sizes = records(response).map(size);
        let fitting = sizes.position(|size| {
            bytes += size;
            bytes > MAX_RESPONSE
        });
        fitting.map(|fitting| (fitting as u64).max(1))
    }

    /// Charges a response from the time of its request.
    pub(super) fn spend(&self, shard: &Shard, asked: Instant, response: &Value) {
        let (bytes, count) = (bytes(response), records(response).count() as u64);
        let mut state = self.lock();
        let spent = state.shards.get_mut(shard);
        if let (Some(spent), Some(record)) = (spent, bytes.checked_div(count)) {
            let from = spent.paid.map_or(asked, |paid| paid.max(asked));
            spent.paid = Some(from + Duration::from_secs_f64(bytes as f64 / BYTES_A_SECOND));
            spent.record = record;
        }
    }
}

/// Returns the size of the records of a response: their data and keys.
pub(super) fn bytes(response: &Value) -> u64 {
    records(response).map(size).sum()
}

fn records(response: &Value) -> impl Iterator<Item = &Value> {
    response["Records"].as_array().into_iter().flatten()
}

fn size(record: &Value) -> u64 {
    let [data, key] =
        ["Data", "PartitionKey"].map(|part| record[part].as_str().unwrap_or_default());
    let padding = data.bytes().rev().take_while(|byte| *byte == b'=').count();
    (data.len() / 4 * 3 - padding + key.len()) as u64
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn shard() -> Shard {
        Shard {
            stream: "cars".into(),
            id: "0".into(),
        }
    }

    fn response(records: usize) -> Value {
        let record = json!({"Data": "A".repeat(4 << 20), "PartitionKey": "key"});
        json!({"Records": vec![record; records]})
    }

    #[test]
    fn a_shard_is_asked_five_times_a_second() {
        let (limits, now) = (Limits::default(), Instant::now());
        assert!((0..9).all(|_| limits.admit(&shard(), now)));
        limits.enforce("cars");
        let admitted = (0..9).filter(|_| limits.admit(&shard(), now)).count();
        assert_eq!(admitted, REQUESTS);
        assert!(limits.admit(&shard(), now + SECOND));
    }

    #[test]
    fn an_answer_is_paid_for() {
        let (limits, now) = (Limits::default(), Instant::now());
        limits.enforce("cars");
        assert!(limits.admit(&shard(), now));
        limits.spend(&shard(), now, &response(2));
        assert!(!limits.admit(&shard(), now + 2_900 * Duration::from_millis(1)));
        assert!(limits.admit(&shard(), now + 3 * SECOND));
        assert_eq!(limits.most(&shard()), Some(3));
    }

    #[test]
    fn an_answer_has_an_end() {
        let limits = Limits::default();
        assert_eq!(limits.fitting(&shard(), &response(4)), None);
        limits.enforce("cars");
        assert_eq!(limits.fitting(&shard(), &response(3)), None);
        assert_eq!(limits.fitting(&shard(), &response(4)), Some(3));
        assert_eq!(
            bytes(&json!({"Records": [{"Data": "YQ==", "PartitionKey": "key"}]})),
            4
        );
    }
}
