//! An operator deletes the lease of a partition while it is read.

use aws_sdk_dynamodb::types::AttributeValue;
use conformance::history::Event;
use conformance::{Harness, eventually};

use crate::fixture::Fixture;

/// The owner stops. The group recreates the lease and reads the partition from its beginning, because
/// the checkpoint was stored in the lease.
pub(crate) async fn under_its_owner(fixture: Fixture) {
    let fleet = &fixture.fleet;
    let load = fixture.load().await;
    let (a, b) = fixture.pair().await;
    let owned = a.handle().partitions();
    let partition = owned.keys().next().expect("it has one");
    fixture.record(None, "a lease is deleted");
    // The checkpoint in it is deleted too, which has the effect of a reset.
    fleet.history.record(Event::Reset {
        group: fleet.group.as_str().into(),
        stream: fleet.stream.as_str().into(),
        skips: false,
    });
    let dynamodb = fixture.harness.testbed().dynamodb();
    let key = || AttributeValue::S(partition.id().to_owned());
    let deleted = dynamodb
        .delete_item()
        .table_name(&fleet.group)
        .key("leaseKey", key());
    deleted.send().await.expect("it is deleted");
    let stops = || !a.handle().partitions().contains_key(partition);
    fleet.until("its owner stops", stops).await;
    eventually(fixture.harness.timing(), "the lease is there", || async {
        let read = dynamodb.get_item().table_name(&fleet.group);
        let read = read.key("leaseKey", key()).consistent_read(true);
        let row = read.send().await.expect("it is read").item?;
        row.contains_key("leaseOwner").then_some(())
    })
    .await;
    fleet
        .until("each has one", || a.owns() == 1 && b.owns() == 1)
        .await;
    fixture.handles(100).await;
    let summary = fixture.check(load).await;
    assert!(summary.duplicates >= 1, "nothing was deleted: {summary:?}");
    a.close().await;
    b.close().await;
}
