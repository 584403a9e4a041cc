//! Pipelines: consume, transform, publish. Records are stored before the checkpoint or together with it, and
//! each key in its order.
//!
//! A pipeline whose producer belongs to the group's client is exactly-once if the backend promises it.
//! A pipeline whose producer belongs to another client is at-least-once on every backend.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use bytes::Bytes;
use millstream_core::{
    ConsumerGroup, ConsumerHandle, Delivery, ErrorKind, Guarantee, Partition, Producer, Record,
    Retry, RunFuture,
};
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, sleep};

use super::cases;
use super::reader::{ids_by_key, pull, read};
use crate::fleet::{Fleet, TestProducer, joined};
use crate::harness::unique_stream;
use crate::history::{Event, id_of};
use crate::{Fault, Harness, within_timeout};

cases! {
    pipeline_keeps_order_and_loses_nothing,
    pipeline_publishes_before_it_checkpoints [FAIL_SENDS],
    pipeline_survives_a_crash,
    pipeline_publishes_each_result_once_through_a_crash [EXACTLY_ONCE],
    pipeline_publishes_each_result_once_through_many_crashes [EXACTLY_ONCE],
    pipeline_publishes_each_result_once_through_a_rebalance [EXACTLY_ONCE],
    pipeline_publishes_each_result_once_though_checkpoints_fail [EXACTLY_ONCE, FAIL_CHECKPOINTS],
    pipeline_survives_a_late_refusal [EXACTLY_ONCE, REFUSE_PUBLISH_LATE, STEAL],
    pipeline_zombie_publishes_nothing [EXACTLY_ONCE, FREEZE],
    pipeline_results_are_invisible_before_their_checkpoint [EXACTLY_ONCE],
    pipeline_publishes_nothing_of_a_failed_transform [EXACTLY_ONCE],
    pipeline_to_another_client_is_at_least_once [EXACTLY_ONCE],
    pipeline_filters_and_multiplies,
    pipeline_stops_when_a_transform_keeps_failing,
}

const NEVER: Duration = Duration::from_secs(24 * 60 * 60);

/// Passes each record on to `to`, with its key.
fn run(group: &ConsumerGroup, to: &Producer, stop: oneshot::Receiver<()>) -> RunFuture {
    let pass_on = |delivery: Delivery| async move { Ok::<_, std::io::Error>([passed(&delivery)]) };
    group.transform_to(to, pass_on, async move {
        stop.await.ok();
    })
}

fn passed(delivery: &Delivery) -> Record {
    delivery.to_record().header("passed", "on")
}

/// Returns a source with 60 records of 6 keys, and an empty stream with a producer to it.
async fn source_and_sink(harness: Arc<dyn Harness>) -> (Fleet, String, Producer) {
    let fleet = Fleet::new(harness, 3).await;
    fleet.send(6, 10).await;
    let sink = unique_stream(&*fleet.harness, 2).await;
    let producer = fleet.client.producer(sink.as_str()).open().await;
    (fleet, sink, producer.expect("the producer opens"))
}

/// Returns a producer of more records for the source.
async fn more(fleet: &Fleet) -> TestProducer {
    TestProducer::open(&fleet.client, &fleet.stream, &fleet.history, 1_000).await
}

/// Returns the number of records in the source.
fn sent(fleet: &Fleet) -> usize {
    let history = &fleet.history;
    history.count(|event| matches!(event, Event::Acknowledged { .. }))
}

/// Returns the group on the client of the sink's producer.
pub(super) fn same_client(fleet: &Fleet) -> ConsumerGroup {
    let group = fleet.client.group(fleet.group.as_str());
    group.stream(fleet.stream.as_str())
}

