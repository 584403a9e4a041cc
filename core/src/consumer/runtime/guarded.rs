//! Ends the membership cleanly if a driver panics.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use futures_util::FutureExt;
use tokio_util::sync::CancellationToken;

use crate::driver::{CheckpointUpdate, Event, Membership};
use crate::sync::lock;
use crate::{Epoch, Error, ErrorKind, Partition, Record, Result};

/// A membership whose panics become errors. After a panic [`next`](Membership::next) fails, because
/// the state of the driver is unknown.
pub(crate) struct Guarded {
    inner: Arc<dyn Membership>,
    panicked: Mutex<Option<Error>>,
    broken: CancellationToken,
}

impl Guarded {
    pub(crate) fn new(inner: Arc<dyn Membership>) -> Self {
        Self {
            inner,
            panicked: Mutex::default(),
            broken: CancellationToken::new(),
        }
    }

    async fn guard<T>(&self, operation: &'static str, call: impl Future<Output = T>) -> Result<T> {
        let ended = AssertUnwindSafe(call).catch_unwind().await;
        ended.map_err(|_| self.on_panic(operation))
    }

    fn on_panic(&self, operation: &'static str) -> Error {
        let message = "the backend's driver panicked";
        let error = Error::new(ErrorKind::Closed, operation, message);
        lock(&self.panicked).get_or_insert(error.clone());
        self.broken.cancel();
        error
    }
}

impl std::fmt::Debug for Guarded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Guarded").field(&self.inner).finish()
    }
}

#[async_trait]
impl Membership for Guarded {
    fn id(&self) -> &str {
        self.inner.id()
    }

    async fn next(&self) -> Result<Vec<Event>> {
        tokio::select! {
            biased;
            () = self.broken.cancelled() => {
                let error = lock(&self.panicked).clone();
                Err(error.unwrap_or_else(|| self.on_panic("read")))
            }
            events = self.guard("read", self.inner.next()) => events?,
        }
    }

    async fn checkpoint(&self, updates: &[CheckpointUpdate]) -> Vec<Result<()>> {
        match self
            .guard("checkpoint", self.inner.checkpoint(updates))
            .await
        {
            Ok(results) => results,
            Err(error) => updates.iter().map(|_| Err(error.clone())).collect(),
        }
    }

    async fn publish(
        &self,
        stream: &str,
        records: &[Record],
        updates: &[CheckpointUpdate],
    ) -> Result<()> {
        let publish = self.inner.publish(stream, records, updates);
        self.guard("publish", publish).await?
    }

    async fn release(&self, partition: &Partition, epoch: Epoch) -> Result<()> {
        let release = self.inner.release(partition, epoch);
        self.guard("release", release).await?
    }

    async fn complete(&self, partition: &Partition, epoch: Epoch) -> Result<()> {
        let complete = self.inner.complete(partition, epoch);
        self.guard("complete", complete).await?
    }

    fn pause(&self, partition: &Partition, epoch: Epoch) {
        let pause = AssertUnwindSafe(|| self.inner.pause(partition, epoch));
        if catch_unwind(pause).is_err() {
            self.on_panic("pause");
        }
    }

    fn resume(&self, partition: &Partition, epoch: Epoch) {
        let resume = AssertUnwindSafe(|| self.inner.resume(partition, epoch));
        if catch_unwind(resume).is_err() {
            self.on_panic("resume");
        }
    }

    async fn leave(&self) -> Result<()> {
        self.guard("leave", self.inner.leave()).await?
    }
}
