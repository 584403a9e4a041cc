//! A drain ends before the broker evicts the member for not polling.

use std::sync::Arc;
use std::time::Duration;

use millstream_core::ErrorKind;
use millstream_kafka::Protocol;

use crate::fixture::{Fixture, config, stream, unique};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// The longest allowed drain is one for which the broker waits, and half a minute more.
pub(crate) async fn longest(fixture: Arc<Fixture>) {
    let client = fixture.client().await;
    let stream = stream(&client, 1).await;
    let group = client.group(unique("group")).stream(stream.as_str());
    let drain = DAY - Duration::from_secs(30);
    let consumer = group.drain_timeout(drain).join().await;
    consumer
        .expect("it joins")
        .close()
        .await
        .expect("it closes");
}

/// A drain for which the broker would not wait is rejected, and so is a setting that makes the broker wait less.
pub(crate) async fn too_long(fixture: Arc<Fixture>) {
    let client = fixture.client().await;
    let stream = stream(&client, 1).await;
    let group = client.group(unique("group")).stream(stream.as_str());
    let refused = group.drain_timeout(DAY).join().await;
    let refused = refused.expect_err("the broker waits for a day at most");
    assert_eq!(refused.kind(), ErrorKind::Invalid, "{refused:?}");
    assert!(refused.message().contains("drain_timeout"), "{refused}");
    assert!(refused.group().is_some(), "{refused}");

    let mut shorter = config(fixture.testbed.bootstrap(), Protocol::default());
    let key = "max.poll.interval.ms";
    shorter.librdkafka.insert(key.into(), "5000".into());
    let refused = shorter.connect().await.expect_err("the SDK owns it");
    assert_eq!(refused.kind(), ErrorKind::Invalid, "{refused:?}");
    assert!(refused.message().contains(key), "{refused}");
}
