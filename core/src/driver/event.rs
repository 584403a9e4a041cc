use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;

use crate::{Epoch, Headers, Lag, Partition, Position};

/// A record as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredRecord {
    /// The position.
    pub position: Position,
    /// The broker's timestamp, or the producer's where the broker keeps it.
    pub timestamp: SystemTime,
    /// The key, if it has one.
    pub key: Option<Bytes>,
    /// The payload; `None` for a tombstone, which is not the same as an empty payload. Payloads of
    /// one batch may share one buffer.
    pub payload: Option<Bytes>,
    /// The headers, in order.
    pub headers: Headers,
}

/// An event of a member.
///
/// For one partition the order is: `Assigned`; then `Records`, `Lag` and `DataLoss`; then possibly
/// `Ended`; then `Revoking` or `Lost`. The runtime acknowledges `Revoking` by
/// [`release`](super::Membership::release) and `Ended` by
/// [`complete`](super::Membership::complete). It ignores every event whose epoch is not that of the
/// last `Assigned`.
#[derive(Debug)]
pub enum Event {
    /// This member owns the partition now, fenced by `epoch`. Its records follow, from after
    /// `resume_after`.
    Assigned {
        /// The partition.
        partition: Partition,
        /// The new epoch, larger than every epoch that this partition had in this group.
        epoch: Epoch,
        /// The stored checkpoint, if there is one.
        resume_after: Option<Position>,
        /// The id of the stream, for [`Delivery::stream_id`](crate::Delivery::stream_id).
        ///
        /// It is the same for all partitions, members and groups as long as the stream exists, even
        /// after reconnects and restarts of the broker. No other stream ever has it, not even one
        /// that is created later under the same name.
        ///
        /// `None` if the broker has no such id, or did not report it. A driver must not guess: with
        /// the id of an older stream, a sink skips the records of this one. The id costs at most one
        /// request per join or assignment (a failed one may be repeated a few times), never one per
        /// record. A refusal or a missing response must not fail the assignment, nor delay it by more
        /// than a few seconds.
        stream_id: Option<Arc<str>>,
    },
    /// Records in stored order, without a gap to the previous ones, except for records that the stream
    /// itself no longer holds.
    Records {
        /// The partition.
        partition: Partition,
        /// The epoch of its assignment.
        epoch: Epoch,
        /// The records, at least one.
        records: Vec<StoredRecord>,
        /// The lag behind these records, as far as the driver knows without a request.
        lag: Lag,
    },
    /// The lag has changed without a record for the runtime: records were stored, or the rest is not
    /// visible to readers (transaction markers).
    Lag {
        /// The partition.
        partition: Partition,
        /// The epoch of its assignment.
        epoch: Epoch,
        /// The lag now, as far as the driver knows without a request.
        lag: Lag,
    },
    /// Retention has removed the next record; the partition now begins at `earliest`. If the runtime
    /// continues, the records from there follow.
    DataLoss {
        /// The partition.
        partition: Partition,
        /// The epoch of its assignment.
        epoch: Epoch,
        /// The last position before the gap, if there was one.
        after: Option<Position>,
        /// The oldest position that is left.
        earliest: Position,
    },
    /// These partitions are being moved to other members. No more records are delivered for them. The
    /// runtime must settle what is in flight, checkpoint, and call
    /// [`release`](super::Membership::release) for each within `within`; otherwise it is fenced.
    Revoking {
        /// The partitions, each with the epoch of its assignment.
        partitions: Vec<(Partition, Epoch)>,
        /// The time left, at most [`JoinOptions::drain`](super::JoinOptions::drain).
        within: Duration,
    },
    /// Other members may own these partitions already. The runtime stops at once and checkpoints
    /// nothing.
    Lost {
        /// The partitions, each with the epoch of its assignment.
        partitions: Vec<(Partition, Epoch)>,
    },
    /// A reshard has closed the partition, and its last record was delivered. When all records are
    /// settled, the runtime calls [`complete`](super::Membership::complete), and the children may begin.
    Ended {
        /// The partition.
        partition: Partition,
        /// The epoch of its assignment.
        epoch: Epoch,
    },
}
