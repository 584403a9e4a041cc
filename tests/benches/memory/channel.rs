//! The baseline: the same records over a bare channel, without storage, order per key or
//! redelivery.

use std::error::Error;
use std::hint::black_box;
use std::time::{Duration, Instant};

use crate::load::{Load, runtime};

/// As many as the SDK's window, so that neither side waits for room more often.
const ROOM: usize = 10_000;

pub(crate) fn run(load: &Load) -> Result<Duration, Box<dyn Error>> {
    let records = load.records();
    let count = load.records;
    runtime()?.block_on(async move {
        let (sender, mut receiver) = tokio::sync::mpsc::channel(ROOM);
        let begun = Instant::now();
        let producer = tokio::spawn(async move {
            for record in records.iter().cycle().take(count) {
                sender.send(record.clone()).await?;
            }
            Ok::<_, tokio::sync::mpsc::error::SendError<_>>(())
        });
        let mut received = 0;
        while let Some(record) = receiver.recv().await {
            black_box(&record);
            received += 1;
        }
        producer.await??;
        assert_eq!(received, count, "records through the channel");
        Ok(begun.elapsed())
    })
}
