//! Moving a group to another place in a stream, also while members run.
//!
//! The leases are got first, all of them, as a member would get them: owners that can be asked drain,
//! checkpoint and hand over, so that no record is handled from the old place and the new one at the same
//! time. Then they are moved, the oldest shards first, and given up: children find parents that are not
//! read to their end any more, and wait for them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use millstream_core::{Error, ErrorKind, Result, Start};
use tokio::time::{Instant, sleep};

use super::birth;
use super::change;
use super::key::{KeyForm, Stream, Streams};
use super::row::{Begin, Row};
use super::shards::{Plan, begin, effective_start};
use super::source::ShardSource;
use super::store::{LeaseStore, Outcome};
use crate::connection::ask;
use crate::stream::Shard;

/// How long requests are tried again.
const PATIENCE: Duration = Duration::from_secs(30);

/// How often leases that were asked for are looked at.
const LOOK: Duration = Duration::from_millis(150);

/// Who moves a group.
#[derive(Debug)]
pub(crate) struct Reset<'a> {
    pub(crate) store: &'a dyn LeaseStore,
    pub(crate) source: &'a dyn ShardSource,
    pub(crate) keys: KeyForm,
    /// How long a silent owner keeps its leases.
    pub(crate) failover: Duration,
    /// How long an owner may drain. Then its leases are taken.
    pub(crate) drain: Duration,
}

/// A lease that is still another's.
struct Wanted {
    counter: u64,
    /// Since when the counter stands still.
    since: Instant,
}

impl Reset<'_> {
    /// Returns when the new place is stored. What a call that fails or is dropped has moved stays
    /// moved: call again.
    pub(crate) async fn run(&self, stream: &str, to: Start) -> Result<()> {
        let to = effective_start(to);
        let info = ask("reset", PATIENCE, || self.source.info(stream)).await?;
        let streams = Streams::new(self.keys, std::slice::from_ref(&info))?;
        let items = ask("reset", PATIENCE, || self.store.scan(true)).await?;
        let rows: Vec<Row> = items.iter().flat_map(Row::read).collect();
        birth::identify(&streams, self.keys, &rows)?;
        let mut shards = ask("reset", PATIENCE, || self.source.shards(stream)).await?;
        shards.sort_by(|one, other| (one.starting, &one.id).cmp(&(other.starting, &other.id)));
        for stream in streams.iter() {
            self.hold(stream, &rows).await?;
            for shard in &shards {
                self.place(stream, shard, to).await?;
            }
        }
        Ok(())
    }

    /// Gets all leases of a stream, and keeps them until it has the last.
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

    /// Asks for one lease, or takes it. True if it is held then.
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

    /// Whether a change was made. One whose answer got lost is seen at the next look.
    async fn change(&self, key: &str, update: &super::store::Update) -> Result<bool> {
        let outcome = ask("reset", PATIENCE, || self.store.update(key, update)).await?;
        Ok(matches!(outcome, Outcome::Applied(_)))
    }

    /// Moves one lease, or makes it.
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

    /// Moves one lease, whatever others do at the same time.
    async fn move_row(&self, key: &str, to: Option<&Begin>) -> Result<()> {
        let attempt = || async {
            let Some(row) = self.row(key).await? else {
                // Deleted by a cleanup meanwhile: it was read to its end, so it stays that way.
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
