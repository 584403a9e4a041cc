//! Reads of the offsets that a group has committed.
//!
//! These reads block. librdkafka's admin API reads them asynchronously, but a member's client must not send requests
//! to a coordinator with it, see [`admin_queue`](crate::native::admin_queue). So each read has a thread that lives
//! as long as the read.

use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::{Offset, TopicPartitionList};

use crate::consumer::lists::list;
use crate::consumer::poll_waker::PollWaker;
use crate::consumer::state::Progress;
use crate::consumer::types::TopicPartition;
use crate::group::note::Note;
use crate::native::admin_queue::RequestId;
use crate::native::leader_epoch;

/// The committed progress, by partition.
type Committed = Vec<(TopicPartition, Option<Progress>)>;

/// The reads in flight.
#[derive(Debug)]
pub(super) struct OffsetFetches {
    waker: Arc<PollWaker>,
    to: Sender<(RequestId, Result<Committed, KafkaError>)>,
    from: Receiver<(RequestId, Result<Committed, KafkaError>)>,
    threads: Vec<JoinHandle<()>>,
}

impl OffsetFetches {
    pub(super) fn new(waker: Arc<PollWaker>) -> Self {
        let (to, from) = mpsc::channel();
        Self {
            waker,
            to,
            from,
            threads: Vec::new(),
        }
    }

    /// Starts a read in a consumer's group.
    pub(super) fn begin<C: ConsumerContext + 'static>(
        &mut self,
        id: RequestId,
        consumer: Arc<BaseConsumer<C>>,
        partitions: Vec<TopicPartition>,
        timeout: Duration,
    ) {
        self.threads.retain(|thread| !thread.is_finished());
        let (to, waker) = (self.to.clone(), self.waker.clone());
        let thread = thread::Builder::new().name("kafka-offsets".into());
        let thread = thread.spawn(move || {
            let found = consumer.committed_offsets(list(&partitions), timeout);
            // Dropped before the read's end is reported: a member's client must not be closed on this thread.
            drop(consumer);
            // The receiver is gone if the member has left.
            let _ = to.send((id, found.and_then(|found| read(&found))));
            waker.wake();
        });
        match thread {
            Ok(thread) => self.threads.push(thread),
            Err(error) => {
                tracing::warn!(target: "librdkafka", %error, "cannot start a thread");
                let failed = KafkaError::AdminOp(RDKafkaErrorCode::CriticalSystemResource);
                // Both ends belong to this struct.
                let _ = self.to.send((id, Err(failed)));
            }
        }
    }

    /// Returns the result of a read, if one has ended.
    pub(super) fn next(&self) -> Option<(RequestId, Result<Committed, KafkaError>)> {
        self.from.try_recv().ok()
    }

    /// Waits for the reads in flight.
    pub(super) fn close(self) {
        for thread in self.threads {
            // The thread has already reported a panic.
            let _ = thread.join();
        }
    }
}

/// Reads a list of committed offsets. An error of any partition fails the whole list.
fn read(found: &TopicPartitionList) -> Result<Committed, KafkaError> {
    let elements = found.elements();
    let each = elements.iter().zip(leader_epoch::all(found));
    let each = each.map(|(element, leader_epoch)| {
        element.error()?;
        let name = (Arc::from(element.topic()), element.partition());
        let progress = match element.offset() {
            Offset::Offset(next) => Some(Progress {
                next,
                leader_epoch,
                note: Note::from_metadata(element.metadata()),
            }),
            _ => None,
        };
        Ok((name, progress))
    });
    each.collect()
}
