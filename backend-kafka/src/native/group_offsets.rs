//! The stored offsets of a group, read and moved by a client that is not a member.
//!
//! rdkafka's consumers read the offsets of given partitions. This module reads all stored offsets.

use std::ffi::{CStr, CString};
use std::ptr;
use std::slice;
use std::time::{Duration, Instant};

use rdkafka::bindings as sys;
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::{Offset, TopicPartitionList};

use super::admin::{Options, Queue};
use super::code::{self, NO_ERROR};

/// The timeout of a request in librdkafka: longer than any caller waits.
///
/// librdkafka 2.12 aborts the process if it finds the coordinator for a request that has timed out in librdkafka
/// (`rd_kafka_admin_coord_request` and `rd_kafka_admin_coord_response_parse` drop the same reference). It does
/// not if the request is still open: the response is dropped. To make sure that no request is open for that long,
/// no request is sent before the coordinator is connected, see [`wait_for_coordinator`].
#[cfg(not(test))]
const ABANDONED: Duration = Duration::from_secs(3_600);
#[cfg(test)]
pub(crate) const ABANDONED: Duration = Duration::from_secs(4);

/// A stored offset, or the result of storing one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StoredOffset {
    pub(crate) topic: String,
    pub(crate) partition: i32,
    /// The next offset to read.
    pub(crate) next: i64,
    /// The metadata stored with the offset.
    pub(crate) metadata: String,
}

/// Reads all offsets that a group has stored. Returns none if there is no such group.
///
/// `group` is the `group.id` of the consumer, which must have one. Blocks for `timeout` or somewhat longer.
pub(crate) fn read<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    group: &str,
    timeout: Duration,
) -> Result<Vec<StoredOffset>, KafkaError> {
    let deadline = Instant::now() + timeout;
    let client = consumer.client();
    // librdkafka 2.12 follows a null pointer if the broker responds NOT_COORDINATOR to a client without
    // a group (rd_kafka_handle_OffsetFetch).
    // SAFETY: the client is alive. The returned pointer is null for a client without a group, and is otherwise owned
    // by this function, which destroys it once.
    unsafe {
        let own = sys::rd_kafka_consumer_group_metadata(client.native_ptr());
        if own.is_null() {
            return Err(KafkaError::AdminOp(RDKafkaErrorCode::InvalidGroupId));
        }
        sys::rd_kafka_consumer_group_metadata_destroy(own);
    }
    let group = CString::new(group)?;
    wait_for_coordinator(consumer, timeout)?;
    let (options, queue) = (Options::new(client, ABANDONED)?, Queue::new(client));
    // SAFETY: the name is null-terminated. No list means all partitions.
    let request =
        unsafe { sys::rd_kafka_ListConsumerGroupOffsets_new(group.as_ptr(), ptr::null()) };
    let mut requests = [request];
    // SAFETY: client, options and queue live through the call, which copies the one request. The request
    // is then destroyed, once.
    unsafe {
        sys::rd_kafka_ListConsumerGroupOffsets(
            client.native_ptr(),
            requests.as_mut_ptr(),
            requests.len(),
            options.as_ptr(),
            queue.as_ptr(),
        );
        sys::rd_kafka_ListConsumerGroupOffsets_destroy(request);
    }
    let answer = match queue.wait(deadline.saturating_duration_since(Instant::now())) {
        Err(KafkaError::AdminOp(RDKafkaErrorCode::GroupIdNotFound)) => return Ok(Vec::new()),
        answer => answer?,
    };
    let mut count = 0;
    // SAFETY: the response lives to the end of this function. It is of the requested kind, or
    // the first call returns null, and the second is not made.
    let groups = unsafe {
        let result = sys::rd_kafka_event_ListConsumerGroupOffsets_result(answer.as_ptr());
        if result.is_null() {
            return Err(UNANSWERED);
        }
        sys::rd_kafka_ListConsumerGroupOffsets_result_groups(result, &mut count)
    };
    // SAFETY: `groups` and `count` have just been returned by librdkafka for a response that is still alive.
    unsafe { stored(groups, count) }
}

