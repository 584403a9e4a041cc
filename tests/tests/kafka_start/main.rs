//! How clients start on a Kafka broker: with nothing to warn of.

#![allow(clippy::unwrap_used, reason = "a test that cannot continue fails")]

mod polling;
mod warnings;

use conformance::kafka::{Broker, Options};
use tokio::sync::OnceCell;

/// One broker for all tests of this process.
async fn shared_broker() -> String {
    static BROKER: OnceCell<Broker> = OnceCell::const_new();
    let broker = BROKER.get_or_init(|| Options::new().start()).await;
    broker.bootstrap()
}
