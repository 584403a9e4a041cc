//! Operating a group: pause, replay, lag, trimmed records, checkpoint reads, several streams.

use std::sync::Arc;
use std::time::Duration;

use millstream_core::{ErrorKind, OnDataLoss, Start};

use super::cases;
use super::reader::{nothing_comes, pull, read};
use crate::checker::Rules;
use crate::fleet::{Fleet, TestProducer};
use crate::harness::unique_stream;
use crate::history::{Event, id_of};
use crate::{Fault, Harness};

cases! {
    operate_pause_and_resume,
    operate_pause_of_one_partition,
    operate_reset_while_members_run,
    operate_reset_while_none_runs,
    operate_reset_to_latest_skips,
    operate_reset_to_a_time,
    operate_lag,
    operate_checkpoints,
    operate_several_streams,
    operate_data_loss_fails [TRIM],
    operate_data_loss_skips [TRIM],
}

fn more(fleet: &Fleet) -> impl Future<Output = TestProducer> {
    TestProducer::open(&fleet.client, &fleet.stream, &fleet.history, 5_000)
}

async fn operate_pause_and_resume(harness: Arc<dyn Harness>) {
    let timing = harness.timing();
    let fleet = Fleet::new(harness, 2).await;
    fleet.send(4, 5).await;
    let member = fleet.member("a").start().await;
    fleet.settled().await;
    member.handle().pause_all();
    let mut test_producer = more(&fleet).await;
    // Records that were in transit when it was paused may still arrive.
    test_producer.send_one(Some("on-the-way")).await;
    test_producer.receipts().await;
    tokio::time::sleep(timing.handover).await;
    let before = fleet.acked();
    for turn in 0..20 {
        test_producer
            .send_one(Some(&format!("paused-{}", turn % 4)))
            .await;
    }
    test_producer.close().await;
    tokio::time::sleep(timing.session * 2).await;
    assert_eq!(fleet.acked(), before, "nothing is taken in a pause");
    assert_eq!(
        (member.owns(), member.handle().stats().lost),
        (2, 0),
        "it is a member still"
    );
    member.handle().resume_all();
    let summary = fleet.check().await;
    assert_eq!(
        (summary.handled, summary.duplicates),
        (41, 0),
        "{summary:?}"
    );
    member.close().await;
}

async fn operate_pause_of_one_partition(harness: Arc<dyn Harness>) {
    let timing = harness.timing();
    let fleet = Fleet::new(harness, 2).await;
    let member = fleet.member("a").start().await;
    fleet.until("it owns both", || member.owns() == 2).await;
    let paused = fleet.open_partitions().await.remove(0);
    member.handle().pause(&paused);
    tokio::time::sleep(timing.handover).await;
    fleet.send(20, 2).await;
    let of_paused = |e: &Event| matches!(e, Event::Began(h) if h.by.partition == paused);
    let there =
        |e: &Event| matches!(e, Event::Acknowledged { partition, .. } if *partition == paused);
    let waiting = fleet.history.count(there);
    assert!(waiting > 0, "some of 20 keys are there");
    fleet
        .until("the other partition flows", || fleet.unsettled() == waiting)
        .await;
    tokio::time::sleep(timing.handover).await;
    assert_eq!(
        fleet.history.count(of_paused),
        0,
        "the paused partition delivers nothing"
    );
    member.handle().resume(&paused);
    fleet.check().await;
    member.close().await;
}

fn reset(fleet: &Fleet, skips: bool) {
    fleet.history.record(Event::Reset {
        group: fleet.group.as_str().into(),
        stream: fleet.stream.as_str().into(),
        skips,
    });
}

async fn operate_reset_while_members_run(harness: Arc<dyn Harness>) {
    let fleet = Fleet::new(harness, 3).await;
    fleet.send(6, 10).await;
    let a = fleet
        .member("a")
        .handler_delay(Duration::from_millis(2))
        .start()
        .await;
    let b = fleet
        .member("b")
        .handler_delay(Duration::from_millis(2))
        .start()
        .await;
    let background_load = more(&fleet)
        .await
        .send_in_background(6, Duration::from_millis(5));
    fleet
        .until("records are handled", || fleet.acked() >= 120)
        .await;
    let epochs: Vec<_> = fleet
        .checkpoints()
        .await
        .into_iter()
        .map(|c| c.epoch)
        .collect();
    reset(&fleet, false);
    let group = fleet.client.group(fleet.group.as_str());
    group
        .reset(&fleet.stream, Start::Earliest)
        .await
        .expect("the group is moved");
    let again = |e: &Event| matches!(e, Event::Ended { handling, .. } if handling.id <= 60);
    fleet
        .until("the old records are delivered again", || {
            fleet.history.count(again) >= 120
        })
        .await;
    background_load.stop().await;
    fleet.check().await;
    fleet.caught_up().await;
    let after: Vec<_> = fleet
        .checkpoints()
        .await
        .into_iter()
        .map(|c| c.epoch)
        .collect();
    assert!(
        after.iter().zip(&epochs).all(|(new, old)| new > old),
        "{epochs:?} {after:?}"
    );
    assert!(!a.has_ended() && !b.has_ended(), "the members continue");
    a.close().await;
    b.close().await;
}

