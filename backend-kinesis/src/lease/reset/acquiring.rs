//! Acquires leases from their owners.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt, stream as futures};
use millstream_core::Result;
use tokio::time::{Instant, sleep};

use super::{AT_ONCE, Moving, PATIENCE, Reset};
use crate::connection::retry;
use crate::lease::row::Row;
use crate::lease::store::Update;
use crate::lease::{bootstrap, change};

/// The interval at which requested leases are polled, in a table of fewer than [`ROWS`] rows.
const POLL_INTERVAL: Duration = Duration::from_millis(150);

/// As many rows more prolong the interval by the same time: a scan costs as much as the table is large.
const ROWS: usize = 100;

/// A lease that another worker owns.
#[derive(Debug)]
struct Wanted {
    owner: Option<Arc<str>>,
    counter: u64,
    /// Since when the counter has not changed.
    since: Instant,
    /// When the owner must have handed over.
    overdue: Instant,
}

/// What to do about a lease of another worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Wait,
    Request,
    Take,
}

impl Wanted {
    fn new(row: &Row, now: Instant, reset: &Reset<'_>) -> Self {
        Self {
            owner: row.owner.clone(),
            counter: row.counter,
            since: now,
            overdue: now + reset.drain + reset.failover,
        }
    }

    fn next(&mut self, row: &Row, now: Instant, reset: &Reset<'_>) -> Step {
        if self.owner != row.owner {
            // Each owner has the same time.
            *self = Self::new(row, now, reset);
        } else if self.counter != row.counter {
            (self.counter, self.since) = (row.counter, now);
        }
        let is_silent = now - self.since >= reset.failover;
        if is_silent || now >= self.overdue || !row.can_be_requested() {
            return Step::Take;
        }
        match row.own.requester {
            Some(_) => Step::Wait,
            None => Step::Request,
        }
    }
}

impl Moving<'_> {
    /// Acquires the leases that are wanted, and returns when a scan shows no other. Those that were
    /// lost since are acquired again.
    pub(super) async fn acquire(
        &self,
        is_wanted: impl Fn(&Row) -> bool + Send + Sync,
    ) -> Result<()> {
        let (reset, holding) = (self.reset, self.holding);
        let mut others: BTreeMap<Arc<str>, Wanted> = BTreeMap::new();
        loop {
            let items = retry("reset", PATIENCE, || reset.store.scan(true)).await?;
            bootstrap::refuse_damaged(self.streams, &items)?;
            let now = Instant::now();
            let rows = items.iter().flat_map(Row::read);
            let rows = rows.filter(|row| self.stream.owns(&row.key) && is_wanted(row));
            let mut waits = false;
            let mut updates = Vec::new();
            for row in rows {
                if holding.owns(&row) {
                    if !holding.has(&row.key) {
                        // It was handed over.
                        updates.push((row.key.clone(), change::keep(&row, holding.me())));
                    }
                    continue;
                }
                holding.lose(&row.key);
                let wanted = others
                    .entry(row.key.clone())
                    .or_insert_with(|| Wanted::new(&row, now, reset));
                let update = match (wanted.next(&row, now, reset), &row.owner) {
                    (Step::Take, _) => change::hold(&row, holding.me(), self.stream),
                    (Step::Request, Some(owner)) => change::request(owner, holding.me()),
                    (Step::Wait, _) | (Step::Request, None) => {
                        waits = true;
                        continue;
                    }
                };
                updates.push((row.key.clone(), update));
            }
            if updates.is_empty() && !waits {
                return Ok(());
            }
            let acquired = updates
                .into_iter()
                .map(async |(key, update): (Arc<str>, Update)| {
                    holding.acquire(&key, &update).await
                });
            let acquired = futures::iter(acquired).buffer_unordered(AT_ONCE);
            let acquired: Vec<bool> = acquired.try_collect().await?;
            if waits || acquired.contains(&false) {
                let extra = u32::try_from(items.len() / ROWS).unwrap_or(u32::MAX);
                let pause = POLL_INTERVAL.saturating_mul(extra.saturating_add(1));
                sleep(pause.min(reset.failover / 6)).await;
            }
        }
    }
}
