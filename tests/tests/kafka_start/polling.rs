//! A member is polled whatever its application does, and whatever reports are configured.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use millstream_core::{Delivery, Record, StreamSpec};
use millstream_kafka::Config;
use tokio::sync::oneshot;

use crate::shared_broker;

/// Longer than the allowed time between two polls of a member (`max.poll.interval.ms` is 45 s for short drains).
const BLOCKED: Duration = Duration::from_secs(50);

const TIMEOUT: Duration = Duration::from_secs(60);

/// More than a member receives at once, so that it has no room left for other records.
const RECORDS: usize = 3_000;

#[test]
fn member_without_statistics_survives_a_handler_that_blocks_its_runtime() {
    let runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = { runtime }.enable_all().build().unwrap();
    let handled = Arc::new(AtomicUsize::new(0));
    let counts = handled.clone();
    runtime.block_on(async move {
        let mut config = Config::default();
        config.brokers = vec![shared_broker().await];
        config.statistics_interval = Duration::ZERO;
        let client = config.connect().await.unwrap();
        let spec = StreamSpec::new("blocked").partitions(1);
        client.streams().create(spec).await.unwrap();
        let producer = client.producer("blocked").open().await.unwrap();
        for number in 0..RECORDS {
            let record = Record::new(number.to_string()).key("k");
            drop(producer.send(record).await.unwrap());
        }
        producer.close().await.unwrap();

        let blocks = AtomicBool::new(true);
        let (all, ended) = oneshot::channel();
        let all = std::sync::Mutex::new(Some(all));
        let handler = move |_: Delivery| {
            if blocks.swap(false, Relaxed) {
                thread::sleep(BLOCKED);
            }
            if counts.fetch_add(1, Relaxed) + 1 == RECORDS {
                let all = all.lock().unwrap().take();
                all.into_iter().for_each(|all| all.send(()).unwrap());
            }
            async { Ok::<_, std::io::Error>(()) }
        };
        let group = client.group("blocked").stream("blocked");
        let group = group.drain_timeout(Duration::from_secs(5));
        let begun = Instant::now();
        let running = group.run(handler, async { ended.await.unwrap() });
        let handle = running.handle();
        tokio::time::timeout(BLOCKED + TIMEOUT, running)
            .await
            .unwrap()
            .unwrap();
        assert!(begun.elapsed() >= BLOCKED);
        assert_eq!(handle.stats().lost, 0, "it was put out of its group");
    });
    assert_eq!(handled.load(Relaxed), RECORDS, "each record once");
}
