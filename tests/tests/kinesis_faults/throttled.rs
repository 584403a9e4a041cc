//! The table of leases takes no request, as one does that is over its limits.

use std::time::Duration;

use conformance::history::Event;
use tokio::time::sleep;

use crate::ground::Ground;

/// Nobody loses a lease by it.
pub(crate) async fn shortly(ground: Ground) {
    let load = ground.load().await;
    let (a, b) = ground.pair().await;
    let handovers = ground.handovers();
    throttle(&ground, ground.session() / 3).await;
    let summary = ground.judge(load).await;
    assert_eq!((summary.handovers, summary.duplicates), (handovers, 0));
    a.close().await;
    b.close().await;
}

/// All stop, and begin again when they can.
pub(crate) async fn long(ground: Ground) {
    let load = ground.load().await;
    let (a, b) = ground.pair().await;
    ground.record(None, "the table is throttled");
    throttle(&ground, ground.session() * 2).await;
    assert_eq!((a.owns(), b.owns()), (0, 0), "both must have stopped");
    let back = || a.owns() == 1 && b.owns() == 1;
    ground.fleet.until("both are members again", back).await;
    let group = ground.fleet.group.as_str().into();
    ground.fleet.history.record(Event::Healed { group });
    ground.handles(100).await;
    ground.judge(load).await;
    a.close().await;
    b.close().await;
}

async fn throttle(ground: &Ground, duration: Duration) {
    let table = ground.fleet.group.as_str();
    ground.faults().throttle_table(table, u32::MAX);
    // A while is what this is about.
    sleep(duration).await;
    ground.faults().throttle_table(table, 0);
    assert!(ground.faults().struck(table) >= 5, "it was not throttled");
}