async fn operate_reset_while_none_runs(harness: Arc<dyn Harness>) {
    let fleet = Fleet::new(harness, 3).await;
    fleet.send(6, 10).await;
    let a = fleet.member("a").start().await;
    fleet.caught_up().await;
    a.close().await;
    reset(&fleet, false);
    let group = fleet.client.group(fleet.group.as_str());
    group
        .reset(&fleet.stream, Start::Earliest)
        .await
        .expect("the group is moved");
    let b = fleet.member("b").start().await;
    fleet
        .until("all are delivered again", || fleet.acked() == 120)
        .await;
    fleet.check().await;
    b.close().await;
}

async fn operate_reset_to_latest_skips(harness: Arc<dyn Harness>) {
    let fleet = Fleet::new(harness, 2).await;
    let a = fleet.member("a").start().await;
    fleet.until("the group is created", || a.owns() == 2).await;
    a.close().await;
    fleet.send(6, 10).await;
    reset(&fleet, true);
    let group = fleet.client.group(fleet.group.as_str());
    group
        .reset(&fleet.stream, Start::Latest)
        .await
        .expect("the group is moved");
    let mut test_producer = more(&fleet).await;
    for _ in 0..5 {
        test_producer.send_one(Some("later")).await;
    }
    test_producer.close().await;
    let b = fleet.member("b").start().await;
    let later = |e: &Event| matches!(e, Event::Ended { handling, .. } if handling.id >= 5_000);
    fleet
        .until("what came later is handled", || {
            fleet.history.count(later) == 5
        })
        .await;
    assert_eq!(
        fleet.acked(),
        5,
        "only what came after the reset is handled"
    );
    fleet.caught_up().await;
    fleet.verdict(Rules::default()).assert_clean();
    b.close().await;
}

async fn operate_reset_to_a_time(harness: Arc<dyn Harness>) {
    let timing = harness.timing();
    let fleet = Fleet::new(harness, 1).await;
    fleet.send(1, 5).await;
    tokio::time::sleep(timing.timestamps + timing.poll_interval).await;
    let mut test_producer = more(&fleet).await;
    for _ in 0..5 {
        test_producer.send_one(Some("later")).await;
    }
    test_producer.close().await;
    let all = read(&*fleet.harness, &fleet.stream, 10).await;
    let later = |payload: &[u8]| id_of(payload).is_some_and(|id| id >= 5_000);
    let time = all
        .iter()
        .find(|d| later(d.payload()))
        .map(|d| d.timestamp());
    let mut consumer = fleet.handle().await.join().await.expect("the puller joins");
    for _ in 0..10 {
        pull(timing, &mut consumer).await.ack();
    }
    let group = fleet.client.group(fleet.group.as_str());
    reset(&fleet, true);
    let moved = group
        .reset(&fleet.stream, Start::At(time.expect("there are records")))
        .await;
    moved.expect("the group is moved");
    for _ in 0..5 {
        let delivery = pull(timing, &mut consumer).await;
        assert!(
            later(delivery.payload()),
            "{} at {} came before the reset",
            delivery.partition(),
            delivery.position()
        );
        delivery.ack();
    }
    assert!(
        nothing_comes(timing, &mut consumer).await,
        "nothing else comes"
    );
    consumer.close().await.expect("the puller closes");
}

async fn operate_lag(harness: Arc<dyn Harness>) {
    let timing = harness.timing();
    let fleet = Fleet::new(harness, 1).await;
    let mut consumer = fleet
        .handle()
        .await
        .checkpoint_interval(Duration::from_millis(1))
        .join()
        .await
        .expect("the puller joins");
    fleet.send(1, 10).await;
    tokio::time::sleep(timing.handover).await;
    for settled in 1..=10_u64 {
        let delivery = pull(timing, &mut consumer).await;
        let position = delivery.position();
        delivery.ack();
        let lag = fleet.eventually("the checkpoint is stored", || async {
            let mut checkpoints = fleet.checkpoints().await.into_iter();
            let stored = checkpoints.find(|c| c.position == Some(position))?;
            Some(stored.lag)
        });
        let lag = lag.await;
        assert!(
            lag.records.is_none_or(|records| records == 10 - settled),
            "{settled}: {lag:?}"
        );
        let old = lag.time.unwrap_or_default();
        assert!(settled < 10 || old.is_zero(), "nothing is left: {lag:?}");
    }
    let known = consumer.handle().partitions();
    let (_, known) = known.iter().next().expect("it owns the partition");
    assert_eq!(known.unsettled, 0, "{known:?}");
    consumer.close().await.expect("the puller closes");
}

