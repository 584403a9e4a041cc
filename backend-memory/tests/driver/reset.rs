use std::time::Duration;

use millstream_core::{ErrorKind, Start};

use crate::fixture::{DRAIN, Fixture, partition};

#[tokio::test(start_paused = true)]
async fn a_running_group_drains_and_reads_again() {
    let fixture = Fixture::with_stream(2).await;
    fixture.fill(2, 5).await;
    let mut member = fixture.join("a").await;
    member.settle().await;
    member.checkpoint_all().await;
    let old = member.epoch(0);
    let checkpoints = fixture.checkpoints("g");
    let reset = tokio::spawn(async move { checkpoints.reset("s", Start::Earliest).await });
    member.settle().await;
    assert_eq!(member.revoking.len(), 2);
    assert!(!reset.is_finished());
    member.release_all().await;
    reset.await.unwrap().unwrap();
    member.settle().await;
    assert_eq!(member.payloads.len(), 20);
    assert!(member.epoch(0) > old);
}

#[tokio::test(start_paused = true)]
async fn a_group_without_members_is_moved_at_once() {
    let fixture = Fixture::with_stream(1).await;
    fixture.send(&["k=1"]).await;
    let member = fixture.join("a").await;
    member.membership.leave().await.unwrap();
    tokio::time::advance(Duration::from_secs(10)).await;
    fixture.send(&["k=2", "k=3"]).await;
    let at = std::time::UNIX_EPOCH + Duration::from_secs(1_000_001);
    fixture
        .checkpoints("g")
        .reset("s", Start::At(at))
        .await
        .unwrap();
    assert_eq!(fixture.progress("g").await[0].lag.records, Some(2));
    fixture
        .checkpoints("g")
        .reset("s", Start::Latest)
        .await
        .unwrap();
    assert_eq!(fixture.progress("g").await[0].lag.records, Some(0));
    fixture.send(&["k=4"]).await;
    let mut member = fixture.join("b").await;
    member.settle().await;
    assert_eq!(member.payloads, ["4"]);
}

#[tokio::test(start_paused = true)]
async fn a_late_drain_does_not_delay_a_reset() {
    let fixture = Fixture::with_stream(1).await;
    fixture.fill(1, 3).await;
    let mut member = fixture.join("a").await;
    member.settle().await;
    let old = member.epoch(0);
    let started = tokio::time::Instant::now();
    fixture
        .checkpoints("g")
        .reset("s", Start::Earliest)
        .await
        .unwrap();
    assert_eq!(started.elapsed(), DRAIN);
    assert_eq!(member.checkpoint(0, old, 2).await, Err(ErrorKind::Fenced));
    member.settle().await;
    assert_eq!(member.payloads.len(), 6);
}

#[tokio::test(start_paused = true)]
async fn a_dropped_reset_still_ends() {
    let fixture = Fixture::with_stream(1).await;
    fixture.fill(1, 3).await;
    let mut member = fixture.join("a").await;
    member.settle().await;
    let checkpoints = fixture.checkpoints("g");
    let dropped = tokio::time::timeout(Duration::ZERO, checkpoints.reset("s", Start::Earliest));
    assert!(dropped.await.is_err());
    member.settle().await;
    member.release_all().await;
    member.settle().await;
    assert_eq!(member.payloads.len(), 6);
}

#[tokio::test(start_paused = true)]
async fn a_replay_across_a_reshard_reads_parents_first() {
    let fixture = Fixture::with_stream(1).await;
    fixture.send(&["k=1"]).await;
    fixture.streams().split(&partition(0)).await.unwrap();
    fixture.send(&["k=2"]).await;
    let mut member = fixture.join("a").await;
    member.settle().await;
    member.complete().await;
    member.settle().await;
    assert_eq!(member.payloads, ["1", "2"]);
    let checkpoints = fixture.checkpoints("g");
    let reset = tokio::spawn(async move { checkpoints.reset("s", Start::Earliest).await });
    member.settle().await;
    member.release_all().await;
    reset.await.unwrap().unwrap();
    member.settle().await;
    assert_eq!(member.partitions(), ["0"]);
    assert_eq!(member.payloads, ["1", "2", "1"]);
    member.complete().await;
    member.settle().await;
    assert_eq!(member.payloads, ["1", "2", "1", "2"]);
}

#[tokio::test(start_paused = true)]
async fn unknown_groups_and_streams_are_not_found() {
    let fixture = Fixture::with_stream(1).await;
    let error = fixture
        .checkpoints("g")
        .reset("s", Start::Latest)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    let _member = fixture.join("a").await;
    let error = fixture
        .checkpoints("g")
        .reset("t", Start::Latest)
        .await
        .unwrap_err();
    assert_eq!(
        (error.kind(), error.stream()),
        (ErrorKind::NotFound, Some("t"))
    );
}

#[tokio::test(start_paused = true)]
async fn a_reset_of_a_stream_that_is_deleted_meanwhile_ends() {
    let fixture = Fixture::with_stream(1).await;
    let mut member = fixture.join("a").await;
    member.settle().await;
    let checkpoints = fixture.checkpoints("g");
    let reset = tokio::spawn(async move { checkpoints.reset("s", Start::Earliest).await });
    tokio::task::yield_now().await;
    fixture.streams().delete("s").await.unwrap();
    assert_eq!(
        reset.await.unwrap().unwrap_err().kind(),
        ErrorKind::NotFound
    );
}
