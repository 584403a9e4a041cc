//! Copies fetched messages into records.

use std::ffi::CStr;
use std::iter;
use std::ops::Range;
use std::ptr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use millstream_core::driver::StoredRecord;
use millstream_core::{Headers, Position};
use rdkafka::bindings as sys;
#[cfg(doc)]
use rdkafka::error::RDKafkaErrorCode;

use super::c_data::bytes;
use super::code::{self, NO_ERROR};
use super::message_headers::{Header, add_headers};

/// The part of one batch that belongs to one partition, in stored order.
pub(crate) enum Taken<S> {
    /// Records, at least one.
    Records {
        /// The caller's identifier of the partition.
        slot: S,
        /// They share one buffer of at most [`SHARED_BYTES`], unless it holds a single record.
        records: Vec<StoredRecord>,
        /// The epoch of the leader that wrote all of them. `None` in logs of before Kafka 0.11.
        leader_epoch: Option<i32>,
    },
    /// An error of the partition instead of records.
    Failed {
        /// The caller's identifier of the partition.
        slot: S,
        failure: FetchFailure,
    },
}

/// Why a partition could not be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FetchFailure {
    /// The number of the error, a broker's or librdkafka's. Brokers may send numbers that
    /// [`RDKafkaErrorCode`] does not have.
    pub(crate) code: i32,
    /// The offset that could not be read, or a negative number if librdkafka does not report it.
    pub(crate) offset: i64,
    /// librdkafka's description of the failure.
    pub(crate) reason: String,
}

/// Messages that are ours until they are dropped.
pub(super) struct Messages(pub(super) Vec<*mut sys::rd_kafka_message_t>);

impl Drop for Messages {
    fn drop(&mut self) {
        for message in &self.0 {
            // SAFETY: each was taken from the queue and is destroyed once.
            unsafe { sys::rd_kafka_message_destroy(*message) }
        }
    }
}

impl Messages {
    /// Copies all records, split into runs of one partition, and into buffers.
    pub(super) fn copy<S: Copy>(
        &self,
        mut slot: impl FnMut(&str, i32) -> Option<S>,
    ) -> Vec<Taken<S>> {
        let mut headers = Vec::new();
        // SAFETY: the batch call gave messages that live until the batch is dropped, after the views.
        let view = |message: &*mut _| unsafe { View::of(*message, &mut headers) };
        let views: Vec<View<'_>> = self.0.iter().map(view).collect();
        let mut taken = Vec::new();
        for run in views.chunk_by(|one, next| one.is_beside(next)) {
            let first = &run[0];
            let Some(slot) = slot(first.topic(), first.partition) else {
                continue;
            };
            if let Some(failure) = first.failure() {
                taken.push(Taken::Failed { slot, failure });
            } else {
                for part in of_one_leader(run).flat_map(|part| of_one_buffer(part, &headers)) {
                    taken.push(Taken::Records {
                        slot,
                        records: copy(part, &headers),
                        leader_epoch: part[0].leader_epoch(),
                    });
                }
            }
        }
        taken
    }
}

/// Splits records of one partition where the leader changes.
fn of_one_leader<'r, 'a>(run: &'r [View<'a>]) -> impl Iterator<Item = &'r [View<'a>]> {
    let (first, last) = (&run[0], &run[run.len() - 1]);
    // Epochs only grow in a log, so comparing the first and the last record decides it for nearly all runs.
    let is_one = first.leader_epoch() == last.leader_epoch();
    run.chunk_by(move |one, next| is_one || one.leader_epoch() == next.leader_epoch())
}

/// The number of bytes up to which records share a buffer. A record whose handler hangs keeps the whole buffer,
/// which is more than the runtime counts.
pub(super) const SHARED_BYTES: usize = 64 << 10;

/// Splits records of one partition into groups that share a buffer.
fn of_one_buffer<'r, 'a>(
    mut records: &'r [View<'a>],
    headers: &'r [Header<'r>],
) -> impl Iterator<Item = &'r [View<'a>]> {
    iter::from_fn(move || {
        let mut size = 0;
        let fits = |view: &&View<'_>| {
            size += view.size(headers);
            size <= SHARED_BYTES
        };
        let count = records.iter().take_while(fits).count();
        // A larger one is alone.
        let (piece, rest) = records.split_at_checked(count.max(1))?;
        records = rest;
        Some(piece)
    })
}

/// Copies records into one buffer.
fn copy(views: &[View<'_>], headers: &[Header<'_>]) -> Vec<StoredRecord> {
    let mut cut = Cut::new(views, headers);
    views.iter().map(|view| cut.next(view)).collect()
}

/// One message, as librdkafka holds it.
struct View<'a> {
    message: *const sys::rd_kafka_message_t,
    topic: *mut sys::rd_kafka_topic_t,
    partition: i32,
    /// Its error code, or 0.
    code: i32,
    offset: i64,
    key: Option<&'a [u8]>,
    /// `None` is a null value: a tombstone. For an error, this is the text.
    payload: Option<&'a [u8]>,
    /// Its range within the batch's headers.
    headers: Range<usize>,
}

