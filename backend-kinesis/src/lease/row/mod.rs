//! A row of the lease table: the attributes of the KCL, and additional ones of millstream.
//!
//! Reading is tolerant: attributes may be missing, unknown or of another type, because versions of the
//! KCL differ. Writing is strict, because the KCL 2.x fails on any row that it cannot read.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use millstream_core::{Epoch, Position};

use crate::stream::HashRange;

pub(crate) mod names;
pub(crate) mod new;
mod read;

pub(crate) use new::{Begin, NewRow};
pub(crate) use read::{Unread, key};

/// The checkpoint of a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Progress {
    TrimHorizon,
    Latest,
    AtTimestamp,
    /// Everything up to and including this position is settled.
    After(Position),
    /// Shard end: the shard is closed, and all of it is settled.
    End,
}

/// The position that [`Progress::Latest`] stands for: the tip of a shard at a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pin {
    /// A shard iterator that was taken at that time. Kinesis keeps it for 5 minutes.
    pub(crate) iterator: String,
    pub(crate) at: SystemTime,
}

/// A time at which nothing was left to be read in a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tip {
    /// The last record before that time.
    pub(crate) after: Option<Position>,
    pub(crate) at: SystemTime,
}

/// A lease as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) key: Arc<str>,
    /// The lease counter. Every change by an owner increments it, which is the only sign of life.
    pub(crate) counter: u64,
    pub(crate) owner: Option<Arc<str>>,
    /// Set while the KCL 3.x hands the lease over: this worker keeps it until it has drained.
    pub(crate) checkpoint_owner: Option<Arc<str>>,
    pub(crate) switches: u64,
    pub(crate) progress: Progress,
    /// Shard IDs, not lease keys.
    pub(crate) parents: Vec<Arc<str>>,
    /// Shard IDs, known at shard end.
    pub(crate) children: Vec<Arc<str>>,
    pub(crate) range: Option<HashRange>,
    pub(crate) own: Own,
}

/// The attributes that millstream adds to those of the KCL. The KCL keeps attributes that it does not know.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Own {
    /// The counter after the last take by a millstream member.
    pub(crate) epoch: Option<Epoch>,
    /// The taker of that. If it is still the `leaseOwner`, the owner understands requests.
    pub(crate) taker: Option<Arc<str>>,
    /// The worker that requests the lease from its owner. If it is the owner, nobody else can request the lease.
    pub(crate) requester: Option<Arc<str>>,
    /// Makes the owner scan the table when it changes.
    pub(crate) rescan: Option<u64>,
    /// The time of `AT_TIMESTAMP`, or the time at which `LATEST` was pinned.
    pub(crate) start: Option<SystemTime>,
    /// When the start at the oldest record or at a time was resolved.
    pub(crate) resolved: Option<SystemTime>,
    /// The shard iterator of a pinned `LATEST`.
    pub(crate) iterator: Option<String>,
    /// The last tip that an owner has noted.
    pub(crate) tip: Option<Tip>,
    /// The stream's ARN and its creation time in seconds since the epoch.
    pub(crate) stream: Option<(Arc<str>, u64)>,
}

impl Row {
    /// Returns the worker that may change the progress.
    pub(crate) fn holder(&self) -> Option<&Arc<str>> {
        self.checkpoint_owner.as_ref().or(self.owner.as_ref())
    }

    /// Returns whether this worker has it, by its take in that epoch.
    pub(crate) fn is_held_by(&self, worker: &Arc<str>, epoch: Epoch) -> bool {
        self.holder() == Some(worker) && self.own.epoch == Some(epoch)
    }

    /// Returns the next owner of the lease, if another worker requests it from its holder.
    pub(crate) fn next_owner(&self) -> Option<&Arc<str>> {
        match self.checkpoint_owner {
            Some(_) => self.owner.as_ref(),
            None => self.own.requester.as_ref(),
        }
        .filter(|next| Some(*next) != self.holder())
    }

    /// Returns whether the owner understands requests for the lease.
    pub(crate) fn can_be_requested(&self) -> bool {
        self.owner.is_some() && self.owner == self.own.taker && self.checkpoint_owner.is_none()
    }

    /// Returns whether its owner is no member of millstream.
    pub(crate) fn is_held_by_java(&self) -> bool {
        self.owner.is_some() && self.owner != self.own.taker
    }

    /// Returns whether it does not show of which stream it is: its key is the shard alone, and only Java workers have had
    /// it.
    pub(crate) fn is_anonymous(&self) -> bool {
        self.own.stream.is_none() && !self.key.contains(':')
    }

    pub(crate) fn is_ended(&self) -> bool {
        self.progress == Progress::End
    }

    /// Returns when nothing was left after the progress. A progress that was moved back by hand or by a tool
    /// does not match the note.
    pub(crate) fn tip(&self) -> Option<SystemTime> {
        let tip = self.own.tip.filter(|tip| self.is_settled_to(tip.after))?;
        Some(tip.at)
    }

    /// Returns whether the progress is at that position or after it.
    pub(crate) fn is_settled_to(&self, position: Option<Position>) -> bool {
        match (position, self.progress) {
            (None, _) | (_, Progress::End) => true,
            (Some(position), Progress::After(stored)) => position <= stored,
            (Some(_), _) => false,
        }
    }

    /// Returns the pin of `LATEST`.
    pub(crate) fn pin(&self) -> Option<Pin> {
        Some(Pin {
            iterator: self.own.iterator.clone()?,
            at: self.own.start?,
        })
    }
}

/// Returns milliseconds since the epoch, the format of stored times.
pub(crate) fn millis(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

fn time(millis: u64) -> Option<SystemTime> {
    UNIX_EPOCH.checked_add(Duration::from_millis(millis))
}

#[cfg(test)]
mod tests;
