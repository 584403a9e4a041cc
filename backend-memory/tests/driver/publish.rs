//! Records and progress in one step.

use std::time::Duration;

use millstream_core::driver::{Backend, CheckpointUpdate};
use millstream_core::{Epoch, ErrorKind, Position, Record, Result};

use crate::fixture::{Fixture, Member, SESSION, partition, record};

/// A group that reads `s`, and a stream `r` for its results.
async fn fixture(partitions: usize) -> Fixture {
    let fixture = Fixture::with_stream(partitions).await;
    assert!(fixture.memory.guarantees().exactly_once);
    fixture.create("r", 2).await;
    fixture
}

fn update(id: u32, epoch: Epoch, position: u64) -> CheckpointUpdate {
    CheckpointUpdate {
        partition: partition(id),
        epoch,
        position: Position::from(position),
    }
}

async fn publish(member: &Member, records: &[&str], updates: &[CheckpointUpdate]) -> Result<()> {
    let records: Vec<Record> = records.iter().map(|text| record(text)).collect();
    member.membership.publish("r", &records, updates).await
}

fn kind(result: Result<()>) -> ErrorKind {
    result.unwrap_err().kind()
}

/// Returns all results, sorted.
async fn results(fixture: &Fixture, reader: &str) -> Vec<String> {
    let mut reader = fixture
        .join_with(reader, reader, |join| join.streams = vec!["r".into()])
        .await;
    reader.settle().await;
    reader.payloads.sort();
    reader.payloads
}

async fn progress(fixture: &Fixture) -> Vec<Option<u64>> {
    let read = fixture.progress("g").await;
    let offset = |position: Option<Position>| position.and_then(|position| position.offset());
    read.into_iter().map(|c| offset(c.position)).collect()
}

#[tokio::test(start_paused = true)]
async fn records_and_progress_are_stored_together() {
    let fixture = fixture(2).await;
    fixture.fill(2, 3).await;
    let mut reader = fixture
        .join_with("reader", "r", |join| join.streams = vec!["r".into()])
        .await;
    reader.settle().await;
    let mut member = fixture.join("a").await;
    member.settle().await;
    let updates = [update(0, member.epoch(0), 1), update(1, member.epoch(1), 2)];
    publish(&member, &["k=1", "k=2", "l=3"], &updates)
        .await
        .unwrap();
    assert_eq!(progress(&fixture).await, [Some(1), Some(2)]);
    reader.settle().await;
    let mut of_k: Vec<&str> = reader.payloads.iter().map(String::as_str).collect();
    of_k.retain(|payload| *payload != "3");
    assert_eq!((of_k, reader.payloads.len()), (vec!["1", "2"], 3));

    publish(&member, &[], &[update(0, member.epoch(0), 2)])
        .await
        .unwrap();
    assert_eq!(progress(&fixture).await, [Some(2), Some(2)]);
}

