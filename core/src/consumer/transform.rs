//! Consume, transform, publish: atomically, or one after the other.

use std::future::Future;
use std::sync::Arc;

use futures_util::TryFutureExt;
use futures_util::future::MapErr;

use crate::consumer::runtime::handler::{AttemptId, Handler, HandlerError};
use crate::{BatchFailure, Delivery, Failure, Producer, Record};

/// Sends records in order and waits until the broker has acknowledged all of them: at least once.
pub(super) async fn send_and_wait(
    producer: &Producer,
    records: impl IntoIterator<Item = Record>,
) -> Result<(), Failure> {
    let mut receipts = Vec::new();
    for record in records {
        receipts.push(producer.send(record).await.map_err(Failure::of_send)?);
    }
    for receipt in receipts {
        receipt.await.map_err(Failure::of_send)?;
    }
    Ok(())
}

/// Checks the records that the next checkpoint publishes: exactly once. A record that the stream does
/// not accept is refused now, when it fails only one delivery.
pub(super) fn validate(
    producer: &Producer,
    records: impl IntoIterator<Item = Record>,
) -> Result<Vec<Record>, Failure> {
    let records = records.into_iter();
    records
        .map(|record| match producer.check(&record) {
            Ok(()) => Ok(record),
            Err(error) => Err(Failure::of_send(error)),
        })
        .collect()
}

/// A handler of single deliveries whose results are published with the progress.
pub(super) struct TransactionalHandler<H> {
    pub(super) handler: H,
    pub(super) stream: Arc<str>,
    /// It is used only to count published records.
    pub(super) producer: Producer,
}

impl<H, F> Handler for TransactionalHandler<H>
where
    H: Fn(Delivery) -> F + Send + Sync + 'static,
    F: Future<Output = Result<Vec<Record>, Failure>> + Send + 'static,
{
    type Future = MapErr<F, fn(Failure) -> HandlerError>;
    type Output = Vec<Record>;

    const PUBLISHES: bool = true;

    fn output_stream(&self) -> Option<&Arc<str>> {
        Some(&self.stream)
    }

    fn on_published(&self, records: u64) {
        self.producer.count_published(records);
    }

    fn attempt(
        &self,
        _: AttemptId,
        mut deliveries: impl Iterator<Item = Delivery>,
    ) -> Self::Future {
        let delivery = deliveries.next().expect("an attempt has a delivery");
        (self.handler)(delivery)
            .map_err(|failure| HandlerError::Failed(BatchFailure::whole(failure)))
    }
}