/// Returns all records of the sink that are visible to readers. A last record is sent to each partition, to find
/// its end.
pub(super) async fn visible(fleet: &Fleet, sink: &str) -> Vec<Delivery> {
    let described = fleet.client.streams().describe(sink).await;
    let described = described.expect("the sink is described");
    let mut open: BTreeSet<_> = described.partitions.iter().map(|p| &p.partition).collect();
    let mut ends = BTreeSet::new();
    let producer = fleet.client.producer(sink).open().await;
    let producer = producer.expect("the producer opens");
    let mut key = 0;
    while !open.is_empty() {
        key += 1;
        let end = Record::new("end").key(format!("end-{key}"));
        let receipt = producer.send(end).await.expect("it is taken");
        let metadata = receipt.await.expect("it is stored");
        if open.remove(&metadata.partition) {
            ends.insert((metadata.partition, metadata.position));
        }
    }
    producer.close().await.expect("it closes");
    let client = fleet.harness.client().await;
    // One at a time, so that a partition's last record is not delivered before those of busy keys.
    let group = client.group(fleet.harness.unique("reader")).concurrency(1);
    let group = group.stream(sink);
    let mut consumer = group.join().await.expect("the reader joins");
    let mut seen = Vec::new();
    while !ends.is_empty() {
        let next = pull(fleet.harness.timing(), &mut consumer).await;
        ends.remove(&(next.partition().clone(), next.position()));
        seen.push((*next).clone());
        next.ack();
    }
    consumer.close().await.expect("the reader closes");
    // An earlier call has left its last records, and a partition may have several.
    seen.retain(|d| *d.payload() != Bytes::from_static(b"end"));
    seen
}

/// Asserts that the first occurrences in the sink are all records of the source, each key in its order.
async fn assert_passed_on(fleet: &Fleet, sink: &str) -> usize {
    let got = visible(fleet, sink).await;
    assert!(
        got.iter().all(|d| d.headers().get("passed").is_some()),
        "all results passed the transform"
    );
    let mut firsts = ids_by_key(&got);
    for ids in firsts.values_mut() {
        let mut seen = BTreeSet::new();
        ids.retain(|id| seen.insert(*id));
    }
    let source = ids_by_key(&read(&*fleet.harness, &fleet.stream, sent(fleet)).await);
    assert_eq!(
        firsts, source,
        "the first results are those of the source, each key in its order"
    );
    got.len()
}

async fn end(
    stop: oneshot::Sender<()>,
    task: tokio::task::JoinHandle<millstream_core::Result<()>>,
) {
    stop.send(()).expect("the pipeline runs");
    joined(task).await.expect("the pipeline closes");
}

async fn pipeline_keeps_order_and_loses_nothing(harness: Arc<dyn Harness>) {
    let (fleet, sink, producer) = source_and_sink(harness).await;
    let (stop, stopped) = oneshot::channel();
    let task = tokio::spawn(run(&same_client(&fleet), &producer, stopped));
    fleet.caught_up().await;
    end(stop, task).await;
    assert_eq!(
        assert_passed_on(&fleet, &sink).await,
        60,
        "nothing is repeated"
    );
    producer
        .close()
        .await
        .expect("the caller's producer is the caller's to close");
}

async fn pipeline_publishes_before_it_checkpoints(harness: Arc<dyn Harness>) {
    let (fleet, sink, producer) = source_and_sink(harness).await;
    let fault = Fault::FailSends {
        stream: sink.clone(),
        key: Some("key-2".into()),
        times: 8,
    };
    fleet.inject(fault).await;
    let group = fleet
        .handle()
        .await
        .checkpoint_interval(Duration::from_millis(1));
    let (stop, stopped) = oneshot::channel();
    let task = tokio::spawn(run(&group, &producer, stopped));
    let source = read(&*fleet.harness, &fleet.stream, 60).await;
    let at_the_end = fleet.eventually("the checkpoint is at the end", || async {
        let checkpoints = fleet.checkpoints().await;
        let passed = |d: &&Delivery| {
            let of = checkpoints.iter().find(|c| c.partition == *d.partition());
            of.is_some_and(|c| c.position >= Some(d.position()))
        };
        let passed = source.iter().filter(passed).count();
        let stored = producer.stats().stored as usize;
        assert!(
            stored >= passed,
            "{passed} are checkpointed, {stored} are published"
        );
        (passed == 60).then_some(())
    });
    at_the_end.await;
    end(stop, task).await;
    assert_passed_on(&fleet, &sink).await;
}

