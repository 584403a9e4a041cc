//! Checkpoints are stored, and nobody is told.

use crate::ground::Ground;

/// Each lost answer leaves its owner with a counter that it does not know; it must not take that for the loss
/// of its lease, nor store what is older.
pub(crate) async fn to_checkpoints(ground: Ground) {
    const MANY: u32 = 30;
    let load = ground.load().await;
    let (a, b) = ground.pair().await;
    let handovers = ground.handovers();
    let table = ground.fleet.group.as_str();
    ground.faults().lose_answers_to_checkpoints(table, MANY);
    let all = || ground.faults().struck(table) >= u64::from(MANY);
    ground.fleet.until("all are lost", all).await;
    ground.handles(100).await;
    let summary = ground.judge(load).await;
    assert_eq!((summary.handovers, summary.duplicates), (handovers, 0));
    a.close().await;
    b.close().await;
}
