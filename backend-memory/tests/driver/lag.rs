//! The lag of partitions that are not read.

use std::time::Duration;

use millstream_core::Lag;

use crate::fixture::{DRAIN, Fixture, partition};

const SECOND: Duration = Duration::from_secs(1);

fn lag(records: u64, time: Duration) -> Lag {
    Lag {
        records: Some(records),
        time: Some(time),
    }
}

#[tokio::test(start_paused = true)]
async fn a_paused_partition_reports_what_is_stored_and_its_age() {
    let fixture = Fixture::with_stream(1).await;
    fixture.fill(1, 100).await;
    let mut member = fixture.join("a").await;
    member.settle().await;
    member.membership.pause(&partition(0), member.epoch(0));
    fixture.fill(1, 1_000).await;
    // The waiting call returns by itself.
    let started = tokio::time::Instant::now();
    while member.lags.len() < 3 && started.elapsed() < SECOND * 9 {
        member.step().await.unwrap();
    }
    assert!(started.elapsed() >= SECOND * 3, "at most one a second");
    assert!(started.elapsed() < SECOND * 4);
    let expected = [1, 2, 3].map(|age| (partition(0), lag(1_000, SECOND * age)));
    assert_eq!(member.lags, expected);
    assert_eq!(member.payloads.len(), 100);

    member.membership.resume(&partition(0), member.epoch(0));
    member.lags.clear();
    member.settle().await;
    assert_eq!(member.payloads.len(), 1_100);
    tokio::time::sleep(SECOND * 5).await;
    member.settle().await;
    assert!(member.lags.is_empty(), "records carry their lag");
}

#[tokio::test(start_paused = true)]
async fn a_partition_without_records_reports_once_that_nothing_is_left() {
    let fixture = Fixture::with_stream(2).await;
    let mut member = fixture.join("a").await;
    member.settle().await;
    let expected = [0, 1].map(|id| (partition(id), lag(0, Duration::ZERO)));
    assert_eq!(member.lags, expected);
    tokio::time::sleep(SECOND * 5).await;
    member.settle().await;
    assert_eq!(member.lags, expected, "nothing has changed");
    fixture.fill(2, 1).await;
    member.settle().await;
    assert_eq!(member.payloads.len(), 2, "it still waits for records");
}

#[tokio::test(start_paused = true)]
async fn a_quiet_paused_partition_reports_nothing() {
    let fixture = Fixture::with_stream(2).await;
    fixture.fill(2, 3).await;
    let mut member = fixture.join("a").await;
    member.settle().await;
    member.membership.pause(&partition(0), member.epoch(0));
    member.membership.pause(&partition(1), member.epoch(1));
    tokio::time::sleep(SECOND * 5).await;
    member.settle().await;
    assert!(member.lags.is_empty(), "{:?}", member.lags);
    fixture.fill(1, 1).await;
    tokio::time::sleep(SECOND).await;
    member.settle().await;
    let [(partition, lag)] = &member.lags[..] else {
        panic!("one partition has a record: {:?}", member.lags);
    };
    assert_eq!(partition.id(), "1");
    assert_eq!(lag.records, Some(1));
}

#[tokio::test(start_paused = true)]
async fn retention_ends_a_reported_lag() {
    let fixture = Fixture::with(|config| config.retention.age = Some(SECOND * 10));
    fixture.create("s", 1).await;
    let mut member = fixture.join("a").await;
    member.settle().await;
    member.lags.clear();
    member.membership.pause(&partition(0), member.epoch(0));
    fixture.fill(1, 5).await;
    let started = tokio::time::Instant::now();
    let is_over = |lags: &[(_, Lag)]| lags.last().is_some_and(|(_, lag)| lag.records == Some(0));
    while !is_over(&member.lags) && started.elapsed() < SECOND * 20 {
        member.step().await.unwrap();
    }
    assert_eq!(member.lags.last().unwrap().1, lag(0, Duration::ZERO));
    let reports = member.lags.len();
    tokio::time::sleep(SECOND * 5).await;
    member.settle().await;
    assert_eq!(member.lags.len(), reports);
}

