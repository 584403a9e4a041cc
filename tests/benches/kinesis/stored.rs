//! Reads the records of a stream by plain requests.

use std::collections::HashMap;

use aws_sdk_kinesis::types::ShardIteratorType;
use millstream_core::Position;

use crate::job::Target;
use crate::{Result, aggregate, keys, raw};

#[derive(Debug, Default)]
pub(crate) struct Stored {
    /// The size of each Kinesis record, by its shard and number.
    sizes: HashMap<(String, Position), usize>,
    /// The numbers of the records of each key, in stored order.
    numbers: HashMap<String, Vec<u64>>,
}

pub(crate) async fn read(target: &Target) -> Result<Stored> {
    let kinesis = raw::kinesis(&target.kinesis_itself);
    let mut stored = Stored::default();
    let listed = kinesis.list_shards().stream_name(&target.stream);
    for shard in listed.send().await?.shards() {
        let id = shard.shard_id();
        let first = kinesis
            .get_shard_iterator()
            .stream_name(&target.stream)
            .shard_id(id)
            .shard_iterator_type(ShardIteratorType::TrimHorizon);
        let mut iterator = first.send().await?.shard_iterator;
        while let Some(at) = iterator {
            let response = kinesis.get_records().shard_iterator(at).limit(500);
            let response = response.send().await?;
            // An open shard has no end, and the emulator returns all records that it has.
            iterator = response
                .next_shard_iterator
                .filter(|_| !response.records.is_empty());
            for record in response.records {
                stored.add(id, record)?;
            }
        }
    }
    Ok(stored)
}

impl Stored {
    fn add(&mut self, shard: &str, record: aws_sdk_kinesis::types::Record) -> Result<()> {
        let key = record.partition_key.unwrap_or_default();
        let data = record.data.into_inner();
        let target = (shard.to_owned(), record.sequence_number.parse()?);
        self.sizes.insert(target, key.len() + data.len());
        for (key, payload) in aggregate::open(key, data) {
            let number = keys::number(&payload).ok_or("a record of somebody else")?;
            self.numbers.entry(key).or_default().push(number);
        }
        Ok(())
    }

    /// Returns the total size of these Kinesis records.
    pub(crate) fn bytes_of(&self, places: &[(String, Position)]) -> Result<usize> {
        let size = |target| self.sizes.get(target).copied();
        let sizes = places.iter().map(size).sum::<Option<usize>>();
        Ok(sizes.ok_or("a record is not where its receipt says")?)
    }

    /// Fails unless records 0 to `sent`, which had these keys in turn, are all stored, those of each
    /// key in order. Some may be stored twice.
    pub(crate) fn is_in_order(&self, keys: &[String], sent: u64) -> Result<()> {
        let step = keys.len() as u64;
        for (first, key) in (0..sent).zip(keys) {
            let mut next = first;
            for number in self.numbers.get(key).into_iter().flatten() {
                if *number > next {
                    return Err(format!("{number} of {key} is stored before {next}").into());
                }
                if *number == next {
                    next += step;
                }
            }
            if next < sent {
                return Err(format!("{next} of {key} is not stored").into());
            }
        }
        Ok(())
    }
}
