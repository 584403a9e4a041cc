//! Splitting and merging shards.

use std::borrow::Cow;
use std::sync::atomic::{AtomicBool, Ordering};

use millstream_core::{Error, ErrorKind, Partition, Result};

use super::state;
use crate::connection::Connection;
use crate::stream::{self, HashRange, Shard};

const SPLIT: &str = "split";
const MERGE: &str = "merge";

/// Closes a shard and opens two, each with a half of its hash keys.
pub(super) async fn split(connection: &Connection, partition: &Partition) -> Result<()> {
    let sent = AtomicBool::new(false);
    let call = || async {
        let shards = stream::shards(connection, SPLIT, partition.stream()).await?;
        let shard = find(SPLIT, &shards, partition)?;
        if !shard.open {
            // It may have been closed by the previous request, whose response was lost.
            return closed(SPLIT, partition, &sent);
        }
        let Some(middle) = middle(shard.range) else {
            let message = "it has a single hash key, which cannot be shared";
            return Err(invalid(SPLIT, message, partition));
        };
        sent.store(true, Ordering::Relaxed);
        let (name, arn) = stream::address(partition.stream());
        let split = connection.kinesis.split_shard();
        let split = split
            .set_stream_name(name)
            .set_stream_arn(arn)
            .shard_to_split(partition.id())
            .new_starting_hash_key(middle.to_string());
        let response = split.send().await;
        response.map_err(|e| connection.error(SPLIT, e).with_partition(partition))?;
        Ok(())
    };
    connection.retry(SPLIT, call).await?;
    settled(connection, SPLIT, partition).await
}

/// Closes two adjacent shards and opens one with the hash keys of both.
pub(super) async fn merge(
    connection: &Connection,
    one: &Partition,
    other: &Partition,
) -> Result<()> {
    if one == other {
        return Err(invalid(MERGE, "a shard does not merge with itself", one));
    }
    if one.stream() != other.stream() {
        return Err(invalid(MERGE, "they are of two streams", one));
    }
    let sent = AtomicBool::new(false);
    let call = || async {
        let shards = stream::shards(connection, MERGE, one.stream()).await?;
        let (first, second) = (find(MERGE, &shards, one)?, find(MERGE, &shards, other)?);
        for (shard, partition) in [(first, one), (second, other)] {
            if !shard.open {
                return closed(MERGE, partition, &sent);
            }
        }
        let (lower, upper) = match first.range.first < second.range.first {
            true => (first, second),
            false => (second, first),
        };
        if lower.range.last.checked_add(1) != Some(upper.range.first) {
            let message = format!(
                "{} is no neighbour: merge shards whose hash keys follow on one another",
                other.id()
            );
            return Err(invalid(MERGE, message, one));
        }
        sent.store(true, Ordering::Relaxed);
        let (name, arn) = stream::address(one.stream());
        let merge = connection.kinesis.merge_shards();
        let merge = merge
            .set_stream_name(name)
            .set_stream_arn(arn)
            .shard_to_merge(&*lower.id)
            .adjacent_shard_to_merge(&*upper.id);
        let response = merge.send().await;
        response.map_err(|e| connection.error(MERGE, e).with_partition(one))?;
        Ok(())
    };
    connection.retry(MERGE, call).await?;
    settled(connection, MERGE, one).await
}

/// Waits until every response shows the shard closed and its children in its place.
async fn settled(
    connection: &Connection,
    operation: &'static str,
    partition: &Partition,
) -> Result<()> {
    let is_settled = || async {
        let shards = stream::shards(connection, operation, partition.stream()).await?;
        let is_closed = !find(operation, &shards, partition)?.open;
        let is_parent = |shard: &Shard| shard.parents.iter().any(|id| **id == *partition.id());
        Ok(is_closed && shards.iter().any(is_parent))
    };
    state::until(is_settled).await?;
    state::until_active(connection, operation, partition.stream()).await
}

/// Returns the start of the upper half; `None` for a range of a single hash key.
fn middle(range: HashRange) -> Option<u128> {
    let half = (range.last - range.first) / 2;
    (range.first < range.last).then(|| range.first + half + 1)
}

fn find<'a>(
    operation: &'static str,
    shards: &'a [Shard],
    partition: &Partition,
) -> Result<&'a Shard> {
    let found = shards.iter().find(|shard| *shard.id == *partition.id());
    found.ok_or_else(|| {
        Error::new(ErrorKind::NotFound, operation, "no such shard").with_partition(partition)
    })
}

fn closed(operation: &'static str, partition: &Partition, sent: &AtomicBool) -> Result<()> {
    match sent.load(Ordering::Relaxed) {
        true => Ok(()),
        false => Err(invalid(
            operation,
            "it is closed: only open shards are split and merged",
            partition,
        )),
    }
}

fn invalid(
    operation: &'static str,
    message: impl Into<Cow<'static, str>>,
    partition: &Partition,
) -> Error {
    Error::new(ErrorKind::Invalid, operation, message).with_partition(partition)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_share_all_keys() {
        let all = HashRange {
            first: 0,
            last: u128::MAX,
        };
        assert_eq!(middle(all), Some(1 << 127));
        let two = HashRange { first: 6, last: 7 };
        assert_eq!(middle(two), Some(7));
        let one = HashRange { first: 7, last: 7 };
        assert_eq!(middle(one), None);
    }
}
