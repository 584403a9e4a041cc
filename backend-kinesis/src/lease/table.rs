//! A member's access to the lease table: one attempt to change a row, and the state that is known afterwards.

use std::sync::Arc;
use std::time::Duration;

use millstream_core::{Error, ErrorKind, Result};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};

use super::row::Row;
use super::store::{Item, LeaseStore, Outcome, Update};

/// The maximum number of concurrent requests of one member. Each takes a connection.
const REQUESTS: usize = 64;

/// A member's access to the table.
#[derive(Debug, Clone)]
pub(super) struct Table {
    pub(super) store: Arc<dyn LeaseStore>,
    room: Arc<Semaphore>,
    /// The timeout of one request: an owner that waits longer could not renew in time.
    patience: Duration,
}

/// The result of an attempt to change a row.
#[derive(Debug)]
pub(super) struct WriteOutcome {
    /// The time just before the request.
    pub(super) before: Instant,
    /// Whether the response confirms the change. If not, the row shows it.
    pub(super) applied: bool,
    /// The current row, if it exists.
    pub(super) row: Option<Row>,
    /// The error, if there is no response.
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

    /// Changes a row, and reads it if the response was lost. If the read fails too, returns the error
    /// with the time just before the request.
    pub(super) async fn change(
        &self,
        key: &str,
        update: &Update,
    ) -> Result<WriteOutcome, (Instant, Error)> {
        let _room = self.room.acquire().await;
        let before = Instant::now();
        let outcome = |applied, item: Option<Item>, error| WriteOutcome {
            before,
            applied,
            row: item.and_then(|item| Row::read(&item).ok()),
            error,
        };
        match self.within(self.store.update(key, update)).await {
            Ok(Outcome::Applied(item)) => Ok(outcome(true, Some(item), None)),
            Ok(Outcome::Refused(item)) => Ok(outcome(false, item, None)),
            // An interrupted request may have been applied, and may even be applied later.
            Err(error) if matches!(error.kind(), ErrorKind::Timeout | ErrorKind::Unavailable) => {
                match self.within(self.store.get(key)).await {
                    Ok(item) => Ok(outcome(false, item, Some(error))),
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