async fn pipeline_survives_a_crash(harness: Arc<dyn Harness>) {
    let (fleet, sink, producer) = source_and_sink(harness).await;
    let group = fleet
        .handle()
        .await
        .checkpoint_interval(NEVER)
        .max_unsettled_per_partition(12);
    let (_stop, stopped) = oneshot::channel();
    let task = tokio::spawn(run(&group, &producer, stopped));
    fleet
        .until("records are published", || producer.stats().stored >= 5)
        .await;
    task.abort();
    // Aborted, or done already.
    let _ = task.await;
    let (stop, stopped) = oneshot::channel();
    let task = tokio::spawn(run(&fleet.handle().await, &producer, stopped));
    fleet.caught_up().await;
    end(stop, task).await;
    producer.close().await.expect("it closes");
    assert_passed_on(&fleet, &sink).await;
}

/// Starts a pipeline that continues, and crashes it when `when` is true.
async fn crash(
    fleet: &Fleet,
    group: &ConsumerGroup,
    to: &Producer,
    when: impl Fn(&ConsumerHandle) -> bool,
) {
    let (_stop, stopped) = oneshot::channel();
    let run = run(group, to, stopped);
    let control = run.handle();
    let task = tokio::spawn(run);
    fleet
        .until("it is time to crash", || {
            when(&control) || task.is_finished()
        })
        .await;
    assert!(!task.is_finished(), "a pipeline ended by itself");
    task.abort();
    // Aborted by now.
    let _ = task.await;
}

/// Runs a pipeline until everything that is left is published, and counts the results.
async fn finish(fleet: &Fleet, sink: &str, producer: &Producer) -> usize {
    let (stop, stopped) = oneshot::channel();
    let task = tokio::spawn(run(&same_client(fleet), producer, stopped));
    fleet.caught_up().await;
    end(stop, task).await;
    assert_passed_on(fleet, sink).await
}

async fn pipeline_publishes_each_result_once_through_a_crash(harness: Arc<dyn Harness>) {
    let (fleet, sink, producer) = source_and_sink(harness).await;
    // Some results are published, and some are created but not published.
    let group = same_client(&fleet).checkpoint_interval(NEVER);
    let group = group.checkpoint_records(8).max_poll_records(3);
    crash(&fleet, &group, &producer, |control| {
        control.stats().published >= 5
    })
    .await;
    assert_eq!(
        finish(&fleet, &sink, &producer).await,
        60,
        "each result is published once"
    );
}

async fn pipeline_publishes_each_result_once_through_many_crashes(harness: Arc<dyn Harness>) {
    let (fleet, sink, producer) = source_and_sink(harness).await;
    let mut test_producer = more(&fleet).await;
    for round in 1..=12 {
        // Numbers without a common pattern.
        let vary = |factor: u64, most: u64| 1 + round * factor % most;
        test_producer.send(7, vary(5, 6) as usize).await;
        let group = same_client(&fleet)
            .checkpoint_interval(Duration::from_millis(vary(13, 50)))
            .checkpoint_records(vary(11, 9))
            .max_poll_records(vary(3, 7) as usize)
            .concurrency(vary(7, 8) as usize);
        // Some crash before they publish, some during it, some after it.
        crash(&fleet, &group, &producer, |control| match round % 3 {
            0 => control.stats().received >= vary(17, 12),
            1 => control.stats().published >= vary(19, 5),
            _ => control.stats().settled >= 3 && control.stats().published >= 1,
        })
        .await;
    }
    test_producer.close().await;
    assert_eq!(
        finish(&fleet, &sink, &producer).await,
        sent(&fleet),
        "each result is published once"
    );
}

async fn pipeline_publishes_each_result_once_through_a_rebalance(harness: Arc<dyn Harness>) {
    let (fleet, sink, producer) = source_and_sink(harness).await;
    let group = same_client(&fleet)
        .checkpoint_interval(Duration::from_millis(20))
        .max_poll_records(2);
    let mut test_producer = more(&fleet).await;
    let mut before = None;
    for _ in 0..4 {
        test_producer.send(6, 5).await;
        let (stop, stopped) = oneshot::channel();
        let pipeline = run(&group, &producer, stopped);
        let control = pipeline.handle();
        let task = tokio::spawn(pipeline);
        fleet
            .until("the newcomer has partitions", || {
                !control.partitions().is_empty()
            })
            .await;
        test_producer.send(6, 5).await;
        if let Some((stop, task)) = before.replace((stop, task)) {
            end(stop, task).await;
        }
    }
    test_producer.close().await;
    fleet.caught_up().await;
    let (stop, task) = before.expect("the last one runs");
    end(stop, task).await;
    assert_eq!(
        assert_passed_on(&fleet, &sink).await,
        sent(&fleet),
        "each result is published once"
    );
}

