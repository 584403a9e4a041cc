//! Our client, at its defaults.

use std::time::Duration;

use millstream_core::{Client, Result};

use crate::job::{Protocol, Target};

pub(crate) fn config(target: &Target) -> millstream_kafka::Config {
    let mut config = millstream_kafka::Config::default();
    config.brokers = vec![target.brokers.clone()];
    config
}

pub(crate) async fn connect(target: &Target) -> Result<Client> {
    config(target).connect().await
}

/// Whether records wait in our producer as long as a request of their partition has no response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Throttle {
    On,
    Off,
}

pub(crate) async fn connect_lingering(
    target: &Target,
    linger_ms: u32,
    throttle: Throttle,
) -> Result<Client> {
    let mut config = config(target);
    config.producer.throttle_in_flight = throttle == Throttle::On;
    config.producer.linger = Duration::from_millis(linger_ms.into());
    config.connect().await
}

pub(crate) async fn connect_by(target: &Target, protocol: Protocol) -> Result<Client> {
    let mut config = config(target);
    config.consumer.protocol = match protocol {
        Protocol::Cooperative => millstream_kafka::Protocol::Cooperative,
        Protocol::Consumer => millstream_kafka::Protocol::Consumer,
    };
    config.connect().await
}
