//! Requests to the cluster whose responses arrive in one queue, so that no thread has to wait for them.
//!
//! No request is sent to a group's coordinator. librdkafka aborts the process if a client is closed, or a request
//! times out, while it looks for one (2.12, `rd_kafka_admin_coord_request`, confluentinc/librdkafka#5397). It must
//! be possible to close the clients of members at any time, and coordinators may be unavailable for any time.

use std::sync::Arc;
use std::time::Duration;

use rdkafka::TopicPartitionList;
use rdkafka::bindings as sys;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use super::admin::{Event, Notify, Options, Queue};
use super::list_offsets::{self, ListedOffset};
use super::topic_ids::{self, TopicIds};

/// Identifies a request in its response.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub(crate) struct RequestId(pub(crate) usize);

/// A response of the cluster.
#[derive(Debug)]
pub(crate) enum Response {
    TopicIds(TopicIds),
    Offsets(Vec<ListedOffset>),
}

/// A queue of responses to the requests of one client.
pub(crate) struct AdminQueue<C: ConsumerContext> {
    // In the order in which they must be dropped.
    _notify: Notify,
    queue: Queue,
    consumer: Arc<BaseConsumer<C>>,
}

impl<C: ConsumerContext> AdminQueue<C> {
    /// Creates a queue. `on_response` is called by librdkafka's threads when a response arrives, and must
    /// not call librdkafka for this client's admin requests.
    pub(crate) fn new(
        consumer: Arc<BaseConsumer<C>>,
        on_response: impl Fn() + Send + Sync + 'static,
    ) -> Self {
        let queue = Queue::new(consumer.client());
        // SAFETY: both are fields of one struct, and are dropped in this order.
        let notify = unsafe { Notify::new(&queue, on_response) };
        Self {
            _notify: notify,
            queue,
            consumer,
        }
    }

    /// Requests the ids of topics from the controller. The names must be distinct and not empty.
    pub(crate) fn topic_ids(
        &self,
        id: RequestId,
        topics: &[&str],
        timeout: Duration,
    ) -> Result<(), KafkaError> {
        let client = self.consumer.client();
        let options = Options::new(client, timeout)?.with_id(id.0);
        topic_ids::request(client, topics, &options, &self.queue)
    }

    /// Requests the oldest or next offsets of partitions from their leaders, as readers of committed records
    /// see them. The list selects which by `Beginning` and `End`.
    pub(crate) fn offsets(
        &self,
        id: RequestId,
        partitions: &TopicPartitionList,
        timeout: Duration,
    ) -> Result<(), KafkaError> {
        let client = self.consumer.client();
        let options = Options::new(client, timeout)?
            .with_id(id.0)
            .read_committed();
        list_offsets::request(client, partitions, &options, &self.queue);
        Ok(())
    }

    /// Returns the next response, if one has arrived.
    pub(crate) fn next(&self) -> Option<(RequestId, Result<Response, KafkaError>)> {
        let event = self.queue.next()?;
        Some((RequestId(event.id()), read(&event)))
    }
}

fn read(event: &Event) -> Result<Response, KafkaError> {
    event.check()?;
    match event.kind() {
        sys::RD_KAFKA_EVENT_DESCRIBETOPICS_RESULT => {
            topic_ids::response(event).map(Response::TopicIds)
        }
        sys::RD_KAFKA_EVENT_LISTOFFSETS_RESULT => {
            list_offsets::response(event).map(Response::Offsets)
        }
        _ => Err(KafkaError::AdminOp(RDKafkaErrorCode::Fail)),
    }
}
