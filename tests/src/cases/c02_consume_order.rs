//! C2: for one key, the handler sees records in stored order and one at a time, whatever happens.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use millstream_core::{BatchFailure, Delivery, Retry};
use tokio::sync::oneshot;

use super::cases;
use super::reader::{ids_by_key, nothing_comes, pull};
use crate::Harness;
use crate::fleet::{Fleet, handler_fn, joined};
use crate::history::{Event, Observer, Outcome};

cases! {
    c02_order_under_retry,
    c02_one_key_never_overlaps,
    c02_records_without_key_do_not_wait_for_each_other,
    c02_order_under_rebalance,
    c02_order_under_reshard [RESHARD],
    c02_order_through_restart,
    c02_order_through_a_crash,
    c02_pull_consumer_delivers_a_key_one_at_a_time,
    c02_batches_come_in_stored_order,
}

async fn c02_order_under_retry(harness: Arc<dyn Harness>) {
    let fleet = Fleet::new(harness, 2).await;
    fleet.send(6, 20).await;
    let fails_twice = handler_fn(|delivery: Delivery| async move {
        match (
            delivery.position().offset().unwrap_or(0) % 5,
            delivery.attempt(),
        ) {
            (0, 1 | 2) => Err("not yet".into()),
            _ => Ok(()),
        }
    });
    let retry = Retry::fixed(Duration::from_millis(30)).attempts(3);
    let member = fleet
        .member("a")
        .handler(fails_twice)
        .with(|group| group.on_failure(retry));
    let member = member.start().await;
    let summary = fleet.check().await;
    assert!(summary.failures >= 2, "{summary:?}");
    assert_eq!(
        member.handle().stats().retried,
        summary.failures,
        "each failure is retried"
    );
    member.close().await;
}

async fn c02_one_key_never_overlaps(harness: Arc<dyn Harness>) {
    let fleet = Fleet::new(harness, 1).await;
    fleet.send(8, 12).await;
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let counted = {
        let (now, most) = (now.clone(), most.clone());
        handler_fn(move |_| {
            let (now, most) = (now.clone(), most.clone());
            async move {
                most.fetch_max(now.fetch_add(1, SeqCst) + 1, SeqCst);
                tokio::time::sleep(Duration::from_millis(7)).await;
                now.fetch_sub(1, SeqCst);
                Ok(())
            }
        })
    };
    let member = fleet
        .member("a")
        .handler(counted)
        .with(|group| group.concurrency(64));
    let member = member.start().await;
    // The checker verifies that no key overlaps.
    fleet.check().await;
    assert_eq!(most.load(SeqCst), 8, "all keys are handled at once");
    member.close().await;
}

async fn c02_records_without_key_do_not_wait_for_each_other(harness: Arc<dyn Harness>) {
    let fleet = Fleet::new(harness, 1).await;
    let mut test_producer = fleet.test_producer().await;
    for _ in 0..8 {
        test_producer.send_one(None).await;
    }
    test_producer.close().await;
    let barrier = Arc::new(tokio::sync::Barrier::new(8));
    let meets = handler_fn(move |_| {
        let barrier = barrier.clone();
        async move {
            barrier.wait().await;
            Ok(())
        }
    });
    let member = fleet
        .member("a")
        .handler(meets)
        .with(|group| group.concurrency(8));
    let member = member.start().await;
    fleet.check().await;
    member.close().await;
}

