//! `Membership::next`: no event is lost with a dropped call, no call returns without an event, and none has
//! too many records.

use std::sync::Arc;

use millstream_core::driver::JoinOptions;
use millstream_core::{Partition, Position};

use super::driver_fleet::{DriverFleet, StoredPositions};
use super::driver_member::{DriverMember, until_both};
use crate::Harness;
use crate::cases::cases;

cases! {
    c02_dropped_next_loses_no_event,
    c02_next_returns_at_least_one_event,
    c08_next_is_bounded_by_bytes,
}

fn has(member: &DriverMember, partition: &Partition, positions: &[Position]) -> bool {
    member.records(partition).len() >= positions.len()
}

/// Asserts that the members have every record of the partitions that they own, once and in order.
fn assert_complete(stored: &StoredPositions, members: [&DriverMember; 2]) {
    for (partition, positions) in stored {
        for member in members {
            if member.owned().contains_key(partition) {
                let delivered = member.records(partition);
                assert_eq!(delivered, positions, "the records of {partition}");
            }
        }
    }
}

async fn c02_dropped_next_loses_no_event(harness: Arc<dyn Harness>) {
    const PARTITIONS: usize = 4;
    let fleet = DriverFleet::new(harness, PARTITIONS).await;
    let mut stored = fleet.fill(5).await;
    let mut a = fleet.join("a").await.dropping_calls();
    a.until("a has every record", |a| {
        a.owned().len() == PARTITIONS && stored.iter().all(|(of, all)| has(a, of, all))
    })
    .await;
    // `Revoking` must reach `a`, and `Assigned` must reach `b`.
    let mut b = fleet.join("b").await.dropping_calls();
    until_both(&mut a, &mut b, "both own partitions", |a, b| {
        !b.owned().is_empty() && a.owned().len() + b.owned().len() == PARTITIONS
    })
    .await;
    for (partition, positions) in fleet.fill(5).await {
        stored.entry(partition).or_default().extend(positions);
    }
    until_both(&mut a, &mut b, "every record is with an owner", |a, b| {
        let owner = |of: &Partition| [a, b].into_iter().find(|it| it.owned().contains_key(of));
        let mut all = stored.iter();
        all.all(|(of, positions)| owner(of).is_some_and(|it| has(it, of, positions)))
    })
    .await;
    assert_complete(&stored, [&a, &b]);
    a.leave().await;
    b.leave().await;
}

async fn c02_next_returns_at_least_one_event(harness: Arc<dyn Harness>) {
    let fleet = DriverFleet::new(harness, 2).await;
    let mut member = fleet.join("a").await;
    member
        .until("it owns both partitions", |it| it.owned().len() == 2)
        .await;
    // Nothing happens, except perhaps reports of the lag.
    member.run_for(fleet.timing.handover).await;
    let stored = fleet.fill(1).await;
    member
        .until("it has every record", |it| {
            stored.iter().all(|(of, all)| has(it, of, all))
        })
        .await;
    member.leave().await;
}

async fn c08_next_is_bounded_by_bytes(harness: Arc<dyn Harness>) {
    const PAYLOAD: &[u8] = &[b'x'; 1_000];
    let fleet = DriverFleet::new(harness, 2).await;
    let stored = fleet.fill_with(30, PAYLOAD).await;
    let batch_bytes = 7 * PAYLOAD.len();
    let options = JoinOptions {
        batch_bytes,
        ..fleet.options("a")
    };
    let mut member = fleet.join_with(options).await;
    member
        .until("it has every record", |it| {
            stored.iter().all(|(of, all)| has(it, of, all))
        })
        .await;
    let largest = member.largest;
    assert!(
        largest.call <= batch_bytes + largest.record,
        "a call of next() returned {} bytes, batch_bytes is {batch_bytes}, and the largest record has {}",
        largest.call,
        largest.record
    );
    for (partition, positions) in &stored {
        assert_eq!(member.records(partition), positions, "of {partition}");
    }
    member.leave().await;
}
