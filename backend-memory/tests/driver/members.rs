//! Members that disconnect, pause and return.

use std::time::Duration;

use millstream_core::ErrorKind;
use millstream_memory::Target;

use crate::fixture::{Fixture, SESSION, partition};

#[tokio::test(start_paused = true)]
async fn a_dropped_membership_expires() {
    let fixture = Fixture::with_stream(2).await;
    fixture.fill(2, 10).await;
    let mut a = fixture.join("a").await;
    a.settle().await;
    drop(a);
    let mut b = fixture.join("b").await;
    let joined = tokio::time::Instant::now();
    while b.payloads.len() < 20 {
        b.step().await.unwrap();
    }
    let took = joined.elapsed();
    assert!(
        took >= Duration::from_secs(5),
        "half comes after the drain, half after the session"
    );
    assert!(took <= SESSION + Duration::from_millis(50));
}

#[tokio::test(start_paused = true)]
async fn a_paused_member_is_fenced_and_rejoins() {
    let fixture = Fixture::with_stream(1).await;
    fixture.fill(1, 10).await;
    let mut a = fixture.join("a").await;
    a.settle().await;
    let old = a.epoch(0);
    let mut b = fixture.join("b").await;
    b.settle().await;

    fixture
        .memory
        .faults()
        .pause(&Target::named("a"), SESSION * 2)
        .unwrap();
    let zombie = tokio::spawn({
        let membership = a.membership.clone();
        let update = millstream_core::driver::CheckpointUpdate {
            partition: partition(0),
            epoch: old,
            position: 9.into(),
        };
        async move { membership.checkpoint(&[update]).await.remove(0) }
    });
    tokio::time::advance(SESSION).await;
    b.settle().await;
    assert_eq!(b.payloads.len(), 10);
    assert!(!zombie.is_finished(), "its calls hang while it is paused");
    assert_eq!(zombie.await.unwrap().unwrap_err().kind(), ErrorKind::Fenced);

    a.settle().await;
    assert_eq!(a.lost, [(partition(0), old)]);
    b.checkpoint_all().await;
    b.membership.leave().await.unwrap();
    a.settle().await;
    assert!(a.epoch(0) > old, "it is a member again");
}

#[tokio::test(start_paused = true)]
async fn a_member_that_is_cut_off_loses_everything_by_its_own_clock() {
    let fixture = Fixture::with_stream(2).await;
    fixture.fill(2, 10).await;
    let mut a = fixture.join("a").await;
    a.settle().await;
    let owned: Vec<_> = a.owned.clone().into_iter().collect();
    let faults = fixture.memory.faults();
    faults.pause(&Target::named("a"), SESSION * 3).unwrap();
    let paused = tokio::time::Instant::now();
    fixture.fill(2, 10).await;
    a.settle().await;
    assert_eq!((a.payloads.len(), a.lost.len()), (20, 0), "it gets nothing");
    while a.lost.is_empty() && paused.elapsed() < SESSION * 2 {
        a.step().await.unwrap();
    }
    assert_eq!(a.lost, owned);
    assert!(paused.elapsed() <= SESSION + Duration::from_millis(20));
    tokio::time::advance(SESSION).await;
    a.settle().await;
    assert_eq!((a.payloads.len(), a.owned.len()), (20, 0));
    tokio::time::advance(SESSION).await;
    a.settle().await;
    assert_eq!(a.owned.len(), 2, "it is a member again");
}

#[tokio::test(start_paused = true)]
async fn a_lone_paused_member_is_fenced() {
    let fixture = Fixture::with_stream(1).await;
    fixture.fill(1, 10).await;
    let mut a = fixture.join("a").await;
    a.settle().await;
    let old = a.epoch(0);
    fixture
        .memory
        .faults()
        .pause(&Target::nth(1), SESSION * 3)
        .unwrap();
    assert_eq!(a.checkpoint(0, old, 9).await, Err(ErrorKind::Fenced));
    a.settle().await;
    assert_eq!(a.lost, [(partition(0), old)]);
    assert!(a.epoch(0) > old);
    assert_eq!(
        a.payloads.len(),
        20,
        "what was not checkpointed comes again"
    );
}

