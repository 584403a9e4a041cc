//! Consume, transform, publish: as one, or one after the other.

use std::error::Error as StdError;
use std::future::Future;
use std::sync::Arc;

use futures_util::TryFutureExt;
use futures_util::future::MapErr;

use crate::runtime::attempt::{Fault, Work};
use crate::{BatchFailure, Delivery, Producer, Record, Result};

/// At least once: sends records in order and waits until the broker has all of them.
pub(super) async fn send(
    producer: &Producer,
    records: impl IntoIterator<Item = Record>,
) -> Result<()> {
    let mut receipts = Vec::new();
    for record in records {
        receipts.push(producer.send(record).await?);
    }
    for receipt in receipts {
        receipt.await?;
    }
    Ok(())
}

/// Exactly once: keeps records for the checkpoint that publishes them. What the stream does not
/// take is refused now, while it is the failure of one delivery.
pub(super) fn keep(
    producer: &Producer,
    records: impl IntoIterator<Item = Record>,
) -> Result<Vec<Record>> {
    let records = records.into_iter();
    records
        .map(|record| producer.check(&record).map(|()| record))
        .collect()
}

/// A handler of single deliveries whose results are published with the progress.
pub(super) struct Publishing<H> {
    pub(super) handler: H,
    pub(super) stream: Arc<str>,
}

type Failure = Box<dyn StdError + Send + Sync>;

impl<H, F> Work for Publishing<H>
where
    H: Fn(Delivery) -> F + Send + Sync + 'static,
    F: Future<Output = std::result::Result<Vec<Record>, Failure>> + Send + 'static,
{
    type Attempt = MapErr<F, fn(Failure) -> Fault>;
    type Made = Vec<Record>;

    fn run_length(&self) -> Option<usize> {
        None
    }

    fn publishes_to(&self) -> Option<&Arc<str>> {
        Some(&self.stream)
    }

    fn attempt(&self, mut deliveries: impl Iterator<Item = Delivery>) -> Self::Attempt {
        let delivery = deliveries.next().expect("an attempt has a delivery");
        (self.handler)(delivery).map_err(|reason| Fault::Failed(BatchFailure::whole(reason)))
    }
}
