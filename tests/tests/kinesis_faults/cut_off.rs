//! A member cannot reach one of the two services for longer than a session.

use conformance::Harness;
use conformance::kinesis::Service;
use tokio::time::{Instant, sleep_until};

use crate::fixture::Fixture;

/// The member cannot know whether it still owns its lease, so it stops before another member can take it.
pub(crate) async fn from_dynamodb(fixture: Fixture) {
    let (fleet, session) = (&fixture.fleet, fixture.session());
    let load = fixture.load().await;
    let (a, b) = fixture.pair().await;
    let begun = Instant::now();
    let back = begun + session * 3;
    fixture.record(Some("a"), "cut off from DynamoDB");
    let clients = fixture.harness.clients();
    fixture
        .faults()
        .cut_off(&clients, ".a", Service::DynamoDb, session * 3);

    fleet.until("it has stopped", || a.owns() == 0).await;
    let stopped = begun.elapsed();
    assert!(
        stopped <= session + fixture.harness.timing().handover,
        "it stopped after {stopped:?}"
    );
    fleet.until("b has both", || b.owns() == 2).await;
    // The handlers that it had begun have ended by now.
    fleet
        .until("b handles both", || fleet.unsettled() < 50)
        .await;
    let before = fixture.began("a");
    sleep_until(back).await;
    assert_eq!(fixture.began("a"), before, "it delivers what is another's");
    assert!(fixture.faults().client_hits(&clients, ".a") >= 1);

    fleet.until("it is a member again", || a.owns() == 1).await;
    fixture.handles(100).await;
    assert!(fixture.began("a") > before, "it handles nothing again");
    fixture.check(load).await;
    a.close().await;
    b.close().await;
}

/// The member keeps renewing its lease in DynamoDB, so it still owns it when Kinesis is back.
pub(crate) async fn from_kinesis(fixture: Fixture) {
    let (fleet, session) = (&fixture.fleet, fixture.session());
    let load = fixture.load().await;
    let (a, b) = fixture.pair().await;
    let handovers = fixture.handovers();
    let back = Instant::now() + session * 3;
    let clients = fixture.harness.clients();
    fixture
        .faults()
        .cut_off(&clients, ".a", Service::Kinesis, session * 3);

    let hits = || fixture.faults().client_hits(&clients, ".a") >= 3;
    fleet.until("its requests fail", hits).await;
    sleep_until(back - session).await;
    let before = fixture.began("a");
    sleep_until(back).await;
    let meanwhile = fixture.began("a") - before;
    assert_eq!(meanwhile, 0, "it reads though it is cut off");

    let goes_on = || fixture.began("a") > before + 50;
    fleet.until("it continues", goes_on).await;
    let summary = fixture.check(load).await;
    assert_eq!((summary.handovers, summary.duplicates), (handovers, 0));
    assert_eq!((a.owns(), b.owns()), (1, 1));
    a.close().await;
    b.close().await;
}
