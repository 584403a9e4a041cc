//! Takes records in batches from a queue of our own.
//!
//! All partitions of a member are forwarded to one queue, so that records are taken separately from the
//! consumer's events: if the batch call meets a rebalance event, librdkafka acknowledges it by itself, without
//! asking the application.

use std::borrow::Cow;
use std::ffi::{CStr, CString, c_char, c_void};
use std::iter;
use std::ops::Range;
use std::ptr::{self, NonNull};
use std::slice;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use millstream_core::driver::StoredRecord;
use millstream_core::{Headers, Position};
use rdkafka::TopicPartitionList;
use rdkafka::bindings as sys;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{IsError, RDKafkaErrorCode};

use super::code::{self, NO_ERROR};
use super::header_name;

/// A queue that receives the records of some partitions of a consumer.
pub(crate) struct DataQueue<C: ConsumerContext> {
    queue: NonNull<sys::rd_kafka_queue_t>,
    /// The consumer's own queue, of its events.
    events: NonNull<sys::rd_kafka_queue_t>,
    /// Kept alive: both queues must be destroyed before their client.
    consumer: Arc<BaseConsumer<C>>,
}

// SAFETY: librdkafka's queues are made to be used by several threads at once: each call locks.
unsafe impl<C: ConsumerContext> Send for DataQueue<C> {}
// SAFETY: as above.
unsafe impl<C: ConsumerContext> Sync for DataQueue<C> {}

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

impl<C: ConsumerContext> DataQueue<C> {
    /// Creates the queue of a consumer that has a group.
    pub(crate) fn new(consumer: Arc<BaseConsumer<C>>) -> Self {
        let client = consumer.client().native_ptr();
        // SAFETY: the client lives, since `consumer` holds it. Each handle is released once, in
        // `drop`.
        let (queue, events) = unsafe {
            let queue = sys::rd_kafka_queue_new(client);
            (queue, sys::rd_kafka_queue_get_consumer(client))
        };
        Self {
            queue: NonNull::new(queue).expect("librdkafka aborts where it finds no memory"),
            events: NonNull::new(events).expect("a consumer of a group has a queue"),
            consumer,
        }
    }

    /// Returns whether an event waits to be polled. A poll serves one event and does not report whether it did.
    pub(crate) fn has_events(&self) -> bool {
        // SAFETY: the handle lives until `drop`.
        unsafe { sys::rd_kafka_queue_length(self.events.as_ptr()) > 0 }
    }

    /// Sends an offset commit to the broker. The result arrives as an event of the consumer, in the callback of its
    /// context. rdkafka's safe method reports no result: it sends it to a callback that `rdkafka` leaves unset.
    pub(crate) fn commit(&self, offsets: &TopicPartitionList) -> Result<(), RDKafkaErrorCode> {
        // SAFETY: the client, the list and the queue of events live; the list is copied.
        let failed = unsafe {
            sys::rd_kafka_commit_queue(
                self.consumer.client().native_ptr(),
                offsets.ptr(),
                self.events.as_ptr(),
                None,
                ptr::null_mut(),
            )
        };
        match failed.is_error() {
            true => Err(failed.into()),
            false => Ok(()),
        }
    }

    /// Forwards the records of a partition to this queue. Records that were held back come first.
    ///
    /// Must be called before the partition is assigned: librdkafka then leaves the forward alone.
    pub(crate) fn forward(&self, topic: &str, partition: i32) {
        self.redirect(topic, partition, self.queue.as_ptr());
    }

    /// Holds back the records of a partition: they stay in librdkafka, bounded by its own settings. Records that are
    /// already in this queue still arrive.
    pub(crate) fn hold_back(&self, topic: &str, partition: i32) {
        self.redirect(topic, partition, ptr::null_mut());
    }

    fn redirect(&self, topic: &str, partition: i32, to: *mut sys::rd_kafka_queue_t) {
        let topic = name(topic);
        // SAFETY: the client lives and `topic` is a C string. The last call releases the reference that the
        // first call makes. Both queues are of the same client, or `to` is null, which ends the forward.
        unsafe {
            let client = self.consumer.client().native_ptr();
            let from = sys::rd_kafka_queue_get_partition(client, topic.as_ptr(), partition);
            if !from.is_null() {
                sys::rd_kafka_queue_forward(from, to);
                sys::rd_kafka_queue_destroy(from);
            }
        }
    }

