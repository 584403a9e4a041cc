//! A row of the table: what the KCL stores of one lease, and what we add to it.
//!
//! Reading is tolerant: attributes may be missing, unknown or of another type, as versions of the
//! KCL differ. Writing is strict, since the KCL 2.x fails on any row that it cannot read.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use millstream_core::{Epoch, Position};

use crate::stream::HashRange;

pub(crate) mod names;
pub(crate) mod new;
mod read;

pub(crate) use new::{Begin, NewRow};
pub(crate) use read::Unread;

/// The progress in a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Progress {
    TrimHorizon,
    Latest,
    AtTimestamp,
    /// Everything up to and including it is settled.
    After(Position),
    /// The shard is closed, and all of it is settled.
    End,
}

/// The place that [`Progress::Latest`] stands for: the tip of a shard at a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pin {
    /// A shard iterator that was taken then. Kinesis keeps one for 5 minutes.
    pub(crate) iterator: String,
    pub(crate) at: SystemTime,
}

/// At a time nothing was left to be read in a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tip {
    /// The last record before.
    pub(crate) after: Option<Position>,
    pub(crate) at: SystemTime,
}

/// A lease as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) key: Arc<str>,
    /// Grows with every change by an owner: the only sign of life.
    pub(crate) counter: u64,
    pub(crate) owner: Option<Arc<str>>,
    /// Set while the KCL 3.x hands the lease over: it is still this worker's until it has drained.
    pub(crate) checkpoint_owner: Option<Arc<str>>,
    pub(crate) switches: u64,
    pub(crate) progress: Progress,
    /// Ids of shards, not of leases.
    pub(crate) parents: Vec<Arc<str>>,
    /// Ids of shards, known at the end of this one.
    pub(crate) children: Vec<Arc<str>>,
    pub(crate) range: Option<HashRange>,
    pub(crate) own: Own,
}

/// What we store beside the KCL's own attributes. The KCL keeps attributes that it does not know.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Own {
    /// The counter after the last take by one of us.
    pub(crate) epoch: Option<Epoch>,
    /// Who took it then. If it is `leaseOwner` still, the owner understands that others ask.
    pub(crate) taker: Option<Arc<str>>,
    /// Who asks the owner for the lease.
    pub(crate) asker: Option<Arc<str>>,
    /// Tells the owner to look at the table, by being another than before.
    pub(crate) look: Option<u64>,
    /// The time that `AT_TIMESTAMP` stands for, or that `LATEST` was pinned at.
    pub(crate) start: Option<SystemTime>,
    /// When it was decided that the lease begins at its oldest record, or at a time.
    pub(crate) resolved: Option<SystemTime>,
    /// The shard iterator that `LATEST` was pinned by.
    pub(crate) iterator: Option<String>,
    /// What an owner has noted last.
    pub(crate) tip: Option<Tip>,
    /// The stream's ARN and its creation in seconds since the epoch.
    pub(crate) stream: Option<(Arc<str>, u64)>,
}

impl Row {
    /// Who may change the progress.
    pub(crate) fn holder(&self) -> Option<&Arc<str>> {
        self.checkpoint_owner.as_ref().or(self.owner.as_ref())
    }

    /// Who shall have the lease next, if its holder was told of one.
    pub(crate) fn heir(&self) -> Option<&Arc<str>> {
        match self.checkpoint_owner {
            Some(_) => self.owner.as_ref(),
            None => self.own.asker.as_ref(),
        }
        .filter(|heir| Some(*heir) != self.holder())
    }

    /// Whether the owner understands that others ask.
    pub(crate) fn can_be_asked(&self) -> bool {
        self.owner.is_some() && self.owner == self.own.taker && self.checkpoint_owner.is_none()
    }

    pub(crate) fn is_ended(&self) -> bool {
        self.progress == Progress::End
    }

    /// When nothing was left behind the progress. Whoever has moved that back, by hand or by a tool,
    /// has not changed the note.
    pub(crate) fn tip(&self) -> Option<SystemTime> {
        let tip = self.own.tip.filter(|tip| self.is_settled_to(tip.after))?;
        Some(tip.at)
    }

    /// Whether the progress is at that position or behind it.
    pub(crate) fn is_settled_to(&self, position: Option<Position>) -> bool {
        match (position, self.progress) {
            (None, _) | (_, Progress::End) => true,
            (Some(position), Progress::After(stored)) => position <= stored,
            (Some(_), _) => false,
        }
    }

    /// Where `LATEST` was pinned.
    pub(crate) fn pin(&self) -> Option<Pin> {
        Some(Pin {
            iterator: self.own.iterator.clone()?,
            at: self.own.start?,
        })
    }
}

/// Milliseconds since the epoch, as times are stored.
pub(crate) fn millis(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

fn time(millis: u64) -> Option<SystemTime> {
    UNIX_EPOCH.checked_add(Duration::from_millis(millis))
}

#[cfg(test)]
mod tests;