async fn pipeline_publishes_each_result_once_though_checkpoints_fail(harness: Arc<dyn Harness>) {
    let (fleet, sink, producer) = source_and_sink(harness).await;
    let fault = Fault::FailCheckpoints {
        group: fleet.group.clone(),
        times: 5,
    };
    fleet.inject(fault).await;
    let group = same_client(&fleet)
        .checkpoint_interval(Duration::from_millis(1))
        .max_poll_records(7);
    let (stop, stopped) = oneshot::channel();
    let task = tokio::spawn(run(&group, &producer, stopped));
    fleet.caught_up().await;
    end(stop, task).await;
    assert_eq!(
        assert_passed_on(&fleet, &sink).await,
        60,
        "each result is published once"
    );
}

/// A member that is evicted from its group while it publishes, and readmitted before it learns
/// that its step is rejected: the rejection concerns its earlier assignment, not its current one.
async fn pipeline_survives_a_late_refusal(harness: Arc<dyn Harness>) {
    let (fleet, sink, producer) = source_and_sink(harness).await;
    let group = same_client(&fleet).checkpoint_interval(Duration::from_millis(20));
    let (stop, stopped) = oneshot::channel();
    let pipeline = run(&group, &producer, stopped);
    let control = pipeline.handle();
    let task = tokio::spawn(pipeline);
    fleet.caught_up().await;
    let after = fleet.harness.timing().session * 3;
    let fault = Fault::RefusePublishLate {
        group: fleet.group.clone(),
        after,
    };
    fleet.inject(fault).await;
    let mut test_producer = more(&fleet).await;
    test_producer.send(6, 5).await;
    fleet
        .until("a step is under way", || {
            fleet.harness.hits(&fleet.group) == 1
        })
        .await;
    let begun = Instant::now();
    let before = control.partitions();
    let renewed = |partition: &Partition| {
        let now = control.partitions();
        let old = before.get(partition).map(|stats| stats.epoch);
        now.get(partition).is_some_and(|now| Some(now.epoch) > old)
    };
    let partitions = fleet.open_partitions().await;
    for partition in &partitions {
        // The theft of one partition may have revoked all of the member's partitions.
        let now = control.partitions();
        let has_lost =
            now.get(partition).map(|now| now.epoch) != before.get(partition).map(|old| old.epoch);
        if !has_lost {
            let steal = Fault::Steal {
                group: fleet.group.clone(),
                partition: partition.clone(),
            };
            fleet.inject(steal).await;
        }
        fleet
            .until("the member has the partition again", || renewed(partition))
            .await;
    }
    fleet
        .until("the member has its partitions again", || {
            partitions.iter().all(&renewed)
        })
        .await;
    assert!(begun.elapsed() < after, "the refusal came before");
    test_producer.send(6, 5).await;
    test_producer.close().await;
    fleet.caught_up().await;
    end(stop, task).await;
    assert_eq!(
        assert_passed_on(&fleet, &sink).await,
        sent(&fleet),
        "each result is published once"
    );
}

