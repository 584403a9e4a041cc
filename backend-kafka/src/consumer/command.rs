//! The runtime's calls to a member.

use std::sync::Arc;
use std::sync::mpsc::Sender;

use millstream_core::driver::CheckpointUpdate;
use millstream_core::{Epoch, Partition, Result};
use rdkafka::TopicPartitionList;
use rdkafka::consumer::ConsumerGroupMetadata;
use tokio::sync::oneshot;

use super::poll_waker::PollWaker;

/// A call of the runtime.
pub(super) enum Command {
    Checkpoint {
        marks: Vec<CheckpointUpdate>,
        reply: oneshot::Sender<Vec<Result<()>>>,
    },
    Release {
        partition: Partition,
        epoch: Epoch,
        reply: oneshot::Sender<Result<()>>,
    },
    /// Requests the offsets that a transaction stores.
    PrepareTransaction {
        marks: Vec<CheckpointUpdate>,
        reply: oneshot::Sender<Result<PreparedTransaction>>,
    },
    /// The transaction was stored.
    TransactionStored(Vec<CheckpointUpdate>),
    /// The broker reported an unknown member. The member had had this many assignments then.
    Gone {
        assignments: u64,
    },
    Pause(Partition, Epoch),
    Resume(Partition, Epoch),
    /// The member leaves, gracefully or not.
    Leave(Option<oneshot::Sender<()>>),
    #[cfg(test)]
    Panic,
}

/// The data that the broker compares and stores with a transaction.
pub(super) struct PreparedTransaction {
    pub(super) offsets: TopicPartitionList,
    pub(super) member: ConsumerGroupMetadata,
    /// The number of assignments that the member has had.
    pub(super) assignments: u64,
}

/// The channel to the polling thread. The member ends when it is dropped.
#[derive(Debug)]
pub(super) struct Commands {
    pub(super) to: Sender<Command>,
    pub(super) waker: Arc<PollWaker>,
}

impl Commands {
    pub(super) fn send(&self, command: Command) {
        // If the thread has ended, the caller sees the dropped reply.
        let _ = self.to.send(command);
        self.waker.wake();
    }

    pub(super) async fn ask<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<T>) -> Command,
    ) -> Option<T> {
        let (reply, answer) = oneshot::channel();
        self.send(command(reply));
        answer.await.ok()
    }
}

impl Drop for Commands {
    fn drop(&mut self) {
        self.send(Command::Leave(None));
    }
}
