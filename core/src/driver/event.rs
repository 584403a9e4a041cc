use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;

use crate::{Epoch, Headers, Lag, Partition, Position};

/// A record as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredRecord {
    /// The position.
    pub position: Position,
    /// The producer's timestamp if it set one and the broker keeps it, else the broker's.
    /// [`Start::At`](crate::Start::At) compares it.
    pub timestamp: SystemTime,
    /// The key, if it has one.
    pub key: Option<Bytes>,
    /// The payload; `None` for a tombstone, which is not the same as an empty payload. Payloads of
    /// one batch may share one buffer.
    pub payload: Option<Bytes>,
    /// The headers, in order.
    pub headers: Headers,
}

impl StoredRecord {
    /// Returns the number of bytes that count against bounds: key, payload, header names and values.
    pub fn size(&self) -> usize {
        let length = |bytes: &Option<Bytes>| bytes.as_ref().map_or(0, Bytes::len);
        length(&self.payload) + length(&self.key) + self.headers.size()
    }
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
        /// The new epoch, larger than every epoch that this partition had in this group, even in a
        /// stream of the same name that [was deleted](super#deleted-streams).
        epoch: Epoch,
        /// The stored checkpoint, if there is one. Otherwise the position before the resolved start, if
        /// the driver knows it. `None` at the beginning of a partition, and where the broker stores the
        /// start in another form (a time, an iterator).
        ///
        /// The runtime shows it as [`PartitionStats::settled`](crate::PartitionStats::settled), and
        /// checkpoints only what lies behind it.
        resume_after: Option<Position>,
        /// The id of the stream, for [`Delivery::stream_id`](crate::Delivery::stream_id).
        ///
        /// It is the same for all partitions, members and groups as long as the stream exists, even
        /// after reconnects and restarts of the broker. No other stream ever has it, not even one
        /// that is created later under the same name.
        ///
        /// `None` if the broker has no such id, or did not report it. A driver must not guess: with
        /// the id of an older stream, a sink skips the records of this one. The id costs at most one
        /// request per join or assignment (a failed one may be repeated a few times), and one every few
        /// seconds where the driver needs it to notice that a stream was deleted and created again, but
        /// never one per record. A refusal or a missing response must not fail the assignment, nor delay it by more
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
    /// The lag, without a record for the runtime: nothing is left, records wait behind a pause, or the
    /// rest is not visible to readers (transaction markers).
    ///
    /// A driver reports the lag of every partition that it has assigned, including paused ones and
    /// those without records: for the first time a few seconds after `Assigned` at the latest, and again
    /// within a few seconds when it has changed, but about once a second at most for each partition.
    /// The lag of [`Records`](Self::Records) counts as a report. Partitions that are being revoked
    /// need none.
    Lag {
        /// The partition.
        partition: Partition,
        /// The epoch of its assignment.
        epoch: Epoch,
        /// The lag now, as far as the driver knows without a request.
        lag: Lag,
    },
    /// Retention has removed the next record; the partition now begins at `earliest`. The records from
    /// there follow, in the same or in later calls of [`next`](super::Membership::next): the driver
    /// continues by itself, and a runtime that must not continue leaves the group.
    DataLoss {
        /// The partition.
        partition: Partition,
        /// The epoch of its assignment.
        epoch: Epoch,
        /// The last position before the gap, that is, of the last record that was delivered, or else
        /// `resume_after` of the assignment. `None` if the gap is at the beginning of the partition.
        after: Option<Position>,
        /// The oldest position that is left. If nothing is left, a position that is behind all records
        /// that are gone and not behind the next one: that of the next record to be stored, where the
        /// broker knows it, or the first position of the partitions that follow from a closed one.
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
    /// nothing. A member that is cut off from its group [reports this by its own
    /// clock](super#liveness).
    Lost {
        /// The partitions, each with the epoch of its assignment.
        partitions: Vec<(Partition, Epoch)>,
    },
    /// A reshard has closed the partition, and its last record was delivered. When all records are
    /// settled, the runtime calls [`complete`](super::Membership::complete), and the children may
    /// begin.
    Ended {
        /// The partition.
        partition: Partition,
        /// The epoch of its assignment.
        epoch: Epoch,
    },
}