async fn c02_order_under_rebalance(harness: Arc<dyn Harness>) {
    let fleet = Fleet::new(harness, 6).await;
    let background_load = fleet
        .test_producer()
        .await
        .send_in_background(24, Duration::from_millis(2));
    let start = |name: &'static str| {
        fleet
            .member(name)
            .handler_delay(Duration::from_millis(9))
            .start()
    };
    let works = |name: &'static str| {
        let history = fleet.history.clone();
        fleet.until("the new member handles", move || {
            let began = |event: &Event| matches!(event, Event::Began(h) if &*h.by.member == name);
            history.count(began) >= 10
        })
    };
    let a = start("a").await;
    works("a").await;
    let b = start("b").await;
    let c = start("c").await;
    works("b").await;
    works("c").await;
    a.close().await;
    let d = start("d").await;
    works("d").await;
    c.close().await;
    b.close().await;
    let e = start("e").await;
    works("e").await;
    background_load.stop().await;
    let summary = fleet.check().await;
    assert_eq!(summary.duplicates, 0, "{summary:?}");
    assert!(summary.handovers >= 6, "{summary:?}");
    d.close().await;
    e.close().await;
}

async fn c02_order_under_reshard(harness: Arc<dyn Harness>) {
    let fleet = Fleet::new(harness, 2).await;
    let background_load = fleet
        .test_producer()
        .await
        .send_in_background(24, Duration::from_millis(2));
    let a = fleet
        .member("a")
        .handler_delay(Duration::from_millis(5))
        .start()
        .await;
    let b = fleet
        .member("b")
        .handler_delay(Duration::from_millis(11))
        .start()
        .await;
    let streams = fleet.client.streams();
    for round in 1..=3 {
        fleet
            .until("records are handled", || fleet.acked() >= round * 100)
            .await;
        let open = fleet.open_partitions().await;
        streams
            .split(&open[round % open.len()])
            .await
            .expect("a partition is split");
    }
    fleet
        .until("records are handled", || fleet.acked() >= 400)
        .await;
    background_load.stop().await;
    let summary = fleet.check().await;
    assert_eq!(summary.duplicates, 0, "{summary:?}");
    a.close().await;
    b.close().await;
}

async fn c02_order_through_restart(harness: Arc<dyn Harness>) {
    let fleet = Fleet::new(harness, 2).await;
    let background_load = fleet
        .test_producer()
        .await
        .send_in_background(5, Duration::from_millis(3));
    for (round, name) in ["a", "b", "c"].into_iter().enumerate() {
        let member = fleet
            .member(name)
            .handler_delay(Duration::from_millis(4))
            .start()
            .await;
        fleet
            .until("records are handled", || fleet.acked() >= 60 * (round + 1))
            .await;
        member.close().await;
    }
    background_load.stop().await;
    let member = fleet.member("d").start().await;
    let summary = fleet.check().await;
    assert_eq!(summary.duplicates, 0, "{summary:?}");
    member.close().await;
}

async fn c02_order_through_a_crash(harness: Arc<dyn Harness>) {
    let fleet = Fleet::new(harness, 2).await;
    let background_load = fleet
        .test_producer()
        .await
        .send_in_background(5, Duration::from_millis(3));
    let a = fleet
        .member("a")
        .handler_delay(Duration::from_millis(4))
        .start()
        .await;
    fleet
        .until("records are handled", || fleet.acked() >= 60)
        .await;
    a.crash().await;
    let b = fleet
        .member("b")
        .handler_delay(Duration::from_millis(1))
        .start()
        .await;
    fleet
        .until("records are handled", || fleet.acked() >= 200)
        .await;
    background_load.stop().await;
    fleet.check().await;
    b.close().await;
}

