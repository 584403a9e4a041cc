use std::time::Duration;

use millstream_core::{Epoch, ErrorKind, Position, Start};

use crate::fixture::{DRAIN, Fixture, partition};

#[tokio::test(start_paused = true)]
async fn a_second_member_takes_its_share_after_a_drain() {
    let fixture = Fixture::with_stream(4).await;
    fixture.fill(4, 10).await;
    let mut a = fixture.join("a").await;
    a.settle().await;
    assert_eq!(a.owned.len(), 4);

    let mut b = fixture.join("b").await;
    b.settle().await;
    assert!(b.owned.is_empty(), "nothing moves before it is drained");
    a.settle().await;
    assert_eq!(a.revoking.len(), 2);
    let moved = a.revoking.clone();
    a.release_all().await;
    b.settle().await;
    assert_eq!(
        b.partitions(),
        moved
            .iter()
            .map(|(p, _)| p.id().to_owned())
            .collect::<Vec<_>>()
    );
    for (partition, epoch) in moved {
        assert!(b.owned[&partition] > epoch);
    }
    assert!(b.payloads.is_empty(), "a clean handover repeats nothing");
    assert!(
        b.assigned
            .iter()
            .all(|(_, _, after)| *after == Some(Position::from(9)))
    );
    assert!(a.lost.is_empty());
}

#[tokio::test(start_paused = true)]
async fn no_record_comes_after_revoking() {
    let fixture = Fixture::with_stream(2).await;
    let mut a = fixture.join("a").await;
    a.settle().await;
    let _b = fixture.join("b").await;
    fixture.fill(2, 10).await;
    a.settle().await;
    let revoked = a.revoking[0].0.clone();
    assert!(!a.records.contains_key(&revoked));
    assert_eq!(a.payloads.len(), 10);
}

#[tokio::test(start_paused = true)]
async fn a_late_drain_is_fenced() {
    let fixture = Fixture::with_stream(2).await;
    fixture.fill(2, 10).await;
    let mut a = fixture.join("a").await;
    a.settle().await;
    let mut b = fixture.join("b").await;
    a.settle().await;
    let (revoked, epoch) = a.revoking[0].clone();
    tokio::time::advance(DRAIN).await;
    b.settle().await;
    assert_eq!(
        b.payloads.len(),
        10,
        "the partition goes on from the last checkpoint"
    );
    a.settle().await;
    assert_eq!(a.lost, [(revoked.clone(), epoch)]);
    let id = revoked.id().parse().unwrap();
    assert_eq!(a.checkpoint(id, epoch, 5).await, Err(ErrorKind::Fenced));
    let released = a.membership.release(&revoked, epoch).await;
    assert_eq!(released.unwrap_err().kind(), ErrorKind::Fenced);
    assert_eq!(b.checkpoint(id, b.epoch(id), 9).await, Ok(()));
}

#[tokio::test(start_paused = true)]
async fn leaving_releases_everything_at_once() {
    let fixture = Fixture::with_stream(4).await;
    let mut a = fixture.join("a").await;
    a.settle().await;
    let mut b = fixture.join("b").await;
    a.settle().await;
    a.release_all().await;
    b.settle().await;
    a.membership.leave().await.unwrap();
    b.settle().await;
    assert_eq!(b.owned.len(), 4);
    let error = a.membership.next().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Closed);
}

#[tokio::test(start_paused = true)]
async fn more_members_than_partitions_wait() {
    let fixture = Fixture::with_stream(1).await;
    let mut a = fixture.join("a").await;
    a.settle().await;
    let mut b = fixture.join("b").await;
    b.settle().await;
    a.settle().await;
    assert!(b.owned.is_empty() && a.revoking.is_empty());
    a.membership.leave().await.unwrap();
    b.settle().await;
    assert_eq!(b.partitions(), ["0"]);
}

#[tokio::test(start_paused = true)]
async fn members_of_different_streams_share_a_group() {
    let fixture = Fixture::with_stream(2).await;
    fixture.create("t", 2).await;
    let mut a = fixture.join("a").await;
    let mut b = fixture
        .join_with("g", "b", |join| join.streams = vec!["t".into()])
        .await;
    a.settle().await;
    b.settle().await;
    assert!(a.owned.keys().all(|partition| partition.stream() == "s"));
    assert!(b.owned.keys().all(|partition| partition.stream() == "t"));
    assert_eq!((a.owned.len(), b.owned.len()), (2, 2));
}

#[tokio::test(start_paused = true)]
async fn groups_are_independent() {
    let fixture = Fixture::with_stream(1).await;
    fixture.fill(1, 10).await;
    let mut a = fixture.join_with("g1", "a", |_| {}).await;
    let mut b = fixture.join_with("g2", "b", |_| {}).await;
    a.settle().await;
    a.checkpoint_all().await;
    b.settle().await;
    assert_eq!((a.payloads.len(), b.payloads.len()), (10, 10));
    assert_eq!(fixture.progress("g1").await[0].lag.records, Some(0));
    assert_eq!(fixture.progress("g2").await[0].lag.records, Some(10));
}

