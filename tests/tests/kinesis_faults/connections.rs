//! All connections and both services fail at random for a while, for all clients at once.

use std::time::Duration;

use conformance::history::Event;
use tokio::time::{Instant, sleep_until};

use crate::fixture::Fixture;

/// The seed that decides which requests fail, and how.
const SEED: u64 = 7;

/// One request in this many fails.
const ONE_IN: u32 = 4;

const LENGTH: Duration = Duration::from_secs(10);

pub(crate) async fn of_all(fixture: Fixture) {
    let load = fixture.load().await;
    let (a, b) = fixture.pair().await;
    // A record that was stored without a response is sent again.
    fixture.fleet.history.record(Event::Fault {
        group: None,
        member: None,
        what: "responses to sends are lost".into(),
    });
    fixture.record(None, "one request in four fails");
    let clients = fixture.harness.clients();
    let over = Instant::now() + LENGTH;
    fixture.faults().make_flaky(&clients, ONE_IN, SEED, LENGTH);
    fixture.handles(100).await;
    sleep_until(over).await;
    for client in ["", ".a", ".b"] {
        let hits = fixture.faults().client_hits(&clients, client);
        assert!(hits >= 10, "{hits} of {client:?} were struck");
    }
    fixture.handles(100).await;
    fixture.check(load).await;
    assert!(!a.has_ended() && !b.has_ended());
    a.close().await;
    b.close().await;
}
