//! Checkpoints are stored, but their responses are lost.

use crate::fixture::Fixture;

/// After each lost response the owner does not know the lease counter. It must not conclude that it has lost
/// the lease, and must not store an older checkpoint.
pub(crate) async fn to_checkpoints(fixture: Fixture) {
    const MANY: u32 = 30;
    let load = fixture.load().await;
    let (a, b) = fixture.pair().await;
    let handovers = fixture.handovers();
    let table = fixture.fleet.group.as_str();
    fixture.faults().lose_checkpoint_responses(table, MANY);
    let all = || fixture.faults().hits(table) >= u64::from(MANY);
    fixture.fleet.until("all are lost", all).await;
    fixture.handles(100).await;
    let summary = fixture.check(load).await;
    assert_eq!((summary.handovers, summary.duplicates), (handovers, 0));
    a.close().await;
    b.close().await;
}
