//! Emulates retention: hides records up to a position. No emulator has a retention below a day.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::Value;

use super::request::Shard;

/// The number of iterators to remember: more than are used at once. An iterator expires after five minutes.
const ITERATORS: usize = 10_000;

/// The hidden records. Clones share them.
#[derive(Debug, Clone, Default)]
pub(super) struct Retention(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    gone: BTreeMap<Shard, Gone>,
    /// The shard of each iterator, because a request for records contains only the iterator.
    iterators: BTreeMap<String, Shard>,
    /// The iterators, oldest first.
    ages: VecDeque<String>,
}

/// The hidden records of a shard.
#[derive(Debug)]
struct Gone {
    /// The newest hidden record.
    last: String,
    /// When it was hidden, in seconds since the epoch. An emulator may not support fractions.
    since: f64,
}

impl Gone {
    /// Returns whether a sequence number is hidden. Sequence numbers are larger than machine integers.
    fn has(&self, number: &str) -> bool {
        (number.len(), number) <= (self.last.len(), &self.last)
    }
}

impl Retention {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hides all records of the shard up to this sequence number.
    pub(super) fn trim(&self, shard: Shard, last: String) {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        let since = since.unwrap_or_default().as_secs_f64();
        self.lock().gone.insert(shard, Gone { last, since });
    }

    /// Remembers the shard of an iterator.
    pub(super) fn learn(&self, iterator: &Value, shard: &Shard) {
        let Some(iterator) = iterator.as_str() else {
            return;
        };
        let mut state = self.lock();
        state.iterators.insert(iterator.to_owned(), shard.clone());
        state.ages.push_back(iterator.to_owned());
        if state.ages.len() > ITERATORS
            && let Some(oldest) = state.ages.pop_front()
        {
            state.iterators.remove(&oldest);
        }
    }

    /// Returns the shard of an iterator.
    pub(super) fn shard(&self, iterator: &str) -> Option<Shard> {
        self.lock().iterators.get(iterator).cloned()
    }

    /// Rewrites a request for an iterator at a hidden record into one at the oldest visible record.
    pub(super) fn place(&self, shard: &Shard, request: &Value) -> Value {
        let mut request = request.clone();
        let state = self.lock();
        let Some(gone) = state.gone.get(shard) else {
            return request;
        };
        let number = request["StartingSequenceNumber"].as_str();
        let time = request["Timestamp"].as_f64();
        let is_gone = number.is_some_and(|number| gone.has(number))
            || time.is_some_and(|time| time <= gone.since)
            || request["ShardIteratorType"] == "TRIM_HORIZON";
        if is_gone {
            request["ShardIteratorType"] = "AFTER_SEQUENCE_NUMBER".into();
            request["StartingSequenceNumber"] = gone.last.as_str().into();
            if let Some(request) = request.as_object_mut() {
                request.remove("Timestamp");
            }
        }
        request
    }

    /// Removes hidden records from a response.
    pub(super) fn apply(&self, shard: &Shard, response: &mut Value) {
        let state = self.lock();
        let records = response.get_mut("Records").and_then(Value::as_array_mut);
        let (Some(gone), Some(records)) = (state.gone.get(shard), records) else {
            return;
        };
        records.retain(|record| {
            let number = record["SequenceNumber"].as_str().unwrap_or_default();
            !gone.has(number)
        });
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_gone_is_not_shown() {
        let retention = Retention::default();
        let [one, other] = ["0", "1"].map(|id| Shard {
            stream: "cars".into(),
            id: id.into(),
        });
        retention.learn(&json!("iterator"), &one);
        retention.trim(one.clone(), "99".into());
        let left = |shard: &Shard| {
            let numbers = ["98", "99", "100"].map(|number| json!({"SequenceNumber": number}));
            let mut response = json!({"Records": numbers});
            retention.apply(shard, &mut response);
            response["Records"].as_array().unwrap().len()
        };
        assert_eq!((left(&one), left(&other)), (1, 3));
        for early in [
            json!({"ShardIteratorType": "TRIM_HORIZON"}),
            json!({"ShardIteratorType": "AT_SEQUENCE_NUMBER", "StartingSequenceNumber": "98"}),
            json!({"ShardIteratorType": "AT_TIMESTAMP", "Timestamp": 7.5}),
        ] {
            let kind = "AFTER_SEQUENCE_NUMBER";
            let left = json!({"ShardIteratorType": kind, "StartingSequenceNumber": "99"});
            assert_eq!(retention.place(&one, &early), left);
            assert_eq!(retention.place(&other, &early), early);
        }
        let mut refusal = json!({"message": "not now"});
        retention.apply(&one, &mut refusal);
        assert_eq!(refusal, json!({"message": "not now"}));
        assert_eq!(retention.shard("iterator"), Some(one));
        assert_eq!(retention.shard("unknown"), None);
    }
}