/// Stores offsets for a group that has no members, in one request. The broker refuses if the group has
/// members: only they may move it.
///
/// `group` is the `group.id` of the consumer. Blocks for `timeout` or somewhat longer. Offsets without a timely
/// response may still be stored, as soon as the coordinator responds again.
pub(crate) fn store<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    group: &str,
    offsets: &[StoredOffset],
    timeout: Duration,
) -> Result<(), KafkaError> {
    let deadline = Instant::now() + timeout;
    let client = consumer.client();
    let mut list = TopicPartitionList::with_capacity(offsets.len());
    for offset in offsets {
        let mut element = list.add_partition(&offset.topic, offset.partition);
        element.set_offset(Offset::Offset(offset.next))?;
        element.set_metadata(&offset.metadata);
    }
    let group = CString::new(group)?;
    wait_for_coordinator(consumer, timeout)?;
    let (options, queue) = (Options::new(client, ABANDONED)?, Queue::new(client));
    // SAFETY: the name is null-terminated, and the list lives through the call, which copies both.
    let request =
        unsafe { sys::rd_kafka_AlterConsumerGroupOffsets_new(group.as_ptr(), list.ptr()) };
    let mut requests = [request];
    // SAFETY: client, options and queue live through the call, which copies the one request. The request
    // is then destroyed, once.
    unsafe {
        sys::rd_kafka_AlterConsumerGroupOffsets(
            client.native_ptr(),
            requests.as_mut_ptr(),
            requests.len(),
            options.as_ptr(),
            queue.as_ptr(),
        );
        sys::rd_kafka_AlterConsumerGroupOffsets_destroy(request);
    }
    let answer = queue.wait(deadline.saturating_duration_since(Instant::now()))?;
    let mut count = 0;
    // SAFETY: the response lives to the end of this function. It is of the requested kind, or
    // the first call returns null, and the second is not made.
    let groups = unsafe {
        let result = sys::rd_kafka_event_AlterConsumerGroupOffsets_result(answer.as_ptr());
        if result.is_null() {
            return Err(UNANSWERED);
        }
        sys::rd_kafka_AlterConsumerGroupOffsets_result_groups(result, &mut count)
    };
    // SAFETY: `groups` and `count` have just been returned by librdkafka for a response that is still alive.
    let stored = unsafe { stored(groups, count) }?;
    match stored.len() == offsets.len() {
        true => Ok(()),
        false => Err(UNANSWERED),
    }
}

/// Waits until the coordinator of the consumer's own group is connected.
///
/// A read of no partitions waits for it and sends nothing (`rd_kafka_committed`, `rd_kafka_OffsetFetchRequest`).
/// Unlike a request of the admin API, the read can be abandoned safely.
fn wait_for_coordinator<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    timeout: Duration,
) -> Result<(), KafkaError> {
    let waited = consumer.committed_offsets(TopicPartitionList::new(), timeout);
    waited.map(drop)
}

const UNANSWERED: KafkaError = KafkaError::AdminOp(RDKafkaErrorCode::Fail);

/// Copies a broker's result for one group. Returns an error of the group or of any partition.
///
/// # Safety
/// `groups` points to `count` results that live through the call.
unsafe fn stored(
    groups: *const *const sys::rd_kafka_group_result_t,
    count: usize,
) -> Result<Vec<StoredOffset>, KafkaError> {
    // One group was requested, so there is one result.
    if groups.is_null() || count != 1 {
        return Err(UNANSWERED);
    }
    // SAFETY: there is one result, as checked above. It owns its error and its list, which live as
    // long; either may be null, and is then not read. The code of a null error is that of no error.
    let list = unsafe {
        let error = sys::rd_kafka_group_result_error(*groups);
        let code = code::of_error(error);
        if code != NO_ERROR {
            return Err(KafkaError::AdminOp(code::named(code)));
        }
        sys::rd_kafka_group_result_partitions(*groups)
    };
    // SAFETY: librdkafka has just returned the list for a result that is still alive.
    unsafe { elements(list) }
}