    /// Makes a waiting [`take_one`](Self::take_one) return, or else the next one.
    pub(crate) fn wake(&self) {
        // SAFETY: the queue lives until `drop`.
        unsafe { sys::rd_kafka_queue_yield(self.queue.as_ptr()) }
    }

    /// Takes the records that are available, at most `most`.
    pub(crate) fn take<S: Copy>(
        &self,
        most: usize,
        slot: impl FnMut(&str, i32) -> Option<S>,
    ) -> Vec<Taken<S>> {
        self.batch(most, Duration::ZERO).copy(slot)
    }

    /// Waits for the first record.
    ///
    /// Does not wait for more: the batch call waits until its array is full or its timeout expires, so a quiet
    /// stream would pay that timeout as latency.
    pub(crate) fn take_one<S: Copy>(
        &self,
        wait: Duration,
        slot: impl FnMut(&str, i32) -> Option<S>,
    ) -> Vec<Taken<S>> {
        self.batch(1, wait).copy(slot)
    }

    fn batch(&self, most: usize, wait: Duration) -> Messages {
        let mut messages = Vec::with_capacity(most);
        // Rounded up: a wait that ends too early is started again and again until the time is over.
        let wait = i32::try_from(wait.as_micros().div_ceil(1_000)).unwrap_or(i32::MAX);
        // SAFETY: the queue lives, and the array has room for `most` pointers. The call sets as many as it
        // returns; each points to a message that is now ours to destroy. The queue receives no events, only
        // forwarded partitions.
        unsafe {
            let taken = sys::rd_kafka_consume_batch_queue(
                self.queue.as_ptr(),
                wait,
                messages.as_mut_ptr(),
                most,
            );
            messages.set_len(usize::try_from(taken).unwrap_or(0));
        }
        Messages(messages)
    }

    /// Returns the last known end of a partition, without a request. `None` before the first fetch.
    pub(crate) fn known_end(&self, topic: &str, partition: i32) -> Option<u64> {
        let topic = name(topic);
        let (mut low, mut high) = (0, 0);
        // SAFETY: the client lives, `topic` is a C string, and both numbers outlive the call.
        let failed = unsafe {
            sys::rd_kafka_get_watermark_offsets(
                self.consumer.client().native_ptr(),
                topic.as_ptr(),
                partition,
                &mut low,
                &mut high,
            )
        };
        if failed.is_error() {
            return None;
        }
        u64::try_from(high).ok()
    }
}

impl<C: ConsumerContext> Drop for DataQueue<C> {
    fn drop(&mut self) {
        // SAFETY: made by `new` and released only here. `consumer` keeps the client alive longer, since it is
        // dropped after this.
        unsafe {
            sys::rd_kafka_queue_destroy(self.events.as_ptr());
            sys::rd_kafka_queue_destroy(self.queue.as_ptr());
        }
    }
}

/// The identity of a consumer in its group, as last reported by the broker.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) generation: i32,
    pub(crate) member: String,
}

impl Identity {
    /// Returns whether it is a member: a consumer that left or was fenced has no id or no generation.
    pub(crate) fn is_member(&self) -> bool {
        self.generation > 0 && !self.member.is_empty()
    }
}

/// Reads the identity of a consumer in its group from librdkafka. Must be called in the callback of an
/// assignment: later the values may be those of the next assignment, or none.
pub(crate) fn identity<C: ConsumerContext>(consumer: &BaseConsumer<C>) -> Option<Identity> {
    // SAFETY: the client lives. The last call destroys what the first call makes. The member's id, which
    // belongs to it, is copied before.
    unsafe {
        let metadata = sys::rd_kafka_consumer_group_metadata(consumer.client().native_ptr());
        if metadata.is_null() {
            return None;
        }
        let generation = sys::rd_kafka_consumer_group_metadata_generation_id(metadata);
        let member = sys::rd_kafka_consumer_group_metadata_member_id(metadata);
        let member = text(member).into_owned();
        sys::rd_kafka_consumer_group_metadata_destroy(metadata);
        Some(Identity { generation, member })
    }
}

