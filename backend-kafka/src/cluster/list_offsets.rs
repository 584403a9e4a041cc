//! The begin and end offsets of partitions, requested for many at once.

use std::thread;
use std::time::{Duration, Instant};

use millstream_core::ErrorKind;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::{Offset, TopicPartitionList};

use crate::cluster::topics::Topic;
use crate::connection::context::Context;
use crate::error;

/// A position in a partition that only the broker knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OffsetSpec {
    /// The oldest record that is left, or the offset of the next one if none is.
    Earliest,
    /// After the newest record; with transactions, before the first record of the oldest one that
    /// is open.
    Latest,
    /// The first record that is not older than this, in milliseconds since 1970; the high end if
    /// there is none.
    At(i64),
}

/// Requests an offset of each of `partitions` of `topic`, in one request to each leader. Returns the offsets in
/// the order of `partitions`.
///
/// Requests to leaders that move are retried until `timeout`.
pub(crate) fn list_offsets(
    client: &BaseConsumer<Context>,
    topic: &str,
    partitions: &[i32],
    spec: OffsetSpec,
    timeout: Duration,
) -> Result<Vec<i64>, KafkaError> {
    if partitions.is_empty() {
        return Ok(Vec::new());
    }
    let deadline = Instant::now() + timeout;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        match ask(client, topic, partitions, spec, left.max(PAUSE)) {
            Err(refused) if passes(&refused) && left > PAUSE => thread::sleep(PAUSE),
            answer => return answer,
        }
    }
}

/// Requests offsets like [`list_offsets`], for all partitions of a topic. `None` for partitions without a leader: no
/// broker can return their offsets.
pub(crate) fn list_led_offsets(
    client: &BaseConsumer<Context>,
    name: &str,
    topic: &Topic,
    spec: OffsetSpec,
    timeout: Duration,
) -> Result<Vec<Option<i64>>, KafkaError> {
    let mut offsets = vec![None; topic.partitions as usize];
    let listed = list_offsets(client, name, &topic.led, spec, timeout)?;
    for (partition, offset) in topic.led.iter().zip(listed) {
        offsets[*partition as usize] = Some(offset);
    }
    Ok(offsets)
}

const PAUSE: Duration = Duration::from_millis(100);

fn passes(refused: &KafkaError) -> bool {
    let code = refused.rdkafka_error_code();
    code.is_some_and(|code| error::kind(code) == ErrorKind::Unavailable)
}

fn ask(
    client: &BaseConsumer<Context>,
    topic: &str,
    partitions: &[i32],
    spec: OffsetSpec,
    timeout: Duration,
) -> Result<Vec<i64>, KafkaError> {
    // A request names a timestamp, or one of two special values: -2 is the low end and -1 the high one
    // (https://kafka.apache.org/protocol#The_Messages_ListOffsets).
    let time = match spec {
        OffsetSpec::Earliest => Offset::Beginning,
        OffsetSpec::Latest => Offset::End,
        OffsetSpec::At(millis) => Offset::Offset(millis),
    };
    let mut list = TopicPartitionList::with_capacity(partitions.len());
    for partition in partitions {
        list.add_partition_offset(topic, *partition, time)?;
    }
    let answered = client.offsets_for_times(list, timeout)?;
    let mut offsets = Vec::with_capacity(partitions.len());
    let mut unset = Vec::new();
    let elements = answered.elements();
    for (element, asked) in elements.iter().zip(partitions) {
        element.error()?;
        match element.offset() {
            Offset::Offset(offset) if element.partition() == *asked => offsets.push(offset),
            // No record is that recent.
            Offset::End if matches!(spec, OffsetSpec::At(_)) => {
                unset.push(offsets.len());
                offsets.push(0);
            }
            _ => return Err(KafkaError::OffsetFetch(RDKafkaErrorCode::Fail)),
        }
    }
    if offsets.len() != partitions.len() {
        return Err(KafkaError::OffsetFetch(RDKafkaErrorCode::Fail));
    }
    if !unset.is_empty() {
        let late: Vec<i32> = unset.iter().map(|index| partitions[*index]).collect();
        let highs = ask(client, topic, &late, OffsetSpec::Latest, timeout)?;
        for (index, high) in unset.into_iter().zip(highs) {
            offsets[index] = high;
        }
    }
    Ok(offsets)
}