/// Copies the elements of a list that have an offset. Returns an error of any of them.
///
/// # Safety
/// The list is alive, or null.
unsafe fn elements(
    list: *const sys::rd_kafka_topic_partition_list_t,
) -> Result<Vec<StoredOffset>, KafkaError> {
    // SAFETY: guaranteed by the caller.
    let (first, count) = match unsafe { list.as_ref() } {
        // An empty list may have a null pointer to its elements.
        Some(list) => (
            list.elems.cast_const(),
            usize::try_from(list.cnt).unwrap_or(0),
        ),
        None => (ptr::null(), 0),
    };
    let mut offsets = Vec::with_capacity(count);
    for index in 0..count {
        // SAFETY: the list has this many elements. No reference to one is created: see `code`.
        let (element, code, offset) = unsafe {
            let element = first.add(index);
            let code = code::of_field(&raw const (*element).err);
            (element, code, (*element).offset)
        };
        if code != NO_ERROR {
            return Err(KafkaError::AdminOp(code::named(code)));
        }
        // The broker has no stored offset for it.
        if offset < 0 {
            continue;
        }
        // SAFETY: the name is null-terminated and lives as long as the list. So does the metadata, whose
        // length is given.
        offsets.push(unsafe {
            let metadata: &[u8] = match (*element).metadata.is_null() {
                true => &[],
                false => {
                    slice::from_raw_parts((*element).metadata.cast(), (*element).metadata_size)
                }
            };
            StoredOffset {
                topic: CStr::from_ptr((*element).topic)
                    .to_string_lossy()
                    .into_owned(),
                partition: (*element).partition,
                next: offset,
                metadata: String::from_utf8_lossy(metadata).into_owned(),
            }
        });
    }
    Ok(offsets)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads a list of librdkafka with these errors and offsets.
    fn read(partitions: &[(i32, i64)]) -> Result<Vec<StoredOffset>, KafkaError> {
        let mut list = TopicPartitionList::new();
        for number in 0..partitions.len() {
            list.add_partition("s", i32::try_from(number).unwrap());
        }
        // SAFETY: the list has an element for each, the code is four bytes wide, and the list lives
        // until it is read.
        unsafe {
            for (index, (code, offset)) in partitions.iter().enumerate() {
                let element = (*list.ptr()).elems.add(index);
                (&raw mut (*element).err).cast::<i32>().write(*code);
                (*element).offset = *offset;
            }
            let read = elements(list.ptr());
            for index in 0..partitions.len() {
                let element = (*list.ptr()).elems.add(index);
                (&raw mut (*element).err).cast::<i32>().write(NO_ERROR);
            }
            read
        }
    }

    #[test]
    fn partitions_without_an_offset_are_left_out() {
        let offsets = read(&[(0, 7), (0, -1001), (0, 0)]).unwrap();
        let offsets = offsets.iter().map(|stored| (stored.partition, stored.next));
        assert_eq!(offsets.collect::<Vec<_>>(), [(0, 7), (2, 0)]);
        assert_eq!(read(&[]).unwrap(), []);
    }

    #[test]
    fn error_of_a_newer_broker_is_an_error() {
        let error = read(&[(0, 7), (103, 7)]).unwrap_err();
        assert_eq!(error, KafkaError::AdminOp(RDKafkaErrorCode::Unknown));
        let error = read(&[(30, 7)]).unwrap_err();
        let denied = RDKafkaErrorCode::GroupAuthorizationFailed;
        assert_eq!(error, KafkaError::AdminOp(denied));
    }
}
