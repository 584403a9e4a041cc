//! When batches are handed out.

use std::future::pending;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use millstream_core::ErrorKind;
use millstream_core::driver::Event;
use millstream_core::{Batch, BatchFailure, ConsumerGroup, ConsumerHandle, Delivery, Epoch};

use crate::desk::{checkpoint, group};
use crate::fake::{Call, Script, partition, until};

const HOUR: Duration = Duration::from_secs(3_600);

/// The sizes of the batches that a handler got.
#[derive(Clone, Default)]
struct Sizes(Arc<Mutex<Vec<usize>>>);

impl Sizes {
    fn run(&self, group: ConsumerGroup, batch: Batch) -> ConsumerHandle {
        let sizes = self.clone();
        let run = group.run_batches(
            batch,
            move |deliveries: Vec<Delivery>| {
                sizes.0.lock().unwrap().push(deliveries.len());
                async { Ok::<(), BatchFailure>(()) }
            },
            pending(),
        );
        let handle = run.handle();
        tokio::spawn(run);
        handle
    }

    fn get(&self) -> Vec<usize> {
        self.0.lock().unwrap().clone()
    }
}

#[tokio::test(start_paused = true)]
async fn a_batch_waits_until_it_is_full() {
    let (script, sizes) = (Script::new(), Sizes::default());
    sizes.run(group(&script), Batch::records(4).or_after(HOUR));
    script.assign("0", 1);
    script.records("0", 1, 0, "aa");
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(sizes.get(), [0; 0]);
    script.records("0", 1, 2, "aaa");
    until(|| sizes.get() == [4]).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(sizes.get(), [4]);
    script.records("0", 1, 5, "aaaaaaa");
    script.until_called(checkpoint("0", 11)).await;
    assert_eq!(sizes.get(), [4, 4, 4]);
}

#[tokio::test(start_paused = true)]
async fn a_batch_waits_for_its_time_at_the_most() {
    let (script, sizes) = (Script::new(), Sizes::default());
    let second = Duration::from_secs(1);
    sizes.run(group(&script), Batch::records(4).or_after(second));
    script.assign("0", 1);
    script.assign("1", 1);
    let start = tokio::time::Instant::now();
    script.records("0", 1, 0, "a");
    tokio::time::sleep(second / 2).await;
    script.records("0", 1, 1, "b");
    script.records("1", 1, 0, "abc");
    until(|| sizes.get() == [2]).await;
    let took = start.elapsed();
    assert!((second..second + second / 4).contains(&took), "{took:?}");
    until(|| sizes.get() == [2, 3]).await;
    let took = start.elapsed();
    assert!((second * 3 / 2..second * 2).contains(&took), "{took:?}");
}

/// A key and a payload of one byte each, but for positions of two digits.
#[tokio::test(start_paused = true)]
async fn a_batch_is_bounded_in_bytes() {
    let (script, sizes) = (Script::new(), Sizes::default());
    let batch = Batch::records(100).or_bytes(6).or_after(HOUR);
    sizes.run(group(&script), batch);
    script.assign("0", 1);
    script.records("0", 1, 0, "aaaaaaaaaaaaa");
    // From position 10 on a record has three bytes.
    until(|| sizes.get() == [3, 3, 3, 2]).await;
    script.records("0", 1, 13, "a");
    until(|| sizes.get() == [3, 3, 3, 2, 2]).await;
    let (script, sizes) = (Script::new(), Sizes::default());
    sizes.run(group(&script), Batch::records(100).or_bytes(1));
    script.assign("0", 1);
    script.records("0", 1, 0, "aa");
    until(|| sizes.get() == [1, 1]).await;
}

#[tokio::test(start_paused = true)]
async fn a_batch_does_not_wait_for_records_that_cannot_come() {
    let (script, sizes) = (Script::new(), Sizes::default());
    let bounded = group(&script).max_unsettled_per_partition(3);
    sizes.run(bounded, Batch::records(100).or_after(HOUR));
    script.assign("0", 1);
    script.records("0", 1, 0, "aa");
    script.records("0", 1, 2, "aa");
    until(|| sizes.get() == [4]).await;
    script.records("0", 1, 4, "a");
    script.emit(Event::Ended {
        partition: partition("0"),
        epoch: Epoch(1),
    });
    script.until_called(Call::Complete("0".into())).await;
    assert_eq!(sizes.get(), [4, 1]);
    let (script, sizes) = (Script::new(), Sizes::default());
    sizes.run(
        group(&script).buffer_bytes(8),
        Batch::records(100).or_after(HOUR),
    );
    script.assign("0", 1);
    script.records("0", 1, 0, "aaaaa");
    until(|| sizes.get() == [5]).await;
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_waits_holds_up_no_drain() {
    let (script, sizes) = (Script::new(), Sizes::default());
    sizes.run(group(&script), Batch::records(100).or_after(HOUR));
    script.assign("0", 1);
    script.records("0", 1, 0, "aa");
    tokio::time::sleep(Duration::from_secs(1)).await;
    let asked = tokio::time::Instant::now();
    script.revoke("0", 1, Duration::from_secs(10));
    script.until_called(Call::Release("0".into())).await;
    assert!(asked.elapsed() < Duration::from_secs(1));
    assert_eq!(sizes.get(), [0; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_batch_out_of_bounds_is_refused() {
    let batches = [
        Batch::records(0),
        Batch::records(1).or_bytes(0),
        Batch::records(1).or_after(Duration::ZERO),
        Batch::records(1).or_after(25 * HOUR),
    ];
    for batch in batches {
        let script = Script::new();
        let handler = |_: Vec<Delivery>| async { Ok::<(), BatchFailure>(()) };
        let run = group(&script).run_batches(batch, handler, async {});
        let error = run.await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{batch:?}");
        assert!(error.to_string().contains("batch"), "{error}");
    }
}
