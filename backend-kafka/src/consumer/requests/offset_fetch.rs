//! Reads of the offsets that a group has committed.
//!
//! These block. librdkafka's admin API reads them without, but a member's client may not ask a coordinator
//! by it, see [`admin_queue`](crate::native::admin_queue). So each read has a thread that lives as long as
//! the read.

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

/// What is committed, by partition.
type Committed = Vec<(TopicPartition, Option<Progress>)>;

/// The reads that are under way.
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

    /// Begins a read in the group of a consumer.
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
            // Before anyone knows that it has ended: a member's client must not end on this thread.
            drop(consumer);
            // The member has left: nobody wants to know.
            let _ = to.send((id, found.and_then(|found| read(&found))));
            waker.wake();
        });
        match thread {
            Ok(thread) => self.threads.push(thread),
            Err(error) => {
                tracing::warn!(target: "librdkafka", %error, "cannot start a thread");
                let failed = KafkaError::AdminOp(RDKafkaErrorCode::CriticalSystemResource);
                // Both ends are ours.
                let _ = self.to.send((id, Err(failed)));
            }
        }
    }

    /// Returns the answer to a read, if one has come.
    pub(super) fn next(&self) -> Option<(RequestId, Result<Committed, KafkaError>)> {
        self.from.try_recv().ok()
    }

    /// Waits for the reads that are under way.
    pub(super) fn close(self) {
        for thread in self.threads {
            // A panic there was reported there.
            let _ = thread.join();
        }
    }
}

/// Reads a list of committed offsets; any partition's error fails the whole.
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
