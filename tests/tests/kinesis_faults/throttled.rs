//! The lease table throttles all requests, as a table over its provisioned throughput does.

use std::time::Duration;

use conformance::history::Event;
use tokio::time::sleep;

use crate::fixture::Fixture;

/// No member loses a lease.
pub(crate) async fn shortly(fixture: Fixture) {
    let load = fixture.load().await;
    let (a, b) = fixture.pair().await;
    let handovers = fixture.handovers();
    throttle(&fixture, fixture.session() / 3).await;
    let summary = fixture.check(load).await;
    assert_eq!((summary.handovers, summary.duplicates), (handovers, 0));
    a.close().await;
    b.close().await;
}

/// All members stop, and resume when the table responds again.
pub(crate) async fn long(fixture: Fixture) {
    let load = fixture.load().await;
    let (a, b) = fixture.pair().await;
    fixture.record(None, "the table is throttled");
    throttle(&fixture, fixture.session() * 2).await;
    assert_eq!((a.owns(), b.owns()), (0, 0), "both must have stopped");
    let back = || a.owns() == 1 && b.owns() == 1;
    fixture.fleet.until("both are members again", back).await;
    let group = fixture.fleet.group.as_str().into();
    fixture.fleet.history.record(Event::Healed { group });
    fixture.handles(100).await;
    fixture.check(load).await;
    a.close().await;
    b.close().await;
}

async fn throttle(fixture: &Fixture, duration: Duration) {
    let table = fixture.fleet.group.as_str();
    fixture.faults().throttle_table(table, u32::MAX);
    // This case needs the time to pass.
    sleep(duration).await;
    fixture.faults().throttle_table(table, 0);
    assert!(fixture.faults().hits(table) >= 5, "it was not throttled");
}
