//! Takes records in batches from a queue of our own.
//!
//! All partitions of a member are forwarded to one queue, so that records are taken separately from the
//! consumer's events: if the batch call meets a rebalance event, librdkafka acknowledges it by itself, without
//! asking the application.

use std::ffi::CString;
use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::time::Duration;

use rdkafka::TopicPartitionList;
use rdkafka::bindings as sys;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{IsError, RDKafkaErrorCode};

use super::messages::{Messages, Taken};

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

fn name(topic: &str) -> CString {
    CString::new(topic).expect("names were checked, or came from librdkafka: none holds a zero")
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use bytes::Bytes;
    use millstream_core::driver::StoredRecord;
    use rdkafka::mocking::MockCluster;
    use rdkafka::producer::{BaseProducer, BaseRecord, DefaultProducerContext, Producer as _};
    use rdkafka::{ClientConfig, Offset};

    use super::*;
    use crate::native::messages::SHARED_BYTES;

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
}
