//! The administration of topics and groups by the public interface, against real brokers. rdkafka is
//! the other client that must see the same state.

#![cfg(feature = "kafka")]

mod checkpoints;
mod cluster;
mod late_member;
mod raw_client;
mod reset;
mod silence;
mod streams;
mod watched;

use std::time::Duration;

use conformance::kafka::{Broker, Options};
use millstream_core::Client;
use millstream_kafka::Config;

fn config(bootstrap: &str) -> Config {
    let mut config = Config::default();
    config.brokers = bootstrap.split(',').map(str::to_owned).collect();
    config
}

async fn connect(config: Config) -> Client {
    config.connect().await.expect("the cluster is there")
}

async fn start() -> (Broker, Client) {
    let broker = Options::new().start().await;
    let client = connect(config(&broker.bootstrap())).await;
    (broker, client)
}

/// Like [`config`], for calls that must time out.
fn impatient(bootstrap: &str) -> Config {
    let mut config = config(bootstrap);
    config.request_timeout = Duration::from_secs(3);
    config
}
