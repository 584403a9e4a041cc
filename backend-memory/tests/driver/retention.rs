use std::time::Duration;

use millstream_core::{ErrorKind, Position};

use crate::fixture::{Fixture, partition};

#[tokio::test(start_paused = true)]
async fn trimmed_records_are_reported() {
    let fixture = Fixture::with(|config| config.retention.age = Some(Duration::from_secs(60)));
    fixture.create("s", 1).await;
    let mut member = fixture.join("a").await;
    fixture.send(&["k=1", "k=2"]).await;
    member.settle().await;
    member.membership.pause(&partition(0), member.epoch(0));
    fixture.send(&["k=3", "k=4"]).await;
    tokio::time::advance(Duration::from_secs(61)).await;
    fixture.send(&["k=5"]).await;
    member.membership.resume(&partition(0), member.epoch(0));
    member.settle().await;
    assert_eq!(member.payloads, ["1", "2", "5"]);
    assert_eq!(
        member.data_loss,
        [(Some(Position::from(1)), Position::from(4))]
    );
    let described = fixture.streams().describe("s").await.unwrap();
    assert_eq!(described.partitions[0].earliest, Some(Position::from(4)));
}

#[tokio::test(start_paused = true)]
async fn records_trimmed_before_the_first_read_are_reported() {
    let fixture = Fixture::with(|config| config.retention.bytes = Some(10));
    fixture.create("s", 1).await;
    let mut member = fixture.join("a").await;
    fixture.fill(1, 30).await;
    member.settle().await;
    assert_eq!(member.data_loss, [(None, Position::from(25))]);
    assert_eq!(member.payloads, ["25", "26", "27", "28", "29"]);
}

#[tokio::test(start_paused = true)]
async fn a_new_group_starts_at_the_oldest_record() {
    let fixture = Fixture::with(|config| config.retention.bytes = Some(10));
    fixture.create("s", 1).await;
    fixture.fill(1, 30).await;
    let mut member = fixture.join("a").await;
    member.settle().await;
    assert!(member.data_loss.is_empty());
    assert_eq!(member.payloads.len(), 5);
}

#[tokio::test(start_paused = true)]
async fn a_trimmed_closed_partition_ends() {
    let fixture = Fixture::with(|config| config.retention.age = Some(Duration::from_secs(60)));
    fixture.create("s", 1).await;
    let mut member = fixture.join("a").await;
    member.settle().await;
    member.membership.pause(&partition(0), member.epoch(0));
    fixture.fill(1, 3).await;
    fixture.streams().split(&partition(0)).await.unwrap();
    tokio::time::advance(Duration::from_secs(61)).await;
    member.membership.resume(&partition(0), member.epoch(0));
    member.settle().await;
    assert_eq!(member.data_loss, [(None, Position::from(3))]);
    assert_eq!(member.ended.len(), 1);
    member.complete().await;
    member.settle().await;
    assert_eq!(member.partitions(), ["1", "2"]);
    assert_eq!(
        fixture
            .streams()
            .describe("s")
            .await
            .unwrap()
            .partitions
            .len(),
        2
    );
}

#[tokio::test(start_paused = true)]
async fn a_checkpoint_beyond_the_stream_is_refused() {
    let fixture = Fixture::with_stream(1).await;
    let mut member = fixture.join("a").await;
    member.settle().await;
    assert_eq!(
        member.checkpoint(0, member.epoch(0), 0).await,
        Err(ErrorKind::NotFound)
    );
}
