//! Chains: consume, transform, publish, with records before checkpoint and each key in its order.

use std::sync::Arc;
use std::time::Duration;

use millstream::{ConsumerGroup, Delivery, ErrorKind, Producer, Record, Retry, Run};
use tokio::sync::oneshot;

use super::cases;
use super::reader::{ids_by_key, read};
use crate::fleet::Fleet;
use crate::harness::unique_stream;
use crate::history::id_of;
use crate::{Fault, Harness, eventually};

cases! {
    chain_keeps_order_and_loses_nothing,
    chain_publishes_before_it_checkpoints [FAIL_SENDS],
    chain_survives_a_crash,
    chain_publishes_each_result_once_through_a_crash [EXACTLY_ONCE],
    chain_filters_and_multiplies,
    chain_stops_when_a_transform_fails_for_good,
}

/// Passes each record on to `to`, with its key.
fn run(group: &ConsumerGroup, to: &Producer, stop: oneshot::Receiver<()>) -> Run {
    let pass_on = |delivery: Delivery| async move {
        Ok::<_, std::io::Error>([delivery.to_record().header("passed", "on")])
    };
    group.run_to(to, pass_on, async move {
        stop.await.ok();
    })
}

/// A source with 60 records of 6 keys, and an empty stream with a producer to it.
async fn source_and_sink(harness: Arc<dyn Harness>) -> (Fleet, String, Producer) {
    let fleet = Fleet::new(harness, 3).await;
    fleet.send(6, 10).await;
    let sink = unique_stream(&*fleet.harness, 2).await;
    let producer = fleet.client.producer(sink.as_str()).open().await;
    (fleet, sink, producer.expect("the producer opens"))
}

/// The first occurrences in the sink are all of the source, each key in its order.
async fn assert_passed_on(fleet: &Fleet, sink: &str) -> usize {
    let described = fleet
        .client
        .streams()
        .describe(sink)
        .await
        .expect("the sink is described");
    let offset = |at: Option<millstream::Position>| at.and_then(|at| at.offset());
    let count = described
        .partitions
        .iter()
        .map(|p| match (offset(p.earliest), offset(p.latest)) {
            (Some(first), Some(last)) => (last - first + 1) as usize,
            _ => 0,
        });
    let count = count.sum();
    let got = read(&*fleet.harness, sink, count).await;
    assert!(got.iter().all(|d| d.headers().get("passed").is_some()));
    let mut firsts = ids_by_key(&got);
    for ids in firsts.values_mut() {
        let mut seen = std::collections::BTreeSet::new();
        ids.retain(|id| seen.insert(*id));
    }
    let source = ids_by_key(&read(&*fleet.harness, &fleet.stream, 60).await);
    assert_eq!(firsts, source);
    count
}

async fn end(stop: oneshot::Sender<()>, task: tokio::task::JoinHandle<millstream::Result<()>>) {
    stop.send(()).expect("the chain runs");
    task.await.expect("no panic").expect("the chain closes");
}

async fn chain_keeps_order_and_loses_nothing(harness: Arc<dyn Harness>) {
    let (fleet, sink, producer) = source_and_sink(harness).await;
    let (stop, stopped) = oneshot::channel();
    let task = tokio::spawn(run(&fleet.handle().await, &producer, stopped));
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

async fn chain_publishes_before_it_checkpoints(harness: Arc<dyn Harness>) {
    let (fleet, sink, producer) = source_and_sink(harness).await;
    let fault = Fault::FailSends {
        stream: sink.clone(),
        key: Some("key-2".into()),
        times: 8,
    };
    fleet.disturb(fault).await;
    let group = fleet
        .handle()
        .await
        .checkpoint_interval(Duration::from_millis(1));
    let (stop, stopped) = oneshot::channel();
    let task = tokio::spawn(run(&group, &producer, stopped));
    let source = read(&*fleet.harness, &fleet.stream, 60).await;
    eventually(
        fleet.harness.timing(),
        "the progress is at the end",
        || async {
            let checkpoints = match fleet.client.group(fleet.group.as_str()).checkpoints().await {
                Ok(checkpoints) => checkpoints,
                Err(error) if error.kind() == ErrorKind::NotFound => return None,
                Err(error) => panic!("{error:?}"),
            };
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
        },
    )
    .await;
    end(stop, task).await;
    assert_passed_on(&fleet, &sink).await;
}

async fn chain_survives_a_crash(harness: Arc<dyn Harness>) {
    crash_and_go_on(harness).await;
}

async fn chain_publishes_each_result_once_through_a_crash(harness: Arc<dyn Harness>) {
    assert_eq!(crash_and_go_on(harness).await, 60);
}

/// Tells how many records are in the sink at the end.
async fn crash_and_go_on(harness: Arc<dyn Harness>) -> usize {
    let (fleet, sink, producer) = source_and_sink(harness).await;
    let never = Duration::from_secs(24 * 60 * 60);
    let group = fleet.handle().await.checkpoint_interval(never).window(12);
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
    assert_passed_on(&fleet, &sink).await
}

async fn chain_filters_and_multiplies(harness: Arc<dyn Harness>) {
    let (fleet, sink, producer) = source_and_sink(harness).await;
    let transform = |delivery: Delivery| async move {
        let id = id_of(delivery.payload()).unwrap_or(0);
        let copy = |_| Record::new(delivery.payload().clone()).key("all");
        Ok::<_, std::io::Error>((0..id % 3).map(copy).collect::<Vec<_>>())
    };
    let (stop, stopped) = oneshot::channel::<()>();
    let group = fleet.handle().await;
    let task = tokio::spawn(group.run_to(&producer, transform, async move {
        stopped.await.ok();
    }));
    fleet.caught_up().await;
    end(stop, task).await;
    let expected: u64 = (1..=60).map(|id| id % 3).sum();
    assert_eq!(producer.stats().stored, expected);
    let got = read(&*fleet.harness, &sink, expected as usize).await;
    let none = |d: &Delivery| id_of(d.payload()).is_some_and(|id| id % 3 == 0);
    assert!(!got.iter().any(none));
    producer.close().await.expect("it closes");
}

async fn chain_stops_when_a_transform_fails_for_good(harness: Arc<dyn Harness>) {
    let (fleet, _, producer) = source_and_sink(harness).await;
    let fails = |_: Delivery| async move { Err::<[Record; 0], _>("the tank is on fire") };
    let group = fleet.handle().await.on_failure(Retry::none());
    let run = group.run_to(&producer, fails, std::future::pending());
    let error = run.await.expect_err("the policy is to stop");
    assert_eq!(error.kind(), ErrorKind::Handler);
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
