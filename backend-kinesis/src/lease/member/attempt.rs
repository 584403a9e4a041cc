//! One change of a row, made or not: what is known of it afterwards.

use std::sync::Arc;
use std::time::Duration;

use millstream_core::{Error, ErrorKind, Result};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};

use crate::lease::row::Row;
use crate::lease::store::{Item, LeaseStore, Outcome, Update};

/// Requests of one member under way at once. Each takes a connection.
const REQUESTS: usize = 64;

/// The way of a member to the table.
#[derive(Debug, Clone)]
pub(super) struct Table {
    pub(super) store: Arc<dyn LeaseStore>,
    room: Arc<Semaphore>,
    /// How long one request may take: an owner that waits for longer could not renew in time.
    patience: Duration,
}

/// What is known after an attempt to change a row.
#[derive(Debug)]
pub(super) struct Attempt {
    /// Just before the request.
    pub(super) before: Instant,
    /// Whether the answer says that the change was made. If not, the row tells.
    pub(super) applied: bool,
    /// The row as it is, if it is there.
    pub(super) row: Option<Row>,
    /// Why the answer did not say.
    pub(super) error: Option<Error>,
}

impl Table {
    pub(super) fn new(store: Arc<dyn LeaseStore>, patience: Duration) -> Self {
        Self {
            store,
            room: Arc::new(Semaphore::new(REQUESTS)),
            patience,
        }
    }

    /// Changes a row, and looks at it if the answer got lost. Fails if that is not known either,
    /// with the time just before the request.
    pub(super) async fn change(
        &self,
        key: &str,
        update: &Update,
    ) -> Result<Attempt, (Instant, Error)> {
        let _room = self.room.acquire().await;
        let before = Instant::now();
        let attempt = |applied, item: Option<Item>, error| Attempt {
            before,
            applied,
            row: item.and_then(|item| Row::read(&item).ok()),
            error,
        };
        match self.within(self.store.update(key, update)).await {
            Ok(Outcome::Applied(item)) => Ok(attempt(true, Some(item), None)),
            Ok(Outcome::Refused(item)) => Ok(attempt(false, item, None)),
            // A request that broke off may have been heard, and may even be heard later still.
            Err(error) if matches!(error.kind(), ErrorKind::Timeout | ErrorKind::Unavailable) => {
                match self.within(self.store.get(key)).await {
                    Ok(item) => Ok(attempt(false, item, Some(error))),
                    Err(_) => Err((before, error)),
                }
            }
            Err(error) => Err((before, error)),
        }
    }

    pub(super) async fn get(&self, key: &str) -> Result<Option<Row>> {
        let _room = self.room.acquire().await;
        let item = self.within(self.store.get(key)).await?;
        Ok(item.and_then(|item| Row::read(&item).ok()))
    }

    async fn within<T>(&self, call: impl Future<Output = Result<T>>) -> Result<T> {
        timeout(self.patience, call).await.unwrap_or_else(|_| {
            let message = format!("the table did not answer within {:?}", self.patience);
            Err(Error::new(ErrorKind::Timeout, "lease", message))
        })
    }
}