#[tokio::test(start_paused = true)]
async fn latest_is_pinned_at_the_first_join() {
    let fixture = Fixture::with_stream(1).await;
    fixture.send(&["k=old"]).await;
    let first = fixture
        .join_with("g", "a", |join| join.start = Start::Latest)
        .await;
    fixture.send(&["k=new"]).await;
    drop(first);
    tokio::time::advance(Duration::from_secs(60)).await;
    fixture.send(&["k=newer"]).await;
    let mut second = fixture
        .join_with("g", "b", |join| join.start = Start::Latest)
        .await;
    second.settle().await;
    assert_eq!(second.payloads, ["new", "newer"]);
}

#[tokio::test(start_paused = true)]
async fn a_time_is_pinned_too() {
    let fixture = Fixture::with_stream(1).await;
    fixture.send(&["k=old"]).await;
    tokio::time::advance(Duration::from_secs(10)).await;
    fixture.send(&["k=new"]).await;
    let at = std::time::UNIX_EPOCH + Duration::from_secs(1_000_005);
    let mut member = fixture
        .join_with("g", "a", |join| join.start = Start::At(at))
        .await;
    member.settle().await;
    assert_eq!(member.payloads, ["new"]);
}

#[tokio::test(start_paused = true)]
async fn checkpoints_are_fenced_and_never_go_back() {
    let fixture = Fixture::with_stream(1).await;
    fixture.fill(1, 10).await;
    let mut a = fixture.join("a").await;
    a.settle().await;
    let epoch = a.epoch(0);
    assert_eq!(a.checkpoint(0, epoch, 7).await, Ok(()));
    assert_eq!(a.checkpoint(0, epoch, 3).await, Ok(()));
    assert_eq!(
        a.checkpoint(0, Epoch(epoch.0 - 1), 9).await,
        Err(ErrorKind::Fenced)
    );
    assert_eq!(
        a.checkpoint(0, Epoch(epoch.0 + 1), 9).await,
        Err(ErrorKind::Fenced)
    );
    assert_eq!(a.checkpoint(0, epoch, 10).await, Err(ErrorKind::NotFound));
    assert_eq!(a.checkpoint(5, epoch, 1).await, Err(ErrorKind::NotFound));
    let progress = &fixture.progress("g").await[0];
    assert_eq!(progress.position, Some(Position::from(7)));
    assert_eq!(progress.epoch, Some(epoch));
    assert_eq!(progress.lag.records, Some(2));
}

#[tokio::test(start_paused = true)]
async fn lag_has_records_and_age() {
    let fixture = Fixture::with_stream(1).await;
    fixture.send(&["k=1"]).await;
    let mut member = fixture.join("a").await;
    member.settle().await;
    member.checkpoint_all().await;
    fixture.send(&["k=2", "k=3"]).await;
    tokio::time::advance(Duration::from_secs(3)).await;
    let progress = &fixture.progress("g").await[0];
    assert_eq!(progress.lag.records, Some(2));
    assert_eq!(progress.lag.time, Some(Duration::from_secs(3)));
    let error = fixture.checkpoints("none").read().await.unwrap_err();
    assert_eq!(
        (error.kind(), error.group()),
        (ErrorKind::NotFound, Some("none"))
    );
}

#[tokio::test(start_paused = true)]
async fn pause_holds_records_back_and_resume_brings_them() {
    let fixture = Fixture::with_stream(2).await;
    let mut member = fixture.join("a").await;
    member.settle().await;
    member.membership.pause(&partition(0), member.epoch(0));
    fixture.fill(2, 5).await;
    member.settle().await;
    assert!(!member.records.contains_key(&partition(0)));
    assert_eq!(member.payloads.len(), 5);
    member.membership.resume(&partition(0), member.epoch(0));
    member.settle().await;
    assert_eq!(member.payloads.len(), 10);
}

#[tokio::test(start_paused = true)]
async fn a_dropped_call_of_next_loses_no_event() {
    let fixture = Fixture::with_stream(1).await;
    let mut member = fixture.join("a").await;
    member.settle().await;
    for n in 0..50 {
        let text = format!("k={n}");
        let waiting = tokio::spawn({
            let membership = member.membership.clone();
            async move { membership.next().await }
        });
        tokio::task::yield_now().await;
        // The send wakes it; it is dropped before it runs.
        fixture.send(&[&text]).await;
        waiting.abort();
        assert!(waiting.await.unwrap_err().is_cancelled());
        assert!(member.step().await.unwrap());
    }
    member.settle().await;
    assert_eq!(
        member.payloads,
        (0..50).map(|n| n.to_string()).collect::<Vec<_>>()
    );
}