async fn pipeline_zombie_publishes_nothing(harness: Arc<dyn Harness>) {
    let (fleet, sink, producer) = source_and_sink(harness).await;
    let client = fleet.harness.named_client("zombie").await;
    let own_producer = client.producer(sink.as_str()).open().await;
    let own_producer = own_producer.expect("the producer opens");
    let (open, gate) = watch::channel(false);
    let held = move |delivery: Delivery| {
        let mut gate = gate.clone();
        async move {
            gate.wait_for(|open| *open).await.map_err(|_| "never")?;
            Ok::<_, &str>([passed(&delivery).header("by", "zombie")])
        }
    };
    let group = fleet.handle_on(&client).member("zombie");
    let zombie = group.transform_to(&own_producer, held, std::future::pending());
    let control = zombie.handle();
    let zombie = tokio::spawn(zombie);
    fleet
        .until("its handlers are at work", || {
            control.stats().in_flight >= 6
        })
        .await;
    fleet.freeze("zombie").await;
    // It creates results now and publishes them, while it does not know of its loss, unless the machine is too busy.
    open.send(true).expect("the zombie listens");
    fleet
        .until("the zombie has made results, or knows its loss", || {
            control.stats().settled >= 6 || control.stats().lost >= 3
        })
        .await;
    let (stop, stopped) = oneshot::channel();
    let task = tokio::spawn(run(&same_client(&fleet), &producer, stopped));
    fleet.caught_up().await;
    // Its requests arrive now.
    fleet.thaw("zombie").await;
    fleet
        .until("the zombie sees the loss", || control.stats().lost >= 3)
        .await;
    sleep(fleet.harness.timing().handover).await;
    assert_eq!(
        control.stats().published,
        0,
        "the zombie has published nothing: {:?}",
        control.stats()
    );
    zombie.abort();
    // Aborted by now.
    let _ = zombie.await;
    end(stop, task).await;
    let seen = visible(&fleet, &sink).await;
    assert!(
        seen.iter().all(|d| d.headers().get("by").is_none()),
        "no result of the zombie is visible"
    );
    assert_eq!(
        assert_passed_on(&fleet, &sink).await,
        60,
        "each result is published once"
    );
}

async fn pipeline_results_are_invisible_before_their_checkpoint(harness: Arc<dyn Harness>) {
    let (fleet, sink, producer) = source_and_sink(harness).await;
    let (stop, stopped) = oneshot::channel();
    let pipeline = run(
        &same_client(&fleet).checkpoint_interval(NEVER),
        &producer,
        stopped,
    );
    let control = pipeline.handle();
    let task = tokio::spawn(pipeline);
    fleet
        .until("all results are made", || control.stats().settled == 60)
        .await;
    assert!(
        visible(&fleet, &sink).await.is_empty(),
        "nothing is visible before the checkpoint"
    );
    assert!(
        fleet
            .checkpoints()
            .await
            .iter()
            .all(|c| c.position.is_none()),
        "nothing is checkpointed"
    );
    end(stop, task).await;
    assert_eq!(
        assert_passed_on(&fleet, &sink).await,
        60,
        "each result is published once"
    );
    fleet.caught_up().await;
}

async fn pipeline_publishes_nothing_of_a_failed_transform(harness: Arc<dyn Harness>) {
    let (fleet, sink, producer) = source_and_sink(harness).await;
    let tries = Arc::new(AtomicUsize::new(0));
    let tried = tries.clone();
    let fails = move |delivery: Delivery| {
        let tries = tried.clone();
        async move {
            match id_of(delivery.payload()) {
                Some(31) => {
                    tries.fetch_add(1, Relaxed);
                    Err("the tank is on fire")
                }
                _ => Ok([passed(&delivery)]),
            }
        }
    };
    let retry = Retry::fixed(Duration::from_millis(1)).attempts(3);
    let group = same_client(&fleet).on_failure(retry);
    let run = group.transform_to(&producer, fails, std::future::pending());
    let run = within_timeout(fleet.harness.timing(), "the pipeline stops", run);
    let error = run.await.expect_err("the policy is to stop");
    assert_eq!(
        (error.kind(), tries.load(Relaxed)),
        (ErrorKind::Handler, 3),
        "{error:?}"
    );
    let seen = visible(&fleet, &sink).await;
    let checkpoints = fleet.checkpoints().await;
    let source = read(&*fleet.harness, &fleet.stream, 60).await;
    let settled = source.iter().filter(|d| {
        let of = checkpoints.iter().find(|c| c.partition == *d.partition());
        of.is_some_and(|c| c.position >= Some(d.position()))
    });
    let settled: BTreeSet<_> = settled.filter_map(|d| id_of(d.payload())).collect();
    let shown: BTreeSet<_> = seen.iter().filter_map(|d| id_of(d.payload())).collect();
    assert!(!shown.contains(&31), "the failed transform has no result");
    assert_eq!(shown, settled, "what is shown is what is checkpointed");
    assert_eq!(seen.len(), shown.len(), "each result is visible once");
    assert_eq!(
        finish(&fleet, &sink, &producer).await,
        60,
        "each result is published once"
    );
}

