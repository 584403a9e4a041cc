//! What the renewer reports to the coordinator.

use std::sync::Arc;

use millstream_core::Error;

use crate::lease::key::LeaseKey;
use crate::lease::row::Row;
use crate::stream::Shard;

/// Something that the renewer has learned, and that may change which leases to take, when to scan the table, or whom to
/// notify.
#[derive(Debug)]
pub(in crate::lease) enum RenewerEvent {
    /// A row as it is now, of a held lease or of one that was created.
    Observed(Box<Row>),
    /// The row of a held lease is gone.
    RowDeleted(Arc<str>),
    /// A held lease belongs to another member, or may do so.
    Lost(LossReason),
    /// The release of a lease is stored.
    Released {
        key: Arc<str>,
        next_owner: Option<Arc<str>>,
    },
    /// Another member requests a held lease.
    HandoffRequested,
    /// The response to a write has a new notification: this member must scan the table.
    Notified,
    /// A scan has read a new notification, and may have read the row just before the change that it announces.
    NotifiedByScan,
    /// Leases of children were created, or existed: the shard end of their parent will be stored.
    ChildrenCreated {
        stream: Arc<str>,
        shards: Vec<Shard>,
        rows: Vec<Row>,
    },
    /// A shard end is stored.
    ShardEnded {
        lease: LeaseKey,
        children: Vec<Arc<str>>,
    },
    /// A shard end could not be prepared. A missing lease may be the reason.
    ShardEndFailed { stream: Arc<str>, error: Error },
    /// The table did not accept a write.
    TableError(Error),
}

/// Why a lease was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::lease) enum LossReason {
    /// Its row shows another owner, or is gone.
    Taken,
    /// It was not renewed in time.
    Expired,
}
