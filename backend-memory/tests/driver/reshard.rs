use millstream_core::{ErrorKind, Start};

use crate::fixture::{Fixture, partition};

async fn keys(fixture: &Fixture, round: usize) {
    let records: Vec<String> = (0..40).map(|key| format!("k{key}={key}:{round}")).collect();
    fixture
        .send(&records.iter().map(String::as_str).collect::<Vec<_>>())
        .await;
}

fn assert_order(payloads: &[String], rounds: usize) {
    for key in 0..40 {
        let prefix = format!("{key}:");
        let seen: Vec<_> = payloads
            .iter()
            .filter(|p| p.starts_with(&prefix))
            .cloned()
            .collect();
        let expected: Vec<_> = (0..rounds).map(|round| format!("{key}:{round}")).collect();
        assert_eq!(seen, expected);
    }
}

#[tokio::test(start_paused = true)]
async fn children_begin_when_their_parents_are_settled() {
    let fixture = Fixture::with_stream(2).await;
    keys(&fixture, 0).await;
    let mut member = fixture.join("a").await;
    member.settle().await;
    fixture.streams().split(&partition(0)).await.unwrap();
    keys(&fixture, 1).await;
    member.settle().await;
    assert_eq!(member.ended, [(partition(0), member.epoch(0))]);
    assert_eq!(member.partitions(), ["0", "1"]);
    member.complete().await;
    member.settle().await;
    assert_eq!(member.partitions(), ["1", "2", "3"]);

    fixture
        .streams()
        .merge(&partition(1), &partition(2))
        .await
        .unwrap();
    keys(&fixture, 2).await;
    member.settle().await;
    assert_eq!(member.ended.len(), 2);
    assert!(!member.owned.contains_key(&partition(4)));
    member.complete().await;
    member.settle().await;
    assert_eq!(member.partitions(), ["3", "4"]);
    assert_order(&member.payloads, 3);

    let described = fixture.streams().describe("s").await.unwrap();
    assert_eq!(
        described.partitions[4].parents,
        [partition(1), partition(2)]
    );
    assert_eq!(described.partitions.iter().filter(|p| p.open).count(), 2);
}

#[tokio::test(start_paused = true)]
async fn an_empty_closed_partition_ends_too() {
    let fixture = Fixture::with_stream(1).await;
    let mut member = fixture.join("a").await;
    member.settle().await;
    fixture.streams().split(&partition(0)).await.unwrap();
    member.settle().await;
    assert_eq!(member.ended.len(), 1);
    member.complete().await;
    member.settle().await;
    assert_eq!(member.partitions(), ["1", "2"]);
    assert_eq!(member.assigned[1].2, None);
}

#[tokio::test(start_paused = true)]
async fn the_next_owner_gets_the_end_again() {
    let fixture = Fixture::with_stream(1).await;
    fixture.fill(1, 3).await;
    let mut a = fixture.join("a").await;
    fixture.streams().split(&partition(0)).await.unwrap();
    a.settle().await;
    a.checkpoint_all().await;
    a.membership.leave().await.unwrap();
    let mut b = fixture.join("b").await;
    b.settle().await;
    assert!(b.payloads.is_empty());
    assert_eq!(b.ended, [(partition(0), b.epoch(0))]);
}

#[tokio::test(start_paused = true)]
async fn completing_needs_the_end_and_the_epoch() {
    let fixture = Fixture::with_stream(1).await;
    fixture.fill(1, 3).await;
    let mut member = fixture.join("a").await;
    member.settle().await;
    let epoch = member.epoch(0);
    let early = member
        .membership
        .complete(&partition(0), epoch)
        .await
        .unwrap_err();
    assert_eq!(early.kind(), ErrorKind::Invalid);
    fixture.streams().split(&partition(0)).await.unwrap();
    member.settle().await;
    let stale = millstream_core::Epoch(epoch.0 + 1);
    let stale = member
        .membership
        .complete(&partition(0), stale)
        .await
        .unwrap_err();
    assert_eq!(stale.kind(), ErrorKind::Fenced);
    member.complete().await;
    let progress = fixture.progress("g").await;
    assert!(progress[0].completed);
    assert_eq!(progress[0].lag.records, Some(0));
}

#[tokio::test(start_paused = true)]
async fn a_group_that_starts_at_the_end_skips_closed_partitions() {
    let fixture = Fixture::with_stream(1).await;
    keys(&fixture, 0).await;
    fixture.streams().split(&partition(0)).await.unwrap();
    keys(&fixture, 1).await;
    let mut member = fixture
        .join_with("g", "a", |join| join.start = Start::Latest)
        .await;
    keys(&fixture, 2).await;
    member.settle().await;
    assert_eq!(member.partitions(), ["1", "2"]);
    assert_eq!(member.payloads.len(), 40);
    assert!(
        member
            .payloads
            .iter()
            .all(|payload| payload.ends_with(":2"))
    );
}

#[tokio::test(start_paused = true)]
async fn added_partitions_are_read_from_their_first_record() {
    let fixture = Fixture::with_stream(2).await;
    let mut member = fixture
        .join_with("g", "a", |join| join.start = Start::Latest)
        .await;
    member.settle().await;
    fixture.streams().add_partitions("s", 5).await.unwrap();
    fixture.fill(5, 4).await;
    member.settle().await;
    assert_eq!(member.owned.len(), 5);
    assert_eq!(member.payloads.len(), 20);
}

#[tokio::test(start_paused = true)]
async fn impossible_reshards_are_refused() {
    let fixture = Fixture::with_stream(2).await;
    let streams = fixture.streams();
    let kind = |result: millstream_core::Result<()>| result.unwrap_err().kind();
    assert_eq!(
        kind(streams.split(&partition(9)).await),
        ErrorKind::NotFound
    );
    assert_eq!(
        kind(streams.merge(&partition(0), &partition(0)).await),
        ErrorKind::Invalid
    );
    assert_eq!(
        kind(streams.add_partitions("s", 2).await),
        ErrorKind::Invalid
    );
    assert_eq!(
        kind(streams.add_partitions("none", 2).await),
        ErrorKind::NotFound
    );
    streams.split(&partition(0)).await.unwrap();
    assert_eq!(kind(streams.split(&partition(0)).await), ErrorKind::Invalid);
    assert_eq!(
        kind(streams.merge(&partition(0), &partition(1)).await),
        ErrorKind::Invalid
    );
    assert_eq!(
        kind(streams.add_partitions("s", 9).await),
        ErrorKind::Invalid
    );
    assert_eq!(kind(streams.delete("none").await), ErrorKind::NotFound);
    let again = streams.create(&millstream_core::StreamSpec::new("s")).await;
    assert_eq!(kind(again), ErrorKind::AlreadyExists);
}