async fn operate_checkpoints(harness: Arc<dyn Harness>) {
    let fleet = Fleet::new(harness, 3).await;
    let member = fleet.member("a").start().await;
    fleet.until("it owns all", || member.owns() == 3).await;
    let fresh = fleet.checkpoints().await;
    assert_eq!(fresh.len(), 3, "one of each partition");
    assert!(
        fresh.is_sorted_by_key(|c| c.partition.clone()),
        "the checkpoints are in the order of partitions: {fresh:?}"
    );
    assert!(
        fresh.iter().all(|c| c.position.is_none() && !c.completed),
        "{fresh:?}"
    );
    fleet.send(12, 5).await;
    fleet.check().await;
    fleet.caught_up().await;
    let owned = member.handle().partitions();
    for checkpoint in fleet.checkpoints().await {
        let own = &owned[&checkpoint.partition];
        if checkpoint.position.is_some() {
            assert_eq!(
                (checkpoint.epoch, checkpoint.position),
                (Some(own.epoch), own.settled),
                "the checkpoint is what the owner has settled: {checkpoint:?}"
            );
        }
        assert!(
            checkpoint.lag.records.is_none_or(|records| records == 0),
            "nothing is left to read: {checkpoint:?}"
        );
    }
    assert!(
        member.handle().stats().checkpoints >= 1,
        "{:?}",
        member.handle().stats()
    );
    member.close().await;
}

async fn operate_several_streams(harness: Arc<dyn Harness>) {
    let fleet = Fleet::new(harness, 2).await;
    let other = unique_stream(&*fleet.harness, 2).await;
    fleet.history.record(Event::Subscribed {
        group: fleet.group.as_str().into(),
        stream: other.as_str().into(),
        everything: true,
    });
    fleet.send(4, 10).await;
    let mut test_producer = TestProducer::open(&fleet.client, &other, &fleet.history, 5_000).await;
    for turn in 0..40 {
        test_producer
            .send_one(Some(&format!("key-{}", turn % 4)))
            .await;
    }
    test_producer.close().await;
    let name = other.clone();
    let member = fleet
        .member("a")
        .with(move |group| group.stream(name))
        .start()
        .await;
    fleet.until("all are handled", || fleet.acked() == 80).await;
    let summary = fleet.check().await;
    assert_eq!((summary.lost, summary.duplicates), (0, 0), "{summary:?}");
    assert_eq!(
        member.owns(),
        4,
        "the member owns the partitions of both streams"
    );
    let checkpoints = fleet.checkpoints().await;
    let streams: Vec<_> = checkpoints.iter().map(|c| c.partition.stream()).collect();
    assert!(
        streams.contains(&other.as_str()) && streams.contains(&fleet.stream.as_str()),
        "both streams have checkpoints: {streams:?}"
    );
    member.close().await;
}

/// Returns a group that has settled 10 records of a stream, whose next 20 are then removed except for the last.
async fn trimmed(harness: Arc<dyn Harness>) -> Fleet {
    let fleet = Fleet::new(harness, 1).await;
    fleet.send(1, 10).await;
    let member = fleet.member("a").start().await;
    fleet.caught_up().await;
    member.close().await;
    let mut test_producer = more(&fleet).await;
    for _ in 0..20 {
        test_producer.send_one(Some("gone")).await;
    }
    test_producer.receipts().await;
    reset(&fleet, true);
    let fault = Fault::Trim {
        group: fleet.group.clone(),
        stream: fleet.stream.clone(),
    };
    fleet.inject(fault).await;
    for _ in 0..5 {
        test_producer.send_one(Some("later")).await;
    }
    test_producer.close().await;
    fleet
}

async fn operate_data_loss_fails(harness: Arc<dyn Harness>) {
    let timing = harness.timing();
    let fleet = trimmed(harness).await;
    let member = fleet.member("b").start().await;
    let error = member.ended(timing).await.expect_err("records are gone");
    assert_eq!(error.kind(), ErrorKind::DataLoss, "{error:?}");
    let partition = fleet.open_partitions().await.remove(0);
    assert_eq!(error.partition(), Some(&partition), "{error:?}");
    let described = fleet.client.streams().describe(&fleet.stream).await;
    let described = described
        .expect("the stream is described")
        .partitions
        .remove(0);
    let earliest = described.earliest.expect("there are records").to_string();
    assert!(
        error.message().contains(&earliest),
        "{error} does not name {earliest}"
    );
}

async fn operate_data_loss_skips(harness: Arc<dyn Harness>) {
    let fleet = trimmed(harness).await;
    let member = fleet
        .member("b")
        .with(|group| group.on_data_loss(OnDataLoss::Skip))
        .start()
        .await;
    fleet.caught_up().await;
    let verdict = fleet.verdict(Rules::default());
    let summary = verdict.assert_clean();
    assert!((15..=16).contains(&summary.handled), "{summary:?}");
    assert_eq!(
        member.handle().stats().data_losses,
        1,
        "{:?}",
        member.handle().stats()
    );
    member.close().await;
}
