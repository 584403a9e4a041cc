//! A fleet is migrated from one side to the other under load, and some members are frozen for a while.

use millstream_kinesis::Aggregation;

use crate::crash::{now, taken_over};
use crate::fixture::Fixture;
use crate::member::{Member, Side};

pub(crate) async fn replace(fixture: Fixture, side: Side) {
    fixture.create_leases().await;
    let old_1 = Member::start(&fixture, side, "old-1").await;
    let old_2 = Member::start(&fixture, side, "old-2").await;
    let background_load = fixture.send_in_background(Aggregation::Kpl).await;
    fixture.balanced(&["old-1", "old-2"]).await;

    let new_1 = Member::start(&fixture, side.other(), "new-1").await;
    fixture.balanced(&["old-1", "old-2", "new-1"]).await;
    stand_still(&fixture, &old_1).await;
    old_1.stop().await;
    let new_2 = Member::start(&fixture, side.other(), "new-2").await;
    old_2.stop().await;
    let took = fixture.balanced(&["new-1", "new-2"]).await;
    fixture.print(&format!(
        "shared by the new ones {took:.1?} after the last old one"
    ));
    stand_still(&fixture, &new_1).await;

    let summary = fixture.check(&background_load.stop().await).await;
    fixture.print(&format!("moved from {side:?}: {summary}"));
    new_1.stop().await;
    new_2.stop().await;
}

/// Freezes a member for longer than its leases last, and waits until it handles records again.
async fn stand_still(fixture: &Fixture, member: &Member) {
    fixture.at_work(&member.name).await;
    let (held, at) = (fixture.held_by(&member.name).await, now());
    member.freeze().await;
    let took = taken_over(fixture, &member.name, &held, at).await;
    fixture.print(&format!(
        "{} stood still, taken over after {took:.1?}",
        member.name
    ));
    member.thaw().await;
    fixture
        .until("it has a share again", || async {
            (!fixture.held_by(&member.name).await.is_empty()).then_some(())
        })
        .await;
    fixture.at_work(&member.name).await;
}
