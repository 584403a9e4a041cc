//! The administration of topics and of groups by the public interface, against real brokers, with
//! rdkafka as the other client that sees the same.

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

/// As [`config`], for what is to run into a timeout.
fn impatient(bootstrap: &str) -> Config {
    let mut config = config(bootstrap);
    config.request_timeout = Duration::from_secs(3);
    config
}
