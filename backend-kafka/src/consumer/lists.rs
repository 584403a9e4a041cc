//! Lists of partitions in librdkafka's format.

use std::sync::Arc;

use rdkafka::{Offset, TopicPartitionList};

use super::state::Progress;
use super::types::{FetchPosition, TopicPartition};
use crate::native::leader_epoch;

/// Returns a list of partitions.
pub(super) fn list<'a>(
    partitions: impl IntoIterator<Item = &'a TopicPartition>,
) -> TopicPartitionList {
    let mut list = TopicPartitionList::new();
    for (topic, partition) in partitions {
        list.add_partition(topic, *partition);
    }
    list
}

/// Returns a list of the positions from which partitions are to be read.
pub(super) fn positions<'a>(
    positions: impl IntoIterator<Item = &'a FetchPosition>,
) -> TopicPartitionList {
    let mut list = TopicPartitionList::new();
    for position in positions {
        let (topic, partition) = &position.partition;
        let offset = position.offset.map_or(Offset::Beginning, Offset::Offset);
        let set = list.add_partition(topic, *partition).set_offset(offset);
        debug_assert!(set.is_ok(), "offsets of Kafka are not negative");
        if let Some(epoch) = position.leader_epoch {
            leader_epoch::set_of_last(&mut list, epoch);
        }
    }
    list
}

/// Returns a list of offsets to be committed.
pub(super) fn progress<'a>(
    offsets: impl IntoIterator<Item = &'a (TopicPartition, Progress)>,
) -> TopicPartitionList {
    let mut list = TopicPartitionList::new();
    for ((topic, partition), progress) in offsets {
        let mut element = list.add_partition(topic, *partition);
        let set = element.set_offset(Offset::Offset(progress.next));
        debug_assert!(set.is_ok(), "offsets of Kafka are not negative");
        element.set_metadata(progress.note.to_metadata());
        if let Some(epoch) = progress.leader_epoch {
            leader_epoch::set_of_last(&mut list, epoch);
        }
    }
    list
}

/// Returns the partitions of a list.
pub(super) fn names(list: &TopicPartitionList) -> Vec<TopicPartition> {
    let elements = list.elements();
    let names = elements
        .iter()
        .map(|element| (Arc::from(element.topic()), element.partition()));
    names.collect()
}
