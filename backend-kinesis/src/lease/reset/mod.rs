//! Moves a group to another position in a stream, also while members run.
//!
//! First it acquires all leases, as a member would: owners that support requests drain,
//! checkpoint and hand over, so no record is handled from the old and the new position at the same
//! time. Then it moves them, parents before their children, and releases them: children find parents that are no
//! longer at shard end, and wait for them.
//!
//! It renews each lease until that is moved, or members would take it back at the old position. It moves only what it
//! owns: a lease that was lost nevertheless is acquired again first.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt, stream as futures};
use millstream_core::{Error, ErrorKind, Result, Start};

use super::bootstrap;
use super::change;
use super::key::Stream;
use super::row::{Begin, Row};
use super::shards::{Plan, begin, effective_start};
use super::source::ShardSource;
use super::store::LeaseStore;
use super::streams::Streams;
use crate::config::LeaseKeys;
use crate::connection::retry;
use crate::stream::Shard;

mod acquiring;
mod generations;
mod holding;

use generations::generations;
use holding::Holding;

/// How long requests are retried.
const PATIENCE: Duration = Duration::from_secs(30);

/// The maximum number of concurrent changes of leases, and of concurrent renewals.
const AT_ONCE: usize = 16;

/// How often leases are acquired again that others take before they are moved, without any that was moved meanwhile.
const TRIES: usize = 5;

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

/// One stream of a reset.
struct Moving<'a> {
    reset: &'a Reset<'a>,
    streams: &'a Streams,
    stream: &'a Stream,
    holding: &'a Holding<'a>,
    to: Start,
}

impl Reset<'_> {
    /// Returns when the new position is stored. The leases that a failed or dropped call has moved stay
    /// moved, and the others stay unread for the failover time: call again.
    pub(crate) async fn run(&self, stream: &str, to: Start) -> Result<()> {
        let to = effective_start(to);
        let info = retry("reset", PATIENCE, || self.source.info(stream)).await?;
        let items = retry("reset", PATIENCE, || self.store.scan(true)).await?;
        let rows: Vec<Row> = items.iter().flat_map(Row::read).collect();
        let streams = Streams::new(self.keys, std::slice::from_ref(&info), &rows)?;
        bootstrap::identify(&streams, self.keys, &rows)?;
        if rows.iter().any(Row::is_anonymous) {
            let shards = retry("reset", PATIENCE, || self.source.shards(stream)).await?;
            for stream in streams.iter() {
                bootstrap::refuse_foreign(stream, &rows, &shards)?;
            }
        }
        for stream in streams.iter() {
            let holding = Holding::new(self.store, self.failover);
            let moving = Moving {
                reset: self,
                streams: &streams,
                stream,
                holding: &holding,
                to,
            };
            tokio::select! {
                moved = moving.run() => moved?,
                never = holding.renew() => match never {},
            }
        }
        Ok(())
    }
}

impl Moving<'_> {
    async fn run(&self) -> Result<()> {
        self.acquire(|_| true).await?;
        // Without a lease, no member can complete a shard, so there are no further children at the old position.
        let list = || self.reset.source.shards(&self.stream.name);
        let shards = retry("reset", PATIENCE, list).await?;
        let keys = shards.iter().map(|shard| self.stream.key(&shard.id));
        let mut unmoved: BTreeSet<Arc<str>> = keys.collect();
        for generation in generations(shards) {
            self.place(generation, &mut unmoved).await?;
        }
        // Their shards are no longer listed.
        let rest = self.holding.keys().into_iter();
        let rest =
            rest.map(async |key: Arc<str>| self.holding.release(&key, change::give_back).await);
        let rest = futures::iter(rest).buffer_unordered(AT_ONCE);
        // What was lost is no longer this call's concern.
        rest.try_for_each(async |_: bool| Ok(())).await
    }

    /// Moves or creates the leases of shards of which none is a child of another.
    async fn place(&self, mut shards: Vec<Shard>, unmoved: &mut BTreeSet<Arc<str>>) -> Result<()> {
        let mut tries = 0;
        while let Some(first) = shards.first() {
            if tries == TRIES {
                let message = format!(
                    "other workers took the lease {} {TRIES} times before it could be moved: leases are partly \
                     moved, repeat the call",
                    self.stream.key(&first.id)
                );
                let error = Error::new(ErrorKind::Unavailable, "reset", message);
                return Err(error.with_stream(self.stream.name.clone()));
            }
            self.acquire(|row| unmoved.contains(&row.key)).await?;
            let before = shards.len();
            let placed = shards.into_iter().map(async |shard: Shard| {
                let is_placed = self.place_one(&shard).await?;
                Ok::<_, Error>((shard, is_placed))
            });
            let placed = futures::iter(placed).buffer_unordered(AT_ONCE);
            let placed: Vec<(Shard, bool)> = placed.try_collect().await?;
            shards = Vec::new();
            for (shard, is_placed) in placed {
                match is_placed {
                    true => _ = unmoved.remove(&self.stream.key(&shard.id)),
                    false => shards.push(shard),
                }
            }
            tries = if shards.len() < before { 0 } else { tries + 1 };
        }
        Ok(())
    }

    /// Moves one lease, or creates it. Returns false if another worker has it: it must be acquired first.
    async fn place_one(&self, shard: &Shard) -> Result<bool> {
        let key = self.stream.key(&shard.id);
        let is_held = self.holding.has(&key);
        if self.to == Start::Latest && !shard.open {
            return match is_held {
                true => self.move_to(&key, None).await,
                false => {
                    let get = || self.reset.store.get(&key);
                    // Without a lease, it stays unread.
                    Ok(retry("reset", PATIENCE, get).await?.is_none())
                }
            };
        }
        let plan = Plan {
            shard: shard.clone(),
            begin: self.to,
        };
        let new = || begin(self.reset.source, self.stream, plan.clone());
        let new = retry("reset", PATIENCE, new).await?;
        if is_held {
            return self.move_to(&key, Some(&new.begin)).await;
        }
        let item = new.item(self.stream);
        let create = || self.reset.store.create(item.clone());
        retry("reset", PATIENCE, create).await
    }

    async fn move_to(&self, key: &str, to: Option<&Begin>) -> Result<bool> {
        let update = |row: &Row, me: &str| change::reset(row, me, to);
        self.holding.release(key, update).await
    }
}
