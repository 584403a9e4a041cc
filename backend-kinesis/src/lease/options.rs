//! The options with which a member joins, and its events.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use millstream_core::{Epoch, Error, Position, Start};

use super::key::LeaseKey;
use super::row::{Pin, Progress, Row};
use super::source::ShardSource;
use super::store::LeaseStore;
use crate::config::LeaseKeys;
use crate::stream::{HashRange, StreamInfo};

/// The options of a member.
#[derive(Debug, Clone)]
pub(crate) struct WorkerOptions {
    /// Unique forever, even among incarnations of the same process: two workers with the same ID
    /// would mistake each other's renewals for their own. ASCII.
    pub(crate) id: Arc<str>,
    /// The group's name, for logs and errors.
    pub(crate) group: Arc<str>,
    pub(crate) store: Arc<dyn LeaseStore>,
    pub(crate) source: Arc<dyn ShardSource>,
    /// The streams, described.
    pub(crate) streams: Vec<StreamInfo>,
    pub(crate) keys: LeaseKeys,
    pub(crate) start: Start,
    /// How long an owner keeps a lease after its last renewal. Must be the same for all workers.
    pub(crate) failover: Duration,
    /// The scan interval while others share the table and nothing happens. `None` derives it from
    /// the failover time.
    pub(crate) scan_interval: Option<Duration>,
    pub(crate) audit_interval: Duration,
    pub(crate) max_leases: Option<usize>,
    /// Whether leases of shards at shard end are deleted.
    pub(crate) cleanup: bool,
    /// How long an owner may take to hand over a requested lease.
    pub(crate) drain: Duration,
}

impl WorkerOptions {
    /// Returns the maximum time between two renewals of a lease.
    pub(super) fn renewal_interval(&self) -> Duration {
        self.failover * 2 / 5
    }
}

/// The position at which the new owner of a lease continues.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ResumePoint {
    After(Position),
    Earliest,
    /// The tip at the time of the pin.
    Latest(Pin),
    /// The first record that is not older.
    At(SystemTime),
}

impl ResumePoint {
    /// Returns the position at which the owner of a lease continues. `None` if there is nothing left to read. `start`
    /// is the member's.
    pub(super) fn of(row: &Row, start: Start) -> Option<Self> {
        Some(match row.progress {
            Progress::End => return None,
            Progress::After(position) => Self::After(position),
            Progress::TrimHorizon => Self::Earliest,
            Progress::Latest => match (row.pin(), row.own.start) {
                (Some(pin), _) => Self::Latest(pin),
                (None, Some(time)) => Self::At(time),
                // It is not known which tip is meant: repeated records are better than lost ones.
                (None, None) => Self::Earliest,
            },
            Progress::AtTimestamp => match (row.own.start, start) {
                (Some(time), _) | (None, Start::At(time)) => Self::At(time),
                // The KCL keeps the time in each worker's configuration, and this member has none.
                (None, _) => Self::Earliest,
            },
        })
    }
}

/// An event of a member's leases.
#[derive(Debug)]
pub(crate) enum LeaseEvent {
    /// The lease is this member's, and its shard's parents are at shard end.
    Taken {
        lease: LeaseKey,
        /// Larger than every earlier epoch of the lease.
        epoch: Epoch,
        from: ResumePoint,
        /// When nothing was left to be read from that position on, if an owner has noted that.
        tip: Option<SystemTime>,
        /// When the start at the oldest record or at a time was resolved, if the row has it.
        resolved: Option<SystemTime>,
        /// The hash keys of the shard, if they are in the lease or in a list that was seen.
        range: Option<HashRange>,
    },
    /// Another member requests it: drain, then release. It is lost if it is not released in time.
    HandoffRequested {
        lease: LeaseKey,
        epoch: Epoch,
        within: Duration,
    },
    /// A stream has begun to distribute records itself, see [`StreamInfo::distributes`].
    Unordered(StreamInfo),
    /// Another member may already have it.
    Lost { lease: LeaseKey, epoch: Epoch },
    /// The membership has ended.
    Failed(Error),
}