#[tokio::test(start_paused = true)]
async fn a_stale_epoch_stores_nothing() {
    let fixture = fixture(1).await;
    fixture.fill(1, 3).await;
    let mut member = fixture.join("a").await;
    member.settle().await;
    let stale = update(0, member.epoch(0), 2);
    fixture.memory.faults().steal("g", &partition(0)).unwrap();
    assert_eq!(
        kind(publish(&member, &["k=1"], &[stale]).await),
        ErrorKind::Fenced
    );
    assert_eq!(progress(&fixture).await, [None]);
    assert!(results(&fixture, "reader").await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_publish_with_one_lost_partition_is_retryable() {
    let fixture = fixture(2).await;
    fixture.fill(2, 3).await;
    let mut member = fixture.join("a").await;
    member.settle().await;
    let updates = [update(0, member.epoch(0), 2), update(1, member.epoch(1), 2)];
    fixture.memory.faults().steal("g", &partition(0)).unwrap();
    let error = publish(&member, &["k=1"], &updates).await.unwrap_err();
    assert!(error.is_retryable(), "{error:?}");
    assert_eq!(progress(&fixture).await, [None, None]);
    member.settle().await;
    assert_eq!(member.lost, [(partition(0), updates[0].epoch)]);
    publish(&member, &["k=2"], &updates[1..]).await.unwrap();
    assert_eq!(progress(&fixture).await, [None, Some(2)]);
    assert_eq!(results(&fixture, "reader").await, ["2"]);
}

#[tokio::test(start_paused = true)]
async fn a_paused_member_is_fenced_when_it_returns() {
    let fixture = fixture(1).await;
    fixture.fill(1, 3).await;
    let mut member = fixture.join("a").await;
    member.settle().await;
    let stale = update(0, member.epoch(0), 2);
    fixture
        .memory
        .faults()
        .pause(&millstream_memory::Target::named("a"), 3 * SESSION)
        .unwrap();
    let mut successor = fixture.join("b").await;
    let zombie = tokio::spawn(async move { publish(&member, &["k=1"], &[stale]).await });
    tokio::time::sleep(2 * SESSION).await;
    successor.settle().await;
    assert_eq!(successor.partitions(), ["0"]);
    assert_eq!(kind(zombie.await.unwrap()), ErrorKind::Fenced);
    assert!(results(&fixture, "reader").await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn refused_records_store_nothing() {
    let fixture = fixture(1).await;
    fixture.fill(1, 3).await;
    let mut member = fixture.join("a").await;
    member.settle().await;
    let updates = [update(0, member.epoch(0), 2)];
    let large = "x".repeat(2 << 20);
    let refused = publish(&member, &["k=1", &large], &updates).await;
    assert_eq!(kind(refused), ErrorKind::TooLarge);
    let records = [record("k=1")];
    let unknown = member.membership.publish("no", &records, &updates).await;
    assert_eq!(kind(unknown), ErrorKind::NotFound);
    let beyond = publish(&member, &["k=1"], &[update(0, member.epoch(0), 3)]).await;
    // `Invalid` would blame a record.
    assert_eq!(kind(beyond), ErrorKind::NotFound);
    assert_eq!(progress(&fixture).await, [None]);
    assert!(results(&fixture, "reader").await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_rate_limit_takes_all_or_nothing() {
    let fixture = Fixture::with(|config| config.limits.records_per_second = Some(2));
    fixture.create("s", 1).await;
    fixture.create("r", 2).await;
    fixture.fill(1, 2).await;
    let mut member = fixture.join("a").await;
    member.settle().await;
    let updates = [update(0, member.epoch(0), 1)];
    publish(&member, &["k=1", "k=2"], &[update(0, member.epoch(0), 0)])
        .await
        .unwrap();
    let many = ["k=3", "k=4", "k=5", "k=6", "k=7"];
    let refused = publish(&member, &many, &updates).await;
    assert_eq!(kind(refused), ErrorKind::Throttled);
    assert_eq!(progress(&fixture).await, [Some(0)]);
    assert_eq!(results(&fixture, "one").await, ["1", "2"]);
    tokio::time::sleep(Duration::from_secs(1)).await;
    publish(&member, &many, &updates).await.unwrap();
    assert_eq!(results(&fixture, "two").await.len(), 7);
}

#[tokio::test(start_paused = true)]
async fn faults_refuse_or_delay_a_publish_as_a_whole() {
    let fixture = fixture(1).await;
    fixture.fill(1, 9).await;
    let mut member = fixture.join("a").await;
    member.settle().await;
    let faults = fixture.memory.faults();
    let step = async |position| {
        let updates = [update(0, member.epoch(0), position)];
        let payload = position.to_string();
        publish(&member, &[&format!("k={payload}"), &payload], &updates).await
    };
    faults.fail_sends(1, ErrorKind::Unavailable);
    assert_eq!(kind(step(0).await), ErrorKind::Unavailable);
    faults.lose_checkpoints(1);
    assert_eq!(kind(step(0).await), ErrorKind::Unavailable);
    assert_eq!(progress(&fixture).await, [None]);
    // The member finds out that it was stored.
    faults.time_out_sends(1);
    step(0).await.unwrap();
    faults.lose_checkpoint_responses(1);
    step(1).await.unwrap();
    faults.delay_sends(1, Duration::from_secs(2));
    let dropped = tokio::time::timeout(Duration::from_secs(1), step(2)).await;
    assert!(dropped.is_err());
    tokio::time::sleep(Duration::from_secs(9)).await;
    assert_eq!(progress(&fixture).await, [Some(1)], "dropped, not stored");
    faults.delay_sends(1, Duration::from_secs(2));
    step(2).await.unwrap();
    assert_eq!(progress(&fixture).await, [Some(2)]);
    assert_eq!(
        results(&fixture, "reader").await,
        ["0", "0", "1", "1", "2", "2"]
    );
}