#[tokio::test(start_paused = true)]
async fn a_short_pause_changes_nothing() {
    let fixture = Fixture::with_stream(1).await;
    let mut a = fixture.join("a").await;
    a.settle().await;
    fixture
        .memory
        .faults()
        .pause(&Target::named("a"), SESSION / 2)
        .unwrap();
    fixture.fill(1, 3).await;
    tokio::time::advance(SESSION / 2).await;
    a.settle().await;
    assert_eq!(a.payloads.len(), 3);
    assert!(a.lost.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_pause_can_be_ended() {
    let fixture = Fixture::with_stream(1).await;
    fixture.fill(1, 10).await;
    let mut a = fixture.join("a").await;
    a.settle().await;
    let epoch = a.epoch(0);
    let faults = fixture.memory.faults();
    faults.pause(&Target::named("a"), SESSION * 3).unwrap();
    let began = tokio::time::Instant::now();
    let end = async {
        tokio::time::sleep(SESSION / 2).await;
        faults.pause(&Target::named("a"), Duration::ZERO).unwrap();
    };
    let (stored, ()) = tokio::join!(a.checkpoint(0, epoch, 9), end);
    assert_eq!(stored, Ok(()));
    assert!(began.elapsed() < SESSION, "the call waits no longer");
    tokio::time::advance(SESSION).await;
    a.settle().await;
    assert!(a.lost.is_empty(), "its session goes on");
}

#[tokio::test(start_paused = true)]
async fn a_crashed_member_gets_unavailable_and_expires() {
    let fixture = Fixture::with_stream(1).await;
    fixture.fill(1, 3).await;
    let mut a = fixture.join("a").await;
    a.settle().await;
    fixture.memory.faults().crash(&Target::named("a")).unwrap();
    assert_eq!(
        a.membership.next().await.unwrap_err().kind(),
        ErrorKind::Unavailable
    );
    assert_eq!(
        a.checkpoint(0, a.epoch(0), 1).await,
        Err(ErrorKind::Unavailable)
    );
    let mut b = fixture.join("b").await;
    b.settle().await;
    assert!(b.owned.is_empty());
    tokio::time::advance(SESSION).await;
    b.settle().await;
    assert_eq!(b.payloads.len(), 3);
    let gone = fixture
        .memory
        .faults()
        .crash(&Target::named("a"))
        .unwrap_err();
    assert_eq!(gone.kind(), ErrorKind::NotFound);
}

#[tokio::test(start_paused = true)]
async fn a_stolen_partition_fences_its_owner() {
    let fixture = Fixture::with_stream(2).await;
    let mut a = fixture.join("a").await;
    let mut b = fixture.join("b").await;
    a.settle().await;
    b.settle().await;
    fixture.fill(2, 5).await;
    a.settle().await;
    b.settle().await;
    let id: u32 = a.partitions()[0].parse().unwrap();
    let old = a.epoch(id);
    fixture.memory.faults().steal("g", &partition(id)).unwrap();
    assert_eq!(a.checkpoint(id, old, 4).await, Err(ErrorKind::Fenced));
    a.settle().await;
    b.settle().await;
    assert_eq!(a.lost, [(partition(id), old)]);
    assert!(b.owned[&partition(id)] > old);
}

#[tokio::test(start_paused = true)]
async fn a_stolen_partition_comes_back_to_a_lone_member() {
    let fixture = Fixture::with_stream(1).await;
    let mut a = fixture.join("a").await;
    a.settle().await;
    let old = a.epoch(0);
    fixture.memory.faults().steal("g", &partition(0)).unwrap();
    a.settle().await;
    assert_eq!(a.lost, [(partition(0), old)]);
    assert!(a.epoch(0) > old);
}

#[tokio::test(start_paused = true)]
async fn an_unannounced_assignment_moves_without_events() {
    let fixture = Fixture::with_stream(2).await;
    let mut a = fixture.join("a").await;
    let mut b = fixture.join("b").await;
    b.settle().await;
    a.settle().await;
    assert_eq!((a.owned.len(), b.owned.len()), (1, 1));
    assert!(a.revoking.is_empty() && a.lost.is_empty());
}
