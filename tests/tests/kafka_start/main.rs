//! How clients start on a Kafka broker: with nothing to warn of.

#![allow(clippy::unwrap_used, reason = "a test that cannot continue fails")]

mod blocking_pool;
mod causes;
mod polling;
mod warnings;

use conformance::kafka::{Broker, Listener, Options};
use tokio::sync::OnceCell;

/// Where the broker tells clients to find it by a name that nobody knows.
const UNKNOWN_HOST: &str = "UNKNOWN";

/// Where it tells them a port at which nobody listens.
const CLOSED_PORT: &str = "CLOSED";

/// One broker for all tests of this process.
async fn shared_broker() -> String {
    broker().await.bootstrap()
}

async fn broker() -> &'static Broker {
    static BROKER: OnceCell<Broker> = OnceCell::const_new();
    let start = || {
        let unknown = Listener::new(UNKNOWN_HOST).advertised_host("no-such-host.invalid");
        let closed = Listener::new(CLOSED_PORT).advertised(1);
        Options::new().listener(unknown).listener(closed).start()
    };
    BROKER.get_or_init(start).await
}
