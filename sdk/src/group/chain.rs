//! Consume, transform, publish.

use crate::{Producer, Record, Result};

/// Sends records in order and waits until the broker has all of them.
pub(super) async fn publish(
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
