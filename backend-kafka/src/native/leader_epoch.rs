//! The leader epochs of offsets (KIP-320), which rdkafka leaves out of its lists.
//!
//! The epoch of the leader that wrote a record is stored, and read, together with the offset after the record:
//! only the epoch shows that a broker's log was truncated before that offset, even if other records have been
//! stored there since.

use rdkafka::TopicPartitionList;
use rdkafka::bindings as sys;

/// Sets the epoch of the element that was added last. Does nothing to an empty list.
pub(crate) fn set_of_last(list: &mut TopicPartitionList, epoch: i32) {
    // SAFETY: the list is ours, so it lives and no one else changes it. It has as many elements as it
    // says, and the last one is set by a call that keeps no pointer to it.
    unsafe {
        let list = &*list.ptr();
        if let Some(last) = usize::try_from(list.cnt)
            .ok()
            .and_then(|n| n.checked_sub(1))
        {
            sys::rd_kafka_topic_partition_set_leader_epoch(list.elems.add(last), epoch);
        }
    }
}

/// Returns the epochs of a list, in the order of its elements. `None` for an element without an epoch.
pub(crate) fn all(list: &TopicPartitionList) -> Vec<Option<i32>> {
    // SAFETY: the list lives, and has as many elements as it says. Each is read by a call that changes
    // nothing.
    unsafe {
        let list = &*list.ptr();
        let count = usize::try_from(list.cnt).unwrap_or(0);
        let epoch = |index| {
            sys::rd_kafka_topic_partition_get_leader_epoch(list.elems.add(index).cast_const())
        };
        let epochs = (0..count).map(|index| Some(epoch(index)).filter(|epoch| *epoch >= 0));
        epochs.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn epochs_are_those_of_their_elements() {
        let mut list = TopicPartitionList::new();
        set_of_last(&mut list, 1);
        assert_eq!(all(&list), []);
        list.add_partition("a", 0);
        set_of_last(&mut list, 7);
        list.add_partition("a", 1);
        list.add_partition("b", 0);
        set_of_last(&mut list, 0);
        assert_eq!(all(&list), [Some(7), None, Some(0)]);
        assert_eq!(
            all(&list.clone()),
            [Some(7), None, Some(0)],
            "a copy has them too"
        );
    }
}
