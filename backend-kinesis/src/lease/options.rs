//! What a member is told when it joins, and what it tells.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use millstream_core::{Epoch, Error, Position, Start};

use super::key::{KeyForm, LeaseKey};
use super::row::{Pin, Progress, Row};
use super::source::ShardSource;
use super::store::LeaseStore;
use crate::stream::HashRange;

/// What a member joins with.
#[derive(Debug, Clone)]
pub(crate) struct WorkerOptions {
    /// Unique for ever, also beside other incarnations of the same process: two that share an id
    /// would take each other's renewals for their own. ASCII.
    pub(crate) id: Arc<str>,
    /// For logs and errors.
    pub(crate) group: Arc<str>,
    pub(crate) store: Arc<dyn LeaseStore>,
    pub(crate) source: Arc<dyn ShardSource>,
    pub(crate) streams: Vec<Arc<str>>,
    pub(crate) keys: KeyForm,
    pub(crate) start: Start,
    /// How long a lease is its owner's after its last sign of life. The same for all workers.
    pub(crate) failover: Duration,
    /// How often the table is looked at while others share it and nothing happens, if not at the
    /// pace of the time-out.
    pub(crate) scan_interval: Option<Duration>,
    pub(crate) audit_interval: Duration,
    pub(crate) max_leases: Option<usize>,
    /// Whether leases of shards that are read to their end are deleted.
    pub(crate) cleanup: bool,
    /// How long an owner that is asked for a lease may take to give it.
    pub(crate) drain: Duration,
}

/// Where the new owner of a lease goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ResumePoint {
    After(Position),
    Earliest,
    /// The tip as it was at the pin.
    Latest(Pin),
    /// The first record that is not older.
    At(SystemTime),
}

impl ResumePoint {
    /// Where the owner of a lease goes on; none if there is nothing left to read. `start` is that of
    /// the member.
    pub(super) fn of(row: &Row, start: Start) -> Option<Self> {
        Some(match row.progress {
            Progress::End => return None,
            Progress::After(position) => Self::After(position),
            Progress::TrimHorizon => Self::Earliest,
            Progress::Latest => match (row.pin(), row.own.start) {
                (Some(pin), _) => Self::Latest(pin),
                (None, Some(time)) => Self::At(time),
                // Nobody has said which tip is meant: better too much than a loss.
                (None, None) => Self::Earliest,
            },
            Progress::AtTimestamp => match (row.own.start, start) {
                (Some(time), _) | (None, Start::At(time)) => Self::At(time),
                // The KCL keeps the time in each worker's configuration, and ours has none.
                (None, _) => Self::Earliest,
            },
        })
    }
}

/// What happens to a member's leases.
#[derive(Debug)]
pub(crate) enum LeaseEvent {
    /// The lease is this member's, and no parent of its shard is unfinished.
    Taken {
        lease: LeaseKey,
        /// Larger than every epoch that the lease had.
        epoch: Epoch,
        from: ResumePoint,
        /// When nothing was left to be read from there on, if an owner has noted that.
        tip: Option<SystemTime>,
        /// When it was decided to begin at the oldest record, or at a time, if the row tells.
        resolved: Option<SystemTime>,
        /// The hash keys of the shard, if the lease has them, or a list that was seen.
        range: Option<HashRange>,
    },
    /// Another member shall have it: drain, then release. Who does not within the time loses it.
    Asked {
        lease: LeaseKey,
        epoch: Epoch,
        within: Duration,
    },
    /// It may be another's already.
    Lost { lease: LeaseKey, epoch: Epoch },
    /// The membership has ended.
    Failed(Error),
}
