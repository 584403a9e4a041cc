use std::fmt::Debug;

use async_trait::async_trait;

use super::Event;
use crate::{Epoch, Partition, Position, Record, Result};

/// Progress to store: all records up to and including `position` are settled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckpointUpdate {
    /// The partition.
    pub partition: Partition,
    /// The epoch of its assignment.
    pub epoch: Epoch,
    /// The last settled position; everything before it is settled too. The driver converts it into
    /// what its broker stores (Kafka: the *next* offset), in one place.
    pub position: Position,
}

/// A member that has joined a group.
///
/// Dropping it without [`leave`](Self::leave) is a crash: the other members take over after the
/// session timeout. `Drop` does not block.
#[async_trait]
pub trait Membership: Debug + Send + Sync + 'static {
    /// Returns the member's unique id, as the broker's own tools show it.
    fn id(&self) -> &str;

    /// Waits for events and returns all pending ones in order, at least one. Must not be called concurrently.
    /// **Cancel safe**: a dropped call loses no event.
    ///
    /// One call may return records of many partitions, so that thousands of quiet ones share its
    /// cost. Together these are roughly
    /// [`JoinOptions::batch_records`](super::JoinOptions::batch_records), and
    /// [`batch_bytes`](super::JoinOptions::batch_bytes) or one record more, at most.
    ///
    /// An error ends the membership (the stream was deleted, access was withdrawn): the runtime
    /// leaves and reports it. The driver recovers from everything else, either silently or by `Lost`
    /// and a new `Assigned`.
    async fn next(&self) -> Result<Vec<Event>>;

    /// Stores progress and returns one result per update, in the same order.
    ///
    /// The runtime has at most one call in flight. After a retryable error it calls again with the
    /// progress of that time.
    ///
    /// Within one epoch the updates of the runtime only grow, and the stored progress never moves
    /// back: a request that was given up (a lost response, a dropped future) must not undo a later one
    /// when it arrives late. Its write is conditional on the progress or on a counter, or both
    /// requests use one connection, which keeps their order.
    ///
    /// # Errors
    /// * `Fenced` for an update whose epoch is not the partition's last. Also for the last one, if the
    ///   member no longer owns the partition: its lease has ended or was taken away, though no
    ///   other member has the partition yet. The runtime drops the partition, as after
    ///   [`Event::Lost`].
    /// * A retryable kind: it is stored or not.
    /// * Any other kind ends the membership, as an error of [`next`](Self::next) does.
    ///
    /// # Cancel safety
    /// If the future is dropped, each update is stored or not.
    async fn checkpoint(&self, updates: &[CheckpointUpdate]) -> Vec<Result<()>>;

    /// Stores `records` in `stream` and `updates` as the group's progress **in one step**: readers see
    /// either all of the records and the progress is stored, or none of them and it is not. Called
    /// only where [`Guarantees::exactly_once`](crate::Guarantees::exactly_once) is true; other drivers
    /// return `Unsupported`.
    ///
    /// There is at least one update, at most one per partition, and each is beyond the stored progress
    /// of its epoch. The records are within the [`StreamLimits`](super::StreamLimits) of the stream.
    /// There may be none, or more than one request of the broker can carry; these are split within the
    /// step. Records of one key are stored in the given order, after those of earlier calls.
    ///
    /// # Errors
    /// The result is certain, except for `OutcomeUnknown`:
    ///
    /// * `Ok`: everything is stored.
    /// * `Fenced`: nothing is stored, and the member has lost **all** partitions of the updates. The
    ///   runtime drops them and does not release them, so a driver returns this only where the broker
    ///   assigns them to others anyway. If only some are lost, it reports those by [`Event::Lost`] and
    ///   returns a retryable kind.
    /// * A retryable kind: nothing is stored, and nothing will be. The runtime publishes the records of
    ///   the partitions that it still owns again, together with others or in several calls. After a
    ///   `Timeout` it halves what it publishes at once, down to the records of single deliveries.
    /// * `Invalid`, `TooLarge`: nothing is stored, because the broker permanently refuses one of the
    ///   records. The membership continues. The runtime calls again with a part of the records and with
    ///   progress up to these, until it has found the record, whose delivery has failed. A driver must
    ///   not return these kinds for anything else, such as a wrong setting: the failure policy would
    ///   skip good records.
    /// * `OutcomeUnknown`: the step may be stored. This ends the membership, and the next owner resumes
    ///   from what is stored, with its records or without.
    /// * Any other kind: nothing is stored. It ends the membership, as an error of [`next`](Self::next)
    ///   does.
    ///
    /// A driver that does not know how a step ended (the connection broke during the commit) must
    /// find out before it returns, or return `OutcomeUnknown`. It must not return `Timeout` for a step
    /// that may be stored: the runtime would store the records twice.
    ///
    /// A step of an epoch that is not the partition's last stores nothing. If a partition is
    /// released, revoked or lost while a step is in flight, the step is decided before that
    /// partition's next [`Event::Assigned`]: either its `resume_after` includes the step, or the step
    /// is refused. A member that was suspended and continues publishes nothing.
    ///
    /// # Concurrency
    /// At most one call of this or of [`checkpoint`](Self::checkpoint) is in flight, and a membership
    /// gets calls of only one of the two. All other methods may be called in the meantime.
    ///
    /// The call returns when the result is certain. Handlers and events continue, but drains wait,
    /// and at their deadline the partitions are released as they are. A driver must therefore abort a
    /// step that takes more than a few seconds, while it still can, and return a retryable kind.
    ///
    /// # Cancel safety
    /// If the future is dropped, the step is stored as a whole or not at all, and the next owners of
    /// the partitions find it so. [`leave`](Self::leave), or the drop of the membership, follows.
    async fn publish(
        &self,
        stream: &str,
        records: &[Record],
        updates: &[CheckpointUpdate],
    ) -> Result<()>;

    /// Acknowledges `Revoking` for one partition: it is drained and checkpointed, and other members may
    /// own it.
    ///
    /// A driver that repeats the request after a lost response returns `Ok` if the first attempt has
    /// released the partition.
    ///
    /// # Errors
    /// * `Fenced` if this member no longer owned it, even if the driver cannot tell whether its own
    ///   first attempt was the reason. The runtime counts the partition as lost instead of released;
    ///   its progress was stored before, so nothing is repeated.
    /// * Any other kind: the partition moves when the drain or the session ends. The runtime does not
    ///   call again.
    ///
    /// # Cancel safety
    /// If the future is dropped, the partition is released or not.
    async fn release(&self, partition: &Partition, epoch: Epoch) -> Result<()>;

    /// Acknowledges `Ended` for one partition: all records are settled and checkpointed. This is stored
    /// permanently, so that the children may begin.
    ///
    /// A driver that repeats the request after a lost response returns `Ok` if the first attempt has
    /// completed the partition.
    ///
    /// # Errors
    /// * `Fenced` if this member no longer owned it.
    /// * A retryable kind: the runtime calls again.
    ///
    /// # Cancel safety
    /// If the future is dropped, the partition is completed or not.
    async fn complete(&self, partition: &Partition, epoch: Epoch) -> Result<()>;

    /// Stops reading a partition until [`resume`](Self::resume). Returns at once; records that were
    /// fetched may still be delivered. Its [`Lag`](Event::Lag) is still reported.
    fn pause(&self, partition: &Partition, epoch: Epoch);

    /// Resumes reading a partition. Returns at once.
    fn resume(&self, partition: &Partition, epoch: Epoch);

    /// Leaves the group and releases all partitions, so that the other members take over at once. The
    /// runtime has drained and checkpointed before. No call follows. A dropped call is a crash.
    async fn leave(&self) -> Result<()>;
}
