//! A partition that gets no records for longer than the retention period.

use conformance::history::Event;
use conformance::{Harness, eventually};

use crate::fixture::Fixture;

/// The next member continues without reporting a data loss: the previous one has recorded that it had read
/// everything.
pub(crate) async fn is_no_gap(fixture: Fixture) {
    let fleet = &fixture.fleet;
    let a = fixture.member("a").await;
    fleet.send(8, 10).await;
    fleet.caught_up().await;
    let dynamodb = fixture.harness.testbed().dynamodb();
    eventually(fixture.harness.timing(), "it is noted", || async {
        let rows = dynamodb.scan().table_name(&fleet.group).send().await;
        // The client may have been used by another case, whose runtime is gone.
        let rows = rows.ok()?.items?;
        let noted = rows.iter().all(|row| row.contains_key("millstreamTip"));
        noted.then_some(())
    })
    .await;
    a.close().await;
    fixture.record(None, "all records are removed");
    fixture.harness.testbed().trim(&fleet.stream).await;
    let b = fixture.member("b").await;
    let before = fleet
        .history
        .count(|event| matches!(event, Event::Began(_)));
    fleet.send(8, 10).await;
    fleet
        .until("the new ones are handled", || fixture.began("b") == 80)
        .await;
    assert_eq!(before, 80, "none came twice");
    assert_eq!(b.handle().stats().data_losses, 0);
    b.close().await;
}
