//! Moves of partitions: only necessary ones, no record is delivered during a drain, and no drain lasts
//! longer than allowed.

use std::sync::Arc;

use millstream_core::ErrorKind;
use millstream_core::driver::CheckpointUpdate;
use tokio::time::Instant;

use super::driver_fleet::DriverFleet;
use super::driver_member::{OnRevoking, Stage, until_both};
use crate::Harness;
use crate::cases::cases;

cases! {
    c05_rebalance_moves_no_more_than_it_must,
    c05_no_record_follows_revoking,
    c05_member_that_drains_for_too_long_is_fenced,
}

async fn c05_rebalance_moves_no_more_than_it_must(harness: Arc<dyn Harness>) {
    let fleet = DriverFleet::new(harness, 4).await;
    let mut a = fleet.join("a").await;
    a.until("a owns all partitions", |a| a.owned().len() == 4)
        .await;
    let all = a.owned();
    let mut b = fleet.join("b").await;
    until_both(&mut a, &mut b, "each owns two partitions", |a, b| {
        a.owned().len() == 2 && b.owned().len() == 2
    })
    .await;
    let kept = a.owned();
    assert!(
        kept.iter().all(|(of, epoch)| all[of] == *epoch),
        "a keeps two partitions in their epochs when b joins: {all:?} became {kept:?}"
    );
    b.leave().await;
    a.until("a owns all partitions again", |a| a.owned().len() == 4)
        .await;
    let all = a.owned();
    assert!(
        kept.iter().all(|(of, epoch)| all[of] == *epoch),
        "a keeps its partitions in their epochs when b leaves: {kept:?} became {all:?}"
    );
    a.leave().await;
}

async fn c05_no_record_follows_revoking(harness: Arc<dyn Harness>) {
    let fleet = DriverFleet::new(harness, 2).await;
    fleet.fill(5).await;
    let a = fleet.join("a").await;
    let mut a = a.on_revoking(OnRevoking::Keep);
    a.until("a owns both partitions, and reads them", |a| {
        a.owned()
            .keys()
            .filter(|of| !a.records(of).is_empty())
            .count()
            == 2
    })
    .await;
    let mut b = fleet.join("b").await;
    until_both(&mut a, &mut b, "a is to release one partition", |a, _| {
        !a.partitions(Stage::Revoking).is_empty()
    })
    .await;
    // The member checks that none of these records comes from a draining partition.
    fleet.fill(5).await;
    a.run_for(fleet.timing.handover).await;
    assert!(
        !a.partitions(Stage::Revoking).is_empty(),
        "the drain was not over"
    );
    a.release_all().await;
    until_both(&mut a, &mut b, "b owns what a has released", |a, b| {
        let released = a.partitions(Stage::Released);
        released.keys().all(|of| b.owned().contains_key(of))
    })
    .await;
    a.leave().await;
    b.leave().await;
}

async fn c05_member_that_drains_for_too_long_is_fenced(harness: Arc<dyn Harness>) {
    let fleet = DriverFleet::new(harness, 2).await;
    let stored = fleet.fill(1).await;
    let timing = fleet.timing;
    let drain = timing.handover;
    let a = fleet.join_with_drain("a", drain);
    let mut a = a.await.on_revoking(OnRevoking::Keep);
    a.until("a owns both partitions", |a| a.owned().len() == 2)
        .await;
    let before = a.owned();
    let mut b = fleet.join_with_drain("b", drain).await;
    until_both(&mut a, &mut b, "a is to release one partition", |a, _| {
        !a.partitions(Stage::Revoking).is_empty()
    })
    .await;
    let revoked = Instant::now();
    let what = "a, which does not release the partition, has lost it to b";
    until_both(&mut a, &mut b, what, |a, b| {
        let lost = a.partitions(Stage::Lost);
        !lost.is_empty() && lost.keys().all(|of| b.owned().contains_key(of))
    })
    .await;
    let took = revoked.elapsed();
    let longest = drain + timing.handover * 3 + timing.session * 4;
    assert!(
        took <= longest,
        "the drain is {drain:?}, but b got the partition after {took:?}"
    );

    // It is fenced in this partition, but is still a member.
    let update = |(partition, epoch): (_, _)| CheckpointUpdate {
        position: stored[&partition][0],
        partition,
        epoch,
    };
    let lost = a.partitions(Stage::Lost).into_keys();
    let lost: Vec<_> = lost
        .map(|of| (of.clone(), before[&of]))
        .map(update)
        .collect();
    for result in a.checkpoint(&lost).await {
        let kind = result.as_ref().err().map(millstream_core::Error::kind);
        assert_eq!(kind, Some(ErrorKind::Fenced), "{result:?}");
    }
    let kept: Vec<_> = a.owned().into_iter().map(update).collect();
    for result in a.checkpoint(&kept).await {
        result.expect("a still owns the other partition");
    }
    a.leave().await;
    b.leave().await;
}