/// Messages that are ours until they are dropped.
struct Messages(Vec<*mut sys::rd_kafka_message_t>);

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
    fn copy<S: Copy>(&self, mut slot: impl FnMut(&str, i32) -> Option<S>) -> Vec<Taken<S>> {
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
const SHARED_BYTES: usize = 64 << 10;

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

/// A header as librdkafka holds it.
type Header<'a> = (Cow<'a, str>, Option<&'a [u8]>);

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

/// Adds the headers of a message, in order.
///
/// # Safety
/// `message` was given by the batch call and is not destroyed during `'a`.
unsafe fn add_headers<'a>(message: *mut sys::rd_kafka_message_t, to: &mut Vec<Header<'a>>) {
    let mut list = ptr::null_mut();
    // SAFETY: the message lives. The list that the call returns belongs to it.
    let none = unsafe { sys::rd_kafka_message_headers(message, &mut list) };
    if none.is_error() || list.is_null() {
        return;
    }
    // SAFETY: the list lives as long as the message.
    unsafe { add_list(list, to) }
}

/// Adds the headers of a list, in order.
///
/// # Safety
/// The list lives during `'a`, and is not changed.
unsafe fn add_list<'a>(list: *const sys::rd_kafka_headers_t, to: &mut Vec<Header<'a>>) {
    // SAFETY: by the contract above. Each call below sets all three pointers, which belong to the list,
    // or returns an error.
    unsafe {
        for index in 0..sys::rd_kafka_header_cnt(list) {
            let (mut name, mut value, mut size) = (ptr::null(), ptr::null(), 0);
            let found = sys::rd_kafka_header_get_all(list, index, &mut name, &mut value, &mut size);
            if found.is_error() {
                break;
            }
            to.push((read_name(name, value), bytes(value, size)));
        }
    }
}

/// Reads the name of a header. librdkafka returns it as a C string, which ends at a NUL byte of the name.
/// But librdkafka lays a value out directly after its name, so the value's address shows where the name ends.
///
/// The name of a null value is read up to its first NUL byte.
///
/// # Safety
/// Name and value are of one header, which lives during `'a`.
unsafe fn read_name<'a>(name: *const c_char, value: *const c_void) -> Cow<'a, str> {
    // SAFETY: by the contract above. librdkafka terminates names.
    let mut bytes = unsafe { CStr::from_ptr(name) }.to_bytes();
    if !value.is_null() && values_follow_names() {
        // Less the NUL byte that terminates the name.
        let length = (value as usize - name as usize).saturating_sub(1);
        // SAFETY: all bytes up to the value belong to the name, as checked above, and live as long.
        bytes = unsafe { slice::from_raw_parts(name.cast(), length) };
    }
    header_name::to_text(bytes)
}

/// Returns whether librdkafka lays the value of a header out directly after its name, in one allocation. Checked
/// on a header of our own, since its documentation does not promise it.
fn values_follow_names() -> bool {
    static FOLLOW: OnceLock<bool> = OnceLock::new();
    *FOLLOW.get_or_init(|| {
        const NAME: &[u8; 3] = b"a\0b";
        // SAFETY: name and value are copied, with their lengths. The list lives until it is destroyed, once, and
        // no borrow of it is kept.
        unsafe {
            let list = sys::rd_kafka_headers_new(1);
            let size = NAME.len() as isize;
            sys::rd_kafka_header_add(list, NAME.as_ptr().cast(), size, b"v".as_ptr().cast(), 1);
            let (mut name, mut value, mut size) = (ptr::null(), ptr::null(), 0);
            sys::rd_kafka_header_get_all(list, 0, &mut name, &mut value, &mut size);
            let follows = (value as usize).checked_sub(name as usize) == Some(NAME.len() + 1);
            sys::rd_kafka_headers_destroy(list);
            follows
        }
    })
}

/// Reads a C string. Null is the empty text.
///
/// # Safety
/// `text` is null or a C string that lives during `'a`.
unsafe fn text<'a>(text: *const c_char) -> Cow<'a, str> {
    if text.is_null() {
        return Cow::Borrowed("");
    }
    // SAFETY: by the contract above.
    unsafe { CStr::from_ptr(text) }.to_string_lossy()
}

/// Reads a byte array. Null is `None`.
///
/// # Safety
/// `start` is null or the first of `size` bytes that live during `'a`.
unsafe fn bytes<'a>(start: *const c_void, size: usize) -> Option<&'a [u8]> {
    // SAFETY: by the contract above.
    (!start.is_null()).then(|| unsafe { slice::from_raw_parts(start.cast(), size) })
}

