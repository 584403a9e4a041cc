//! Moves a group to another position in a stream, also while members run.
//!
//! First it acquires all leases, as a member would: owners that support requests drain,
//! checkpoint and hand over, so no record is handled from the old and the new position at the same
//! time. Then it moves them, the oldest shards first, and releases them: children find parents that are no longer at
//! shard end, and wait for them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use millstream_core::{Error, ErrorKind, Result, Start};
use tokio::time::{Instant, sleep};

use super::birth;
use super::change;
use super::key::{Stream, Streams};
use super::row::{Begin, Row};
use super::shards::{Plan, begin, effective_start};
use super::source::ShardSource;
use super::store::{LeaseStore, Outcome};
use crate::config::LeaseKeys;
use crate::connection::ask;
use crate::stream::Shard;

/// How long requests are retried.
const PATIENCE: Duration = Duration::from_secs(30);

/// The interval at which requested leases are polled.
const LOOK: Duration = Duration::from_millis(150);

/// Moves a group.
#[derive(Debug)]
pub(crate) struct Reset<'a> {
    pub(crate) store: &'a dyn LeaseStore,
    pub(crate) source: &'a dyn ShardSource,
    pub(crate) keys: LeaseKeys,
    /// How long a silent owner keeps its leases.
    pub(crate) failover: Duration,
    /// How long an owner may drain. After that, its leases are taken.
    pub(crate) drain: Duration,
}

/// A lease that another worker still owns.
struct Wanted {
    counter: u64,
    /// Since when the counter has not changed.
    since: Instant,
}

impl Reset<'_> {
    /// Returns when the new position is stored. The leases that a failed or dropped call has moved stay
    /// moved: call again.
    pub(crate) async fn run(&self, stream: &str, to: Start) -> Result<()> {
        let to = effective_start(to);
        let info = ask("reset", PATIENCE, || self.source.info(stream)).await?;
        let items = ask("reset", PATIENCE, || self.store.scan(true)).await?;
        let rows: Vec<Row> = items.iter().flat_map(Row::read).collect();
        let streams = Streams::new(self.keys, std::slice::from_ref(&info), &rows)?;
        birth::identify(&streams, self.keys, &rows)?;
        birth::refuse_damaged(&streams, &items)?;
        let mut shards = ask("reset", PATIENCE, || self.source.shards(stream)).await?;
        for stream in streams.iter() {
            birth::refuse_foreign(stream, &rows, &shards)?;
        }
        shards.sort_by(|one, other| (one.starting, &one.id).cmp(&(other.starting, &other.id)));
        for stream in streams.iter() {
            self.hold(stream, &rows).await?;
            for shard in &shards {
                self.place(stream, shard, to).await?;
            }
        }
        Ok(())
    }

    /// Acquires all leases of a stream, and keeps them until it has the last.
    async fn hold(&self, stream: &Stream, rows: &[Row]) -> Result<()> {
        let me = format!("reset-{:032x}", fastrand::u128(..));
        let now = Instant::now();
        let deadline = now + self.drain + self.failover;
        let ours = rows.iter().filter(|row| stream.owns(&row.key));
        let mut wanted: BTreeMap<Arc<str>, Wanted> = ours
            .map(|row| {
                let counter = row.counter;
                let wanted = Wanted {
                    counter,
                    since: now,
                };
                (row.key.clone(), wanted)
            })
            .collect();
        let mut held: BTreeMap<Arc<str>, Instant> = BTreeMap::new();
        while !wanted.is_empty() {
            let now = Instant::now();
            let keys: Vec<_> = wanted.keys().cloned().collect();
            for key in keys {
                let Some(row) = self.row(&key).await? else {
                    wanted.remove(&key);
                    continue;
                };
                let lease = wanted.get_mut(&key).filter(|w| w.counter != row.counter);
                if let Some(lease) = lease {
                    (lease.counter, lease.since) = (row.counter, now);
                }
                let is_silent = wanted
                    .get(&key)
                    .is_some_and(|w| now - w.since >= self.failover);
                let take = is_silent || now >= deadline || !row.can_be_asked();
                if row.owner.as_deref() == Some(&me) || self.get(stream, &row, &me, take).await? {
                    wanted.remove(&key);
                    held.insert(key, Instant::now());
                }
            }
            for (key, renewed) in &mut held {
                if renewed.elapsed() >= self.failover / 3
                    && let Some(row) = self.row(key).await?
                {
                    self.change(key, &change::renew(&row)).await?;
                    *renewed = Instant::now();
                }
            }
            if !wanted.is_empty() {
                sleep(LOOK).await;
            }
        }
        Ok(())
    }

    /// Requests one lease, or takes it. Returns whether it is held then.
    async fn get(&self, stream: &Stream, row: &Row, me: &str, take: bool) -> Result<bool> {
        if take {
            return self
                .change(&row.key, &change::take(row, me, stream, None))
                .await;
        }
        if let (Some(owner), None) = (&row.owner, &row.own.asker) {
            self.change(&row.key, &change::ask(owner, me)).await?;
        }
        Ok(false)
    }

    async fn row(&self, key: &str) -> Result<Option<Row>> {
        let item = ask("reset", PATIENCE, || self.store.get(key)).await?;
        let read = item.map(|item| Row::read(&item)).transpose();
        read.map_err(|_| {
            let message = format!("the lease {key} cannot be understood");
            Error::new(ErrorKind::Corrupt, "reset", message)
        })
    }

    /// Returns whether a change was applied. A change whose response was lost is seen at the next poll.
    async fn change(&self, key: &str, update: &super::store::Update) -> Result<bool> {
        let outcome = ask("reset", PATIENCE, || self.store.update(key, update)).await?;
        Ok(matches!(outcome, Outcome::Applied(_)))
    }

    /// Moves one lease, or creates it.
    async fn place(&self, stream: &Stream, shard: &Shard, to: Start) -> Result<()> {
        let key = stream.key(&shard.id);
        let is_there = self.row(&key).await?.is_some();
        if to == Start::Latest && !shard.open {
            return match is_there {
                true => self.move_row(&key, None).await,
                false => Ok(()),
            };
        }
        let plan = Plan {
            shard: shard.clone(),
            begin: to,
        };
        let new = || begin(self.source, stream, plan.clone());
        let new = ask("reset", PATIENCE, new).await?;
        let item = new.item(stream);
        let create = || self.store.create(item.clone());
        if !is_there && ask("reset", PATIENCE, create).await? {
            return Ok(());
        }
        self.move_row(&key, Some(&new.begin)).await
    }

    /// Moves one lease, regardless of concurrent changes.
    async fn move_row(&self, key: &str, to: Option<&Begin>) -> Result<()> {
        let attempt = || async {
            let Some(row) = self.row(key).await? else {
                // Deleted by a cleanup meanwhile: it was at shard end, so it stays that way.
                return Ok(());
            };
            match self.store.update(key, &change::reset(&row, to)).await? {
                Outcome::Applied(_) | Outcome::Refused(None) => Ok(()),
                Outcome::Refused(Some(_)) => {
                    let message = format!("the lease {key} changes all the time");
                    Err(Error::new(ErrorKind::Unavailable, "reset", message))
                }
            }
        };
        ask("reset", PATIENCE, attempt).await
    }
}
