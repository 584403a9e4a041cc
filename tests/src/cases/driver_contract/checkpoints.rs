//! `Membership::checkpoint`: a result for each update, by epoch, and no step back.

use std::sync::Arc;

use millstream_core::driver::CheckpointUpdate;
use millstream_core::{ErrorKind, Result, Start};
use tokio::time::timeout;

use super::driver_fleet::DriverFleet;
use super::driver_member::until_both;
use super::dropped_call::dropped_at;
use crate::Harness;
use crate::cases::cases;

cases! {
    c04_each_update_of_a_checkpoint_has_its_result,
    c04_dropped_checkpoint_undoes_no_later_one,
    c07_checkpoint_of_an_earlier_epoch_is_fenced,
}

fn outcomes(results: &[Result<()>]) -> Vec<Option<ErrorKind>> {
    let kinds = results
        .iter()
        .map(|result| Some(result.as_ref().err()?.kind()));
    kinds.collect()
}

async fn c04_each_update_of_a_checkpoint_has_its_result(harness: Arc<dyn Harness>) {
    let fleet = DriverFleet::new(harness, 4).await;
    let stored = fleet.fill(1).await;
    let mut a = fleet.join("a").await;
    a.until("a owns all partitions", |a| a.owned().len() == 4)
        .await;
    let before = a.owned();
    let mut b = fleet.join("b").await;
    until_both(&mut a, &mut b, "each owns two partitions", |a, b| {
        a.owned().len() == 2 && b.owned().len() == 2
    })
    .await;
    let update = |(partition, epoch): (_, _)| CheckpointUpdate {
        position: stored[&partition][0],
        partition,
        epoch,
    };
    let kept: Vec<_> = a.owned().into_iter().map(update).collect();
    let moved = b.owned().into_keys().map(|of| (of.clone(), before[&of]));
    let moved: Vec<_> = moved.map(update).collect();
    let untouched = fleet.progress().await;

    let updates = [&kept[0], &moved[0], &kept[1], &moved[1]].map(Clone::clone);
    let results = a.checkpoint(&updates).await;
    let fenced = Some(ErrorKind::Fenced);
    assert_eq!(
        outcomes(&results),
        [None, fenced, None, fenced],
        "a owns the first and the third partition, b the others: {results:?}"
    );
    let progress = fleet.progress().await;
    for update in &kept {
        let of = &progress[&update.partition];
        assert_eq!(
            (of.position, of.epoch),
            (Some(update.position), Some(update.epoch)),
            "the checkpoint of {} was acknowledged",
            update.partition
        );
    }
    for update in &moved {
        let [before, after] = [&untouched, &progress].map(|it| it.get(&update.partition));
        assert_eq!(
            before.and_then(|of| of.position),
            after.and_then(|of| of.position),
            "the checkpoint of {} was refused",
            update.partition
        );
    }
    a.leave().await;
    b.leave().await;
}

/// The owner is the same, so only the epoch distinguishes them.
async fn c07_checkpoint_of_an_earlier_epoch_is_fenced(harness: Arc<dyn Harness>) {
    let fleet = DriverFleet::new(harness, 1).await;
    let stored = fleet.fill(3).await;
    let (partition, positions) = stored.first_key_value().expect("there is a partition");
    let mut member = fleet.join("a").await;
    member
        .until("it owns the partition", |it| it.owned().len() == 1)
        .await;
    let earlier = member.owned()[partition];
    let update = |epoch, position| CheckpointUpdate {
        partition: partition.clone(),
        epoch,
        position,
    };
    let results = member.checkpoint(&[update(earlier, positions[0])]).await;
    assert_eq!(outcomes(&results), [None], "{results:?}");

    // It drains, and restarts.
    let (checkpoints, stream) = (fleet.checkpoints(), fleet.stream.as_str());
    let reset = checkpoints.reset(stream, Start::Earliest);
    let anew = member.until("the partition is assigned in a later epoch", |it| {
        it.owned()
            .get(partition)
            .is_some_and(|epoch| *epoch > earlier)
    });
    let (reset, ()) = tokio::join!(reset, anew);
    reset.expect("the group is moved");
    let latest = member.owned()[partition];

    let before = fleet.position(partition).await;
    let results = member.checkpoint(&[update(earlier, positions[2])]).await;
    assert_eq!(
        outcomes(&results),
        [Some(ErrorKind::Fenced)],
        "epoch {earlier} of {partition} ended, {latest} is its last: {results:?}"
    );
    assert_eq!(fleet.position(partition).await, before, "it was refused");
    let results = member.checkpoint(&[update(latest, positions[1])]).await;
    assert_eq!(outcomes(&results), [None], "{results:?}");
    assert_eq!(
        fleet.position(partition).await,
        Some(positions[1]),
        "the checkpoint of the last epoch was acknowledged"
    );
    member.leave().await;
}

async fn c04_dropped_checkpoint_undoes_no_later_one(harness: Arc<dyn Harness>) {
    const ROUNDS: usize = 8;
    let fleet = DriverFleet::new(harness, 1).await;
    let stored = fleet.fill(2 * ROUNDS).await;
    let (partition, positions) = stored.first_key_value().expect("there is a partition");
    let mut member = fleet.join("a").await;
    member
        .until("it has every record", |it| {
            it.records(partition).len() >= positions.len()
        })
        .await;
    let epoch = member.owned()[partition];
    let update = |position| {
        [CheckpointUpdate {
            partition: partition.clone(),
            epoch,
            position,
        }]
    };
    for (round, pair) in positions.chunks_exact(2).enumerate() {
        let [dropped, later] = [update(pair[0]), update(pair[1])];
        let call = member.membership.checkpoint(&dropped);
        // It may also complete, before it waits that often.
        let call = timeout(fleet.timing.timeout, dropped_at(round % 2 + 1, call)).await;
        call.expect("a checkpoint has a result");
        let results = member.checkpoint(&later).await;
        assert_eq!(outcomes(&results), [None], "{results:?}");
        assert_eq!(
            fleet.position(partition).await,
            Some(pair[1]),
            "it was acknowledged, after {} was dropped",
            pair[0]
        );
    }
    // A dropped call may still be in flight.
    member.run_for(fleet.timing.handover).await;
    assert_eq!(
        fleet.position(partition).await,
        positions.chunks_exact(2).last().map(|pair| pair[1]),
        "an earlier checkpoint, whose call was dropped, has undone it"
    );
    member.leave().await;
}