fn name(topic: &str) -> CString {
    CString::new(topic).expect("names were checked, or came from librdkafka: none holds a zero")
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use rdkafka::mocking::MockCluster;
    use rdkafka::producer::{BaseProducer, BaseRecord, DefaultProducerContext, Producer as _};
    use rdkafka::{ClientConfig, Offset};

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

    /// Takes all records of a topic. `each` is the number of records in each partition.
    fn take_all(
        mock: &MockCluster<'_, DefaultProducerContext>,
        partitions: i32,
        each: usize,
    ) -> Vec<Taken<i32>> {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", mock.bootstrap_servers());
        config.set("group.id", "g");
        config.set("auto.offset.reset", "error");
        let consumer: BaseConsumer = config.create().unwrap();
        let queue = DataQueue::new(Arc::new(consumer));
        let mut list = TopicPartitionList::new();
        for partition in 0..partitions {
            queue.forward("t", partition);
            list.add_partition_offset("t", partition, Offset::Beginning)
                .unwrap();
        }
        queue.consumer.assign(&list).unwrap();
        // All of them must be ready to be taken at once.
        let deadline = Instant::now() + Duration::from_secs(20);
        let count = partitions as usize * each;
        // SAFETY: the queue lives.
        while unsafe { sys::rd_kafka_queue_length(queue.queue.as_ptr()) } < count {
            assert!(Instant::now() < deadline, "they are fetched");
            drop(queue.consumer.poll(Duration::from_millis(10)));
        }
        queue.take(count, |_, partition| Some(partition))
    }

    #[test]
    fn a_record_that_is_kept_keeps_few_others() {
        const PARTITIONS: i32 = 4;
        const EACH: usize = 40;
        let mock = MockCluster::new(1).unwrap();
        mock.create_topic("t", PARTITIONS, 1).unwrap();
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", mock.bootstrap_servers());
        let producer: BaseProducer = config.create().unwrap();
        let large = vec![0; 2 * SHARED_BYTES];
        for number in 0..EACH {
            let payload = match number {
                0 => &large[..],
                _ => &large[..10_000],
            };
            for partition in 0..PARTITIONS {
                let record = BaseRecord::<(), _>::to("t").partition(partition);
                let sent = producer.send(record.payload(payload));
                sent.map_err(|(error, _)| error).unwrap();
            }
        }
        producer.flush(Duration::from_secs(20)).unwrap();

        let mut records = 0;
        let mut kept = Vec::new();
        for taken in take_all(&mock, PARTITIONS, EACH) {
            let Taken::Records {
                records: shared, ..
            } = taken
            else {
                panic!("a fetch failed")
            };
            let bytes: usize = shared.iter().map(StoredRecord::size).sum();
            assert!(bytes <= SHARED_BYTES || shared.len() == 1, "{bytes}");
            records += shared.len();
            kept.push(shared[0].payload.clone().unwrap());
        }
        assert_eq!(records, PARTITIONS as usize * EACH);
        assert!(
            kept.iter().all(Bytes::is_unique),
            "none keeps another's buffer"
        );
    }

    /// Returns the names of headers as they are read, for headers with these names and this value.
    fn names_read(names: &[&[u8]], value: Option<&[u8]>) -> Vec<String> {
        // SAFETY: names and values live as long as the calls, which copy them. The list is destroyed
        // once, after everything that was read from it is copied.
        unsafe {
            let list = sys::rd_kafka_headers_new(names.len());
            for name in names {
                sys::rd_kafka_header_add(
                    list,
                    name.as_ptr().cast(),
                    name.len() as isize,
                    value.map_or(ptr::null(), |value| value.as_ptr().cast()),
                    value.map_or(0, |value| value.len() as isize),
                );
            }
            let mut headers = Vec::new();
            add_list(list, &mut headers);
            let read = headers.iter().map(|(name, read)| {
                assert_eq!(*read, value);
                name.clone().into_owned()
            });
            let read = read.collect();
            sys::rd_kafka_headers_destroy(list);
            read
        }
    }

    #[test]
    fn header_names_keep_their_bytes() {
        let names: [&[u8]; 4] = [b"trace", b"", b"a\xff\xfe", b"a\0b"];
        for value in [Some(&b"v"[..]), Some(b"")] {
            let read = names_read(&names, value);
            assert_eq!(read, ["trace", "", "a\u{10FFFF}\u{10FFFE}", "a\0b"]);
        }
        assert_eq!(
            names_read(&names[..3], None),
            ["trace", "", "a\u{10FFFF}\u{10FFFE}"]
        );
    }
}
