//! Retention, which no emulator has for less than a day: what was there at a moment is not shown any
//! more.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::Value;

use super::request::Shard;

/// More iterators than are used at once. An iterator lasts for five minutes.
const ITERATORS: usize = 10_000;

/// What is gone. Clones are one.
#[derive(Debug, Clone, Default)]
pub(super) struct Retention(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    /// The newest record of each shard that is gone.
    gone: BTreeMap<Shard, String>,
    /// Where iterators lead: a request for records names nothing else.
    iterators: BTreeMap<String, Shard>,
    /// The iterators from the oldest on.
    ages: VecDeque<String>,
}

impl Retention {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Shows no record of the shard any more up to this sequence number.
    pub(super) fn trim(&self, shard: Shard, last: String) {
        self.lock().gone.insert(shard, last);
    }

    /// Learns where an iterator leads.
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

    /// Where an iterator leads.
    pub(super) fn shard(&self, iterator: &str) -> Option<Shard> {
        self.lock().iterators.get(iterator).cloned()
    }

    /// What is asked for an iterator that begins before what is left: one to what is left.
    pub(super) fn place(&self, shard: &Shard, asked: &Value) -> Value {
        let mut asked = asked.clone();
        let state = self.lock();
        let Some(gone) = state.gone.get(shard) else {
            return asked;
        };
        let number = asked["StartingSequenceNumber"].as_str();
        let is_gone =
            number.is_some_and(|number| (number.len(), number) <= (gone.len(), gone.as_str()));
        if is_gone || asked["ShardIteratorType"] == "TRIM_HORIZON" {
            asked["ShardIteratorType"] = "AFTER_SEQUENCE_NUMBER".into();
            asked["StartingSequenceNumber"] = gone.as_str().into();
        }
        asked
    }

    /// Takes from the records of an answer those that are gone.
    pub(super) fn apply(&self, shard: &Shard, answer: &mut Value) {
        let state = self.lock();
        let records = answer.get_mut("Records").and_then(Value::as_array_mut);
        let (Some(gone), Some(records)) = (state.gone.get(shard), records) else {
            return;
        };
        records.retain(|record| {
            let number = record["SequenceNumber"].as_str().unwrap_or_default();
            // Numbers, with more digits than a machine has.
            (number.len(), number) > (gone.len(), gone)
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
            let mut answer = json!({"Records": numbers});
            retention.apply(shard, &mut answer);
            answer["Records"].as_array().unwrap().len()
        };
        assert_eq!((left(&one), left(&other)), (1, 3));
        let mut refusal = json!({"message": "not now"});
        retention.apply(&one, &mut refusal);
        assert_eq!(refusal, json!({"message": "not now"}));
        assert_eq!(retention.shard("iterator"), Some(one));
        assert_eq!(retention.shard("unknown"), None);
    }
}
