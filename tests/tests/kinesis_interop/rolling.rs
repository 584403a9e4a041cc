//! A fleet moves from one side to the other under load, and some of it stand still for a while.

use millstream_kinesis::Aggregation;

use crate::crash::{now, taken_over};
use crate::ground::Ground;
use crate::member::{Member, Side};

pub(crate) async fn replace(ground: Ground, side: Side) {
    ground.create_leases().await;
    let old_1 = Member::start(&ground, side, "old-1").await;
    let old_2 = Member::start(&ground, side, "old-2").await;
    let flow = ground.flow(Aggregation::Kpl).await;
    ground.balanced(&["old-1", "old-2"]).await;

    let new_1 = Member::start(&ground, side.other(), "new-1").await;
    ground.balanced(&["old-1", "old-2", "new-1"]).await;
    stand_still(&ground, &old_1).await;
    old_1.stop().await;
    let new_2 = Member::start(&ground, side.other(), "new-2").await;
    old_2.stop().await;
    let took = ground.balanced(&["new-1", "new-2"]).await;
    ground.print(&format!(
        "shared by the new ones {took:.1?} after the last old one"
    ));
    stand_still(&ground, &new_1).await;

    let summary = ground.judge(&flow.stop().await).await;
    ground.print(&format!("moved from {side:?}: {summary}"));
    new_1.stop().await;
    new_2.stop().await;
}

/// Stops a member for longer than its leases last, and until it is back at work.
async fn stand_still(ground: &Ground, member: &Member) {
    ground.at_work(&member.name).await;
    let (held, at) = (ground.held_by(&member.name).await, now());
    member.freeze().await;
    let took = taken_over(ground, &member.name, &held, at).await;
    ground.print(&format!(
        "{} stood still, taken over after {took:.1?}",
        member.name
    ));
    member.thaw().await;
    ground
        .until("it has a share again", || async {
            (!ground.held_by(&member.name).await.is_empty()).then_some(())
        })
        .await;
    ground.at_work(&member.name).await;
}
