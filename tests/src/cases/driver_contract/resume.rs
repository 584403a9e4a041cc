//! `Event::Assigned` contains the stored checkpoint.

use std::sync::Arc;

use millstream_core::driver::CheckpointUpdate;

use super::driver_fleet::DriverFleet;
use crate::Harness;
use crate::cases::cases;

cases! {
    c06_assignment_carries_the_checkpoint,
}

async fn c06_assignment_carries_the_checkpoint(harness: Arc<dyn Harness>) {
    let fleet = DriverFleet::new(harness, 2).await;
    let stored = fleet.fill(3).await;
    let mut a = fleet.join("a").await;
    a.until("a owns both partitions", |a| a.owned().len() == 2)
        .await;
    let updates = a
        .owned()
        .into_iter()
        .map(|(partition, epoch)| CheckpointUpdate {
            position: stored[&partition][1],
            partition,
            epoch,
        });
    let updates: Vec<_> = updates.collect();
    for result in a.checkpoint(&updates).await {
        result.expect("a owns the partition");
    }
    a.leave().await;

    let mut b = fleet.join("b").await;
    b.until("b has the rest of each partition", |b| {
        let mut stored = stored.iter();
        stored.all(|(of, all)| b.records(of).last() == all.last())
    })
    .await;
    for (partition, positions) in &stored {
        let assignment = b.assignment(partition).expect("b owns it");
        assert_eq!(
            assignment.resume_after,
            Some(positions[1]),
            "resume_after of {partition} is its stored checkpoint"
        );
        assert_eq!(assignment.records, positions[2..], "what follows it");
    }
    b.leave().await;
}