async fn pipeline_to_another_client_is_at_least_once(harness: Arc<dyn Harness>) {
    let (fleet, sink, producer) = source_and_sink(harness).await;
    let nothing = |_: Delivery| async move { Ok::<[Record; 0], std::io::Error>([]) };
    let group = fleet.handle().await.require(Guarantee::ExactlyOnce);
    let refused = group.transform_to(&producer, nothing, std::future::pending());
    let error = refused.await.expect_err("it cannot be exactly-once");
    assert_eq!(
        (error.kind(), error.group()),
        (ErrorKind::Unsupported, Some(fleet.group.as_str())),
        "{error:?}"
    );
    assert!(error.message().contains("another client"), "{error}");
    let (stop, stopped) = oneshot::channel();
    let pipeline = run(&fleet.handle().await, &producer, stopped);
    let control = pipeline.handle();
    let task = tokio::spawn(pipeline);
    fleet.caught_up().await;
    end(stop, task).await;
    assert_eq!(producer.stats().stored, 60, "the producer sends");
    assert_eq!(
        control.stats().published,
        0,
        "the producer of another client publishes nothing: {:?}",
        control.stats()
    );
    assert_passed_on(&fleet, &sink).await;

    let group = same_client(&fleet).require(Guarantee::ExactlyOnce);
    let (stop, stopped) = oneshot::channel();
    let pipeline = run(&group, &producer, stopped);
    let control = pipeline.handle();
    let task = tokio::spawn(pipeline);
    let mut test_producer = more(&fleet).await;
    test_producer.send(6, 1).await;
    test_producer.close().await;
    fleet
        .until("the results are published", || {
            control.stats().published == 6
        })
        .await;
    end(stop, task).await;
    assert_eq!(producer.stats().stored, 66, "what is published counts too");
}

async fn pipeline_filters_and_multiplies(harness: Arc<dyn Harness>) {
    let (fleet, sink, producer) = source_and_sink(harness).await;
    let transform = |delivery: Delivery| async move {
        let id = id_of(delivery.payload()).unwrap_or(0);
        let copy = |_| Record::new(delivery.payload().clone()).key("all");
        Ok::<_, std::io::Error>((0..id % 3).map(copy).collect::<Vec<_>>())
    };
    let (stop, stopped) = oneshot::channel::<()>();
    let group = same_client(&fleet);
    let task = tokio::spawn(group.transform_to(&producer, transform, async move {
        stopped.await.ok();
    }));
    fleet.caught_up().await;
    end(stop, task).await;
    let expected: u64 = (1..=60).map(|id| id % 3).sum();
    let got = visible(&fleet, &sink).await;
    assert_eq!(got.len() as u64, expected, "record n has n % 3 results");
    let none = |d: &Delivery| id_of(d.payload()).is_some_and(|id| id % 3 == 0);
    assert!(
        !got.iter().any(none),
        "a record with an id of 3 n has no result"
    );
    producer.close().await.expect("it closes");
}

async fn pipeline_stops_when_a_transform_keeps_failing(harness: Arc<dyn Harness>) {
    let (fleet, _, producer) = source_and_sink(harness).await;
    let fails = |_: Delivery| async move { Err::<[Record; 0], _>("the tank is on fire") };
    let group = fleet.handle().await.on_failure(Retry::none());
    let run = group.transform_to(&producer, fails, std::future::pending());
    let run = within_timeout(fleet.harness.timing(), "the pipeline stops", run);
    let error = run.await.expect_err("the policy is to stop");
    assert_eq!(error.kind(), ErrorKind::Handler, "{error:?}");
    let checkpoints = fleet.checkpoints().await;
    assert!(
        checkpoints.iter().all(|c| c.position.is_none()),
        "{checkpoints:?}"
    );
    producer
        .close()
        .await
        .expect("the caller's producer is the caller's to close");
}
