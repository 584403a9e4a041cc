//! Our client, at its defaults.

use std::time::Duration;

use millstream_core::{Client, Result};

use crate::job::{Place, Protocol};

pub(crate) fn config(place: &Place) -> millstream_kafka::Config {
    let mut config = millstream_kafka::Config::default();
    config.brokers = vec![place.brokers.clone()];
    config
}

pub(crate) async fn connect(place: &Place) -> Result<Client> {
    config(place).connect().await
}

pub(crate) async fn connect_lingering(place: &Place, linger_ms: u32) -> Result<Client> {
    let mut config = config(place);
    config.producer.linger = Duration::from_millis(linger_ms.into());
    config.connect().await
}

pub(crate) async fn connect_by(place: &Place, protocol: Protocol) -> Result<Client> {
    let mut config = config(place);
    config.consumer.protocol = match protocol {
        Protocol::Cooperative => millstream_kafka::Protocol::Cooperative,
        Protocol::Consumer => millstream_kafka::Protocol::Consumer,
    };
    config.connect().await
}
