//! The start of clients on a Kafka broker: without warnings.

#![allow(clippy::unwrap_used, reason = "a test that cannot continue fails")]

mod blocking_pool;
mod causes;
mod polling;
mod warnings;

use conformance::kafka::{Broker, Listener, Options};
use tokio::sync::OnceCell;

/// The listener that advertises a host name that cannot be resolved.
const UNKNOWN_HOST: &str = "UNKNOWN";

/// The listener that advertises a closed port.
const CLOSED_PORT: &str = "CLOSED";

/// Returns the broker that all tests of this process share.
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
