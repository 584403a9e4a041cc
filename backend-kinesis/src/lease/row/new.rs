//! New rows.

use std::sync::Arc;
use std::time::SystemTime;

use aws_sdk_dynamodb::types::AttributeValue;

use super::{Pin, Progress, millis, names};
use crate::lease::key::Stream;
use crate::lease::store::Item;
use crate::stream::Shard;

/// A lease to be created, without an owner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NewRow {
    pub(crate) shard: Shard,
    pub(crate) begin: Begin,
}

/// The start of a new lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Begin {
    TrimHorizon,
    Latest(Pin),
    /// This row must store the time: the KCL has it only in each worker's configuration.
    At {
        time: SystemTime,
        /// When that was resolved; `None` if it is not known, as for a child shard.
        resolved: Option<SystemTime>,
    },
}

impl NewRow {
    pub(crate) fn item(&self, stream: &Stream) -> Item {
        let shard = &self.shard;
        let mut item = Item::new();
        let mut put = |name: &str, value| item.insert(name.to_owned(), value);
        put(names::KEY, string(&stream.key(&shard.id)));
        put(names::ENTITY, string(names::LEASE));
        put(names::COUNTER, number(first_count()));
        // Without it, the KCL can read neither this row nor any other of the table.
        put(names::SWITCHES, number(0));
        put(names::SUB, number(0));
        put(names::FIRST_HASH, string(&shard.range.first.to_string()));
        put(names::LAST_HASH, string(&shard.range.last.to_string()));
        put(names::STREAM, string(&stream.arn));
        put(names::CREATED, number(stream.created));
        if let Some(parents) = strings(&shard.parents) {
            put(names::PARENTS, parents);
        }
        if let Some(identifier) = &stream.identifier {
            put(names::STREAM_NAME, string(identifier));
            put(names::SHARD_ID, string(&shard.id));
        }
        for (name, value) in begin(&self.begin) {
            put(name, value);
        }
        item
    }
}

/// Returns the initial counter of a new lease: larger than that of any earlier lease of its key. A lease may be
/// deleted by hand while it has an owner, and be created again. If it began at zero, as those of Java workers do, its
/// epochs would repeat, and a change by the owner of the old lease could match the new one.
///
/// DynamoDB accepts at most [1000 writes per second for an item][limit], so no counter overtakes the
/// milliseconds of the clock.
///
/// [limit]: https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/bp-partition-key-design.html
fn first_count() -> u64 {
    millis(SystemTime::now())
}

/// Returns the attributes for the start of a lease.
pub(crate) fn begin(begin: &Begin) -> Vec<(&'static str, AttributeValue)> {
    let (progress, start, resolved, iterator) = match begin {
        // Records that retention removes from now on would have been read.
        Begin::TrimHorizon => (Progress::TrimHorizon, None, Some(SystemTime::now()), None),
        Begin::Latest(pin) => (Progress::Latest, Some(pin.at), None, Some(&pin.iterator)),
        Begin::At { time, resolved } => (Progress::AtTimestamp, Some(*time), *resolved, None),
    };
    let mut attributes = vec![(names::CHECKPOINT, string(&checkpoint(progress)))];
    attributes.extend(start.map(|start| (names::START, number(millis(start)))));
    attributes.extend(resolved.map(|at| (names::RESOLVED, number(millis(at)))));
    attributes.extend(iterator.map(|iterator| (names::ITERATOR, string(iterator))));
    attributes
}

/// Returns the stored form of a checkpoint, without the position inside an aggregate.
pub(crate) fn checkpoint(progress: Progress) -> String {
    match progress {
        Progress::TrimHorizon => names::TRIM_HORIZON.to_owned(),
        Progress::Latest => names::LATEST.to_owned(),
        Progress::AtTimestamp => names::AT_TIMESTAMP.to_owned(),
        Progress::After(position) => position.with_sub_sequence(0).to_string(),
        Progress::End => names::SHARD_END.to_owned(),
    }
}

pub(crate) fn string(text: &str) -> AttributeValue {
    AttributeValue::S(text.to_owned())
}

pub(crate) fn number(number: u64) -> AttributeValue {
    AttributeValue::N(number.to_string())
}

/// Returns `None` for no strings: DynamoDB has no empty sets.
pub(crate) fn strings(values: &[Arc<str>]) -> Option<AttributeValue> {
    let values: Vec<String> = values.iter().map(|value| value.to_string()).collect();
    (!values.is_empty()).then_some(AttributeValue::Ss(values))
}