#[tokio::test(start_paused = true)]
async fn a_revoked_partition_reports_no_lag() {
    let fixture = Fixture::with_stream(1).await;
    let mut a = fixture.join("a").await;
    a.settle().await;
    a.lags.clear();
    a.membership.pause(&partition(0), a.epoch(0));
    fixture.fill(1, 5).await;
    let checkpoints = fixture.checkpoints("g");
    let reset = tokio::spawn(async move {
        let start = millstream_core::Start::Earliest;
        checkpoints.reset("s", start).await
    });
    a.settle().await;
    assert_eq!(a.revoking.len(), 1);
    tokio::time::sleep(DRAIN / 2).await;
    a.settle().await;
    assert!(a.lags.is_empty());
    a.release_all().await;
    reset.await.unwrap().unwrap();
    a.settle().await;
    assert_eq!(a.payloads.len(), 5);
}

#[tokio::test(start_paused = true)]
async fn a_consumer_with_a_stuck_handler_shows_a_growing_lag() {
    let fixture = Fixture::with_stream(1).await;
    let group = fixture
        .memory
        .client()
        .group("g")
        .stream("s")
        .max_unsettled_per_partition(50)
        .max_poll_records(50);
    let stuck = |_| std::future::pending::<Result<(), std::io::Error>>();
    let run = group.run(stuck, std::future::pending());
    let handle = run.handle();
    let run = tokio::spawn(run);
    fixture.fill(1, 100).await;
    let lags = async |expected: Lag| {
        let started = tokio::time::Instant::now();
        loop {
            let partitions = handle.partitions();
            let lag = partitions.get(&partition(0)).map(|stats| stats.lag);
            if lag.is_some_and(|lag| lag.records == expected.records && lag.time >= expected.time) {
                return;
            }
            assert!(
                started.elapsed() < SECOND * 60,
                "{lag:?} is not {expected:?}"
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    lags(lag(50, SECOND)).await;
    fixture.fill(1, 1_000).await;
    lags(lag(1_050, SECOND * 2)).await;
    lags(lag(1_050, SECOND * 30)).await;
    run.abort();
}

#[tokio::test(start_paused = true)]
async fn a_stuck_key_is_counted_by_behind_and_ages_with_default_options() {
    let fixture = Fixture::with_stream(1).await;
    let group = fixture.memory.client().group("g").stream("s");
    let stuck = |_| std::future::pending::<Result<(), std::io::Error>>();
    let run = group.run(stuck, std::future::pending());
    let handle = run.handle();
    let run = tokio::spawn(run);
    let begun = tokio::time::Instant::now();
    let send = async |count: usize| fixture.send(&vec!["a=x"; count]).await;
    let until = async |behind: u64, age: Duration| {
        loop {
            let stats = handle.partitions().remove(&partition(0));
            let oldest = stats
                .as_ref()
                .and_then(|stats| stats.oldest_unsettled.clone());
            let seen = stats.as_ref().and_then(|stats| stats.behind());
            let seen_age = oldest.as_ref().and_then(|oldest| oldest.age());
            if seen == Some(behind) && seen_age.is_some_and(|seen| seen >= age) {
                return (stats.unwrap(), oldest.unwrap());
            }
            assert!(begun.elapsed() < SECOND * 120, "{seen:?}, {seen_age:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    send(100).await;
    let (_, first) = until(100, SECOND).await;
    send(1_000).await;
    let (stats, oldest) = until(1_100, SECOND * 60).await;
    assert_eq!(oldest.position, first.position, "the same record is stuck");
    // All were received, so the lag alone would hide it.
    assert_eq!(
        (stats.unsettled, stats.lag),
        (1_100, lag(0, Duration::ZERO))
    );
    run.abort();
}