impl<'a> View<'a> {
    /// Reads a message, and adds its headers to those of the batch.
    ///
    /// # Safety
    /// `message` lives during `'a`, and its pointers with it.
    unsafe fn of(message: *mut sys::rd_kafka_message_t, headers: &mut Vec<Header<'a>>) -> Self {
        let first = headers.len();
        // SAFETY: by the contract above. Fields are read one by one, without a reference to the whole struct:
        // see `code`.
        let (code, topic, partition, offset, key, payload) = unsafe {
            (
                code::of_field(&raw const (*message).err),
                (*message).rkt,
                (*message).partition,
                (*message).offset,
                bytes((*message).key, (*message).key_len),
                bytes((*message).payload, (*message).len),
            )
        };
        if code == NO_ERROR {
            // SAFETY: by the contract above.
            unsafe { add_headers(message, headers) };
        }
        Self {
            message,
            topic,
            partition,
            code,
            offset,
            key,
            payload,
            headers: first..headers.len(),
        }
    }

    fn topic(&self) -> &str {
        // SAFETY: a message holds a reference to its topic, so the topic and its name live as long.
        unsafe {
            let name = sys::rd_kafka_topic_name(self.topic);
            CStr::from_ptr(name).to_str().unwrap_or_default()
        }
    }

    fn failure(&self) -> Option<FetchFailure> {
        (self.code != NO_ERROR).then(|| FetchFailure {
            code: self.code,
            offset: self.offset,
            reason: String::from_utf8_lossy(self.payload.unwrap_or_default()).into_owned(),
        })
    }

    /// Returns whether both are records of the same partition. An error is always on its own.
    fn is_beside(&self, other: &View<'_>) -> bool {
        ptr::eq(self.topic, other.topic)
            && self.partition == other.partition
            && self.code == NO_ERROR
            && other.code == NO_ERROR
    }

    /// Returns the fields that are copied, in the order in which they lie in the buffer.
    fn fields<'b>(&'b self, headers: &'b [Header<'b>]) -> impl Iterator<Item = &'b [u8]> {
        let values = headers[self.headers.clone()].iter();
        let record = self.key.into_iter().chain(self.payload);
        record.chain(values.filter_map(|(_, value)| *value))
    }

    /// Returns the number of bytes that are copied.
    fn size(&self, headers: &[Header<'_>]) -> usize {
        self.fields(headers).map(<[u8]>::len).sum()
    }

    /// Returns the epoch of the leader that wrote the record.
    fn leader_epoch(&self) -> Option<i32> {
        // SAFETY: the message lives, and comes from the batch call.
        let epoch = unsafe { sys::rd_kafka_message_leader_epoch(self.message) };
        (epoch >= 0).then_some(epoch)
    }

    fn timestamp(&self) -> SystemTime {
        // SAFETY: the message lives; the type of the timestamp is not requested.
        let millis = unsafe { sys::rd_kafka_message_timestamp(self.message, ptr::null_mut()) };
        // Records of before Kafka 0.10 have none, reported as -1.
        UNIX_EPOCH + Duration::from_millis(u64::try_from(millis).unwrap_or(0))
    }
}

/// One buffer with the bytes of some records. The records are sliced from it in the same order.
struct Cut<'a> {
    headers: &'a [Header<'a>],
    buffer: Bytes,
    at: usize,
}

impl<'a> Cut<'a> {
    fn new(views: &[View<'_>], headers: &'a [Header<'a>]) -> Self {
        let size = views.iter().map(|view| view.size(headers)).sum();
        let mut buffer = Vec::with_capacity(size);
        for view in views {
            view.fields(headers)
                .for_each(|field| buffer.extend_from_slice(field));
        }
        Self {
            headers,
            buffer: buffer.into(),
            at: 0,
        }
    }

    fn next(&mut self, view: &View<'_>) -> StoredRecord {
        let headers = self.headers;
        let mut field = |bytes: &[u8]| -> Bytes {
            let from = self.at;
            self.at += bytes.len();
            self.buffer.slice(from..self.at)
        };
        let offset = u64::try_from(view.offset).unwrap_or(0);
        StoredRecord {
            position: Position::from(offset),
            timestamp: view.timestamp(),
            key: view.key.map(&mut field),
            payload: view.payload.map(&mut field),
            headers: match view.headers.is_empty() {
                true => Headers::new(),
                false => {
                    let stored = headers[view.headers.clone()].iter();
                    let mut headers = Headers::new();
                    headers
                        .extend(stored.map(|(name, value)| (name.as_ref(), value.map(&mut field))));
                    headers
                }
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_of_a_newer_broker_keeps_its_number() {
        const INCONSISTENT_TOPIC_ID: i32 = 103;
        let mut reason = *b"Inconsistent topic ID";
        // SAFETY: all zeros are valid: numbers, null pointers and the code of no error.
        let mut message: sys::rd_kafka_message_t = unsafe { std::mem::zeroed() };
        message.offset = 7;
        message.payload = reason.as_mut_ptr().cast();
        message.len = reason.len();
        let message = &raw mut message;
        // SAFETY: the field is four bytes wide, and the message lives until the end of the test.
        let view = unsafe {
            (&raw mut (*message).err)
                .cast::<i32>()
                .write(INCONSISTENT_TOPIC_ID);
            View::of(message, &mut Vec::new())
        };
        let failure = FetchFailure {
            code: INCONSISTENT_TOPIC_ID,
            offset: 7,
            reason: "Inconsistent topic ID".to_owned(),
        };
        assert_eq!(view.failure(), Some(failure));
    }
}