async fn c02_pull_consumer_delivers_a_key_one_at_a_time(harness: Arc<dyn Harness>) {
    let timing = harness.timing();
    let fleet = Fleet::new(harness, 1).await;
    let observer = Observer::new(&fleet.history, &fleet.group, "puller");
    let mut test_producer = fleet.test_producer().await;
    for key in ["a", "a", "b", "a", "b", "c"] {
        test_producer.send_one(Some(key)).await;
    }
    test_producer.close().await;
    let group = fleet.handle().await.concurrency(10);
    let mut consumer = group.join().await.expect("the puller joins");
    let mut held = Vec::new();
    for _ in 0..3 {
        let delivery = pull(timing, &mut consumer).await;
        held.push((observer.begin(&delivery), delivery));
    }
    let mut keys: Vec<_> = held
        .iter()
        .map(|(_, d)| d.key().cloned().expect("a key"))
        .collect();
    keys.sort();
    assert_eq!(keys, ["a", "b", "c"], "one record of each key");
    assert!(
        nothing_comes(timing, &mut consumer).await,
        "the other records wait for their keys"
    );
    // Each key has more records: the next one is delivered when the one before is settled.
    let mut waiting = BTreeMap::from([("a", 2), ("b", 1), ("c", 0)]);
    let mut settled = 0;
    while let Some((open, delivery)) = held.pop() {
        let key = delivery.key().cloned().expect("a key");
        open.end(Outcome::Acked);
        delivery.ack();
        settled += 1;
        let more = waiting
            .iter_mut()
            .find(|(name, _)| key == **name)
            .expect("a key of these");
        if *more.1 > 0 {
            *more.1 -= 1;
            let next = pull(timing, &mut consumer).await;
            assert_eq!(next.key(), Some(&key), "the next record of the key comes");
            held.push((observer.begin(&next), next));
        }
    }
    assert_eq!(settled, 6, "all records of the keys came");
    fleet.check().await;
    consumer.close().await.expect("the puller closes");
    observer.left();
}

async fn c02_batches_come_in_stored_order(harness: Arc<dyn Harness>) {
    let fleet = Fleet::new(harness, 2).await;
    fleet.send(5, 40).await;
    let observer = Observer::new(&fleet.history, &fleet.group, "batches");
    let (sizes, seen) = (Arc::new(AtomicUsize::new(0)), fleet.history.clone());
    let largest = sizes.clone();
    let handler = move |batch: Vec<Delivery>| {
        let (observer, largest) = (observer.clone(), largest.clone());
        async move {
            largest.fetch_max(batch.len(), SeqCst);
            assert!(
                batch
                    .windows(2)
                    .all(|pair| pair[0].position() < pair[1].position()),
                "a batch is in stored order"
            );
            assert!(
                batch
                    .windows(2)
                    .all(|pair| pair[0].partition() == pair[1].partition()),
                "a batch is of one partition"
            );
            for (index, delivery) in batch.iter().enumerate() {
                let open = observer.begin(delivery);
                if index == 2 && delivery.attempt() == 1 {
                    open.end(Outcome::Failed);
                    return Err(BatchFailure::at(2, "the third one"));
                }
                open.end(Outcome::Acked);
            }
            Ok(())
        }
    };
    let (stop, stopped) = oneshot::channel::<()>();
    let group = fleet
        .handle()
        .await
        .on_failure(Retry::fixed(Duration::from_millis(5)));
    let run = group.run_batches(16, handler, async move {
        stopped.await.ok();
    });
    let task = tokio::spawn(run);
    let summary = fleet.check().await;
    assert_eq!(summary.duplicates, 0, "{summary:?}");
    let largest = sizes.load(SeqCst);
    assert!(
        (2..=16).contains(&largest),
        "batches of up to 16, the largest had {largest}"
    );
    assert!(
        seen.count(|e| matches!(
            e,
            Event::Ended {
                outcome: Outcome::Failed,
                ..
            }
        )) > 0,
        "the case shows nothing unless a batch fails"
    );
    stop.send(()).expect("the member runs");
    joined(task).await.expect("the member closes");
    let read = super::reader::read(&*fleet.harness, &fleet.stream, 200).await;
    assert!(
        ids_by_key(&read).values().all(|ids| ids.is_sorted()),
        "each key is stored in its order"
    );
    let stored = fleet.eventually("the checkpoint is stored", || async {
        let checkpoints = fleet.checkpoints().await;
        checkpoints
            .iter()
            .all(|c| c.lag.records.is_none_or(|lag| lag == 0))
            .then_some(())
    });
    stored.await;
}
