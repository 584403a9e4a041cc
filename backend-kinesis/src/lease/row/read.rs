//! Parses rows of any writer.

use std::sync::Arc;

use aws_sdk_dynamodb::types::AttributeValue;
use millstream_core::{Epoch, Position};

use super::{Own, Progress, Row, Tip, names, time};
use crate::lease::store::Item;
use crate::stream::HashRange;

/// The reason why a row is skipped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unread {
    /// It is no lease: the KCL 3.x keeps other entities in the table.
    Other,
    /// This attribute is missing or malformed.
    Lacks(&'static str),
}

impl Row {
    pub(crate) fn read(item: &Item) -> Result<Self, Unread> {
        if text(item, names::ENTITY).is_some_and(|entity| entity != names::LEASE) {
            return Err(Unread::Other);
        }
        let row = Self {
            key: shared(item, names::KEY).ok_or(Unread::Lacks(names::KEY))?,
            counter: number(item, names::COUNTER).ok_or(Unread::Lacks(names::COUNTER))?,
            owner: shared(item, names::OWNER),
            checkpoint_owner: shared(item, names::CHECKPOINT_OWNER),
            switches: number(item, names::SWITCHES).unwrap_or(0),
            progress: progress(item).ok_or(Unread::Lacks(names::CHECKPOINT))?,
            parents: set(item, names::PARENTS),
            children: set(item, names::CHILDREN),
            range: range(item),
            own: Own {
                epoch: number(item, names::EPOCH).map(Epoch),
                taker: shared(item, names::TAKER),
                requester: shared(item, names::REQUESTER),
                rescan: number(item, names::RESCAN),
                start: number(item, names::START).and_then(time),
                resolved: number(item, names::RESOLVED).and_then(time),
                iterator: text(item, names::ITERATOR).map(str::to_owned),
                tip: tip(item),
                stream: shared(item, names::STREAM).zip(number(item, names::CREATED)),
            },
        };
        Ok(row)
    }
}

/// Returns the key of a row.
pub(crate) fn key(item: &Item) -> Option<&str> {
    text(item, names::KEY)
}

fn text<'a>(item: &'a Item, name: &str) -> Option<&'a str> {
    let text = item.get(name)?.as_s().ok()?;
    Some(text.as_str()).filter(|text| !text.is_empty())
}

fn shared(item: &Item, name: &str) -> Option<Arc<str>> {
    text(item, name).map(Into::into)
}

fn number(item: &Item, name: &str) -> Option<u64> {
    item.get(name)?.as_n().ok()?.parse().ok()
}

/// Returns the strings of a set, sorted so that all readers see the same.
fn set(item: &Item, name: &str) -> Vec<Arc<str>> {
    let values = match item.get(name) {
        Some(AttributeValue::Ss(values)) => values.as_slice(),
        _ => &[],
    };
    let mut values: Vec<Arc<str>> = values.iter().map(|value| value.as_str().into()).collect();
    values.sort();
    values
}

fn range(item: &Item) -> Option<HashRange> {
    let first = text(item, names::FIRST_HASH)?.parse().ok()?;
    let last = text(item, names::LAST_HASH)?.parse().ok()?;
    (first <= last).then_some(HashRange { first, last })
}

fn tip(item: &Item) -> Option<Tip> {
    let at = time(number(item, names::TIP)?)?;
    let after = match text(item, names::TIP_AFTER) {
        Some(after) => Some(after.parse().ok()?),
        None => None,
    };
    Some(Tip { after, at })
}

fn progress(item: &Item) -> Option<Progress> {
    Some(match text(item, names::CHECKPOINT)? {
        names::TRIM_HORIZON => Progress::TrimHorizon,
        names::LATEST => Progress::Latest,
        names::AT_TIMESTAMP => Progress::AtTimestamp,
        names::SHARD_END => Progress::End,
        digits if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
            let position: Position = digits.parse().ok()?;
            Progress::After(position.with_sub_sequence(number(item, names::SUB).unwrap_or(0)))
        }
        _ => return None,
    })
}
