//! The baseline: the same records over a bare channel, without storage, order per key or
//! redelivery.

use std::error::Error;
use std::hint::black_box;
use std::time::{Duration, Instant};

use millstream_core::Record;

use crate::load::{Load, runtime};

/// The same as the SDK's window, so that neither side waits for room more often.
const ROOM: usize = 10_000;

pub(crate) fn run(load: &Load) -> Result<Duration, Box<dyn Error>> {
    transfer(load, |_| {})
}

/// Like that, and the sender keeps each record, as a broker must for its other groups.
pub(crate) fn run_and_keep(load: &Load) -> Result<Duration, Box<dyn Error>> {
    // Like the log of the memory backend: it allocates while it grows, and never moves a record.
    const SEGMENT: usize = 1_024;
    let mut log: Vec<Vec<Record>> = Vec::new();
    transfer(load, move |record| match log.last_mut() {
        Some(last) if last.len() < SEGMENT => last.push(record.clone()),
        _ => {
            let mut segment = Vec::with_capacity(SEGMENT);
            segment.push(record.clone());
            log.push(segment);
        }
    })
}

fn transfer(
    load: &Load,
    mut keep: impl FnMut(&Record) + Send + 'static,
) -> Result<Duration, Box<dyn Error>> {
    let records = load.records();
    let count = load.records;
    runtime()?.block_on(async move {
        let (sender, mut receiver) = tokio::sync::mpsc::channel(ROOM);
        let begun = Instant::now();
        let producer = tokio::spawn(async move {
            for record in records.iter().cycle().take(count) {
                keep(record);
                sender.send(record.clone()).await?;
            }
            // Returned, so that the kept records are dropped after the measurement.
            Ok::<_, tokio::sync::mpsc::error::SendError<_>>(keep)
        });
        let mut received = 0;
        while let Some(record) = receiver.recv().await {
            black_box(&record);
            received += 1;
        }
        let elapsed = begun.elapsed();
        let _kept = producer.await??;
        assert_eq!(received, count, "records through the channel");
        Ok(elapsed)
    })
}
