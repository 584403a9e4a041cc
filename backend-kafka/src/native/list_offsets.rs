//! The oldest and the next offsets of partitions, read from their leaders.

use std::ffi::CStr;
use std::ptr;
use std::slice;

use rdkafka::TopicPartitionList;
use rdkafka::bindings as sys;
use rdkafka::client::{Client, ClientContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use super::admin::{Event, Options, Queue};
use super::code::{self, NO_ERROR};

/// A leader's response for one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ListedOffset {
    pub(crate) topic: String,
    pub(crate) partition: i32,
    pub(crate) offset: Result<i64, RDKafkaErrorCode>,
}

/// Requests the offsets that a list names, each `Beginning` or `End`. Its partitions are distinct.
pub(super) fn request<C: ClientContext>(
    client: &Client<C>,
    partitions: &TopicPartitionList,
    options: &Options,
    queue: &Queue,
) {
    // SAFETY: client, list, options and queue live through the call, which copies the list.
    unsafe {
        sys::rd_kafka_ListOffsets(
            client.native_ptr(),
            partitions.ptr(),
            options.as_ptr(),
            queue.as_ptr(),
        );
    }
}

/// Reads the response to a [`request`].
pub(super) fn response(event: &Event) -> Result<Vec<ListedOffset>, KafkaError> {
    let mut count = 0;
    // SAFETY: the event lives to the end of this function. If it is not of the requested kind, the first
    // call returns null, and the second is not made. The first call also returns the number of results.
    let results = unsafe {
        let result = sys::rd_kafka_event_ListOffsets_result(event.as_ptr());
        if result.is_null() {
            return Err(KafkaError::AdminOp(RDKafkaErrorCode::Fail));
        }
        let results = sys::rd_kafka_ListOffsets_result_infos(result, &mut count);
        match results.is_null() || count == 0 {
            true => &[],
            false => slice::from_raw_parts(results, count),
        }
    };
    let listed = results.iter().map(|result| {
        // SAFETY: the result lives as long as the event, and so does its element, whose name is
        // terminated. No reference is made to the element: see `code`.
        unsafe {
            let element = sys::rd_kafka_ListOffsetsResultInfo_topic_partition(*result);
            ListedOffset {
                topic: CStr::from_ptr((*element).topic)
                    .to_string_lossy()
                    .into_owned(),
                partition: (*element).partition,
                offset: match code::of_field(ptr::addr_of!((*element).err)) {
                    NO_ERROR => Ok((*element).offset),
                    code => Err(code::named(code)),
                },
            }
        }
    });
    Ok(listed.collect())
}
