//! Credentials are refused for a moment, as when a token expires before its provider has the next one.

use std::time::Duration;

use conformance::checker::Rules;
use conformance::kinesis::Service;

use crate::fixture::Fixture;

/// Less than a session.
const MOMENT: Duration = Duration::from_millis(1_500);

/// Members, producers and a member that joins meanwhile wait: nothing ends, and nothing fails.
pub(crate) async fn that_expire_end_nothing(fixture: Fixture) {
    let load = fixture.load().await;
    let (a, b) = fixture.pair().await;
    let handovers = fixture.handovers();
    let clients = fixture.harness.clients();
    for service in [Service::Kinesis, Service::DynamoDb] {
        let hits = fixture.faults().client_hits(&clients, "");
        fixture
            .faults()
            .expire_credentials(&clients, service, MOMENT);
        fixture.handles(100).await;
        assert!(fixture.faults().client_hits(&clients, "") > hits + 2);
    }
    let summary = fixture.fleet.verdict(Rules::default()).summary;
    assert_eq!((summary.handovers, summary.duplicates), (handovers, 0));
    for service in [Service::Kinesis, Service::DynamoDb] {
        fixture
            .faults()
            .expire_credentials(&clients, service, MOMENT);
    }
    // Its connection is in use already: credentials that were never accepted are wrong.
    let c = fixture.fleet.member_on(&fixture.fleet.client, "c");
    let c = c.start().await;
    fixture.handles(100).await;
    assert!(![&a, &b, &c].iter().any(|member| member.has_ended()));
    fixture.check(load).await;
    for member in [a, b, c] {
        member.close().await;
    }
}
