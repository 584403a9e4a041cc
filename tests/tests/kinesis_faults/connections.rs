//! Bad minutes of the network and of both services, for everybody at once.

use std::time::Duration;

use conformance::history::Event;
use tokio::time::{Instant, sleep_until};

use crate::ground::Ground;

/// Which requests fail, and how, is of this seed.
const SEED: u64 = 7;

/// One in so many requests fails.
const ONE_IN: u32 = 4;

const LENGTH: Duration = Duration::from_secs(10);

pub(crate) async fn of_all(ground: Ground) {
    let load = ground.load().await;
    let (a, b) = ground.pair().await;
    // What was stored without an answer is sent once more.
    ground.fleet.history.record(Event::Fault {
        group: None,
        member: None,
        what: "answers to sends are lost".into(),
    });
    ground.record(None, "one request in four fails");
    let clients = ground.harness.clients();
    let over = Instant::now() + LENGTH;
    ground.faults().be_rough(&clients, ONE_IN, SEED, LENGTH);
    ground.handles(100).await;
    sleep_until(over).await;
    for client in ["", ".a", ".b"] {
        let struck = ground.faults().struck_clients(&clients, client);
        assert!(struck >= 10, "{struck} of {client:?} were struck");
    }
    ground.handles(100).await;
    ground.judge(load).await;
    assert!(!a.has_ended() && !b.has_ended());
    a.close().await;
    b.close().await;
}
