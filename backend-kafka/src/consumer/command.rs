//! What the runtime wants of a member.

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
    /// Asks for the offsets that a transaction stores.
    PrepareTransaction {
        marks: Vec<CheckpointUpdate>,
        reply: oneshot::Sender<Result<PreparedTransaction>>,
    },
    /// A transaction was stored.
    TransactionStored(Vec<CheckpointUpdate>),
    /// The broker did not know the member any more that had had so many assignments.
    Gone {
        assignments: u64,
    },
    Pause(Partition, Epoch),
    Resume(Partition, Epoch),
    /// The member leaves, in good order or not.
    Leave(Option<oneshot::Sender<()>>),
    #[cfg(test)]
    Panic,
}

/// What the broker is to compare and to store with a transaction.
pub(super) struct PreparedTransaction {
    pub(super) offsets: TopicPartitionList,
    pub(super) member: ConsumerGroupMetadata,
    /// How many assignments the member has had.
    pub(super) assignments: u64,
}

/// The way to the polling thread. Its end is the member's.
#[derive(Debug)]
pub(super) struct Commands {
    pub(super) to: Sender<Command>,
    pub(super) waker: Arc<PollWaker>,
}

impl Commands {
    pub(super) fn send(&self, command: Command) {
        // A thread that has ended answers nothing: the caller sees the dropped reply.
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
