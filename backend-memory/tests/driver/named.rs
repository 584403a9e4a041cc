//! Brokers that are shared by name.

use millstream_core::driver::Backend;
use millstream_core::{ErrorKind, Record, StreamSpec};
use millstream_memory::{Config, Memory};

use crate::fixture::Fixture;

fn named(name: &str) -> Config {
    let mut config = Config::default();
    config.name = Some(name.to_owned());
    config
}

#[tokio::test(start_paused = true)]
async fn settings_with_one_name_connect_to_one_broker() {
    let one = named("meet").connect().await.unwrap();
    one.streams().create(StreamSpec::new("s")).await.unwrap();
    let other = named("meet").connect().await.unwrap();
    let producer = other.producer("s").open().await.unwrap();
    producer
        .send(Record::new("x"))
        .await
        .unwrap()
        .await
        .unwrap();
    let described = one.streams().describe("s").await.unwrap();
    assert_eq!(described.partitions[0].latest, Some(0.into()));
    let faults = Memory::new(named("meet")).unwrap().faults();
    faults.fail_sends(1, ErrorKind::Denied);
    let refused = producer.send(Record::new("y")).await.unwrap().await;
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::Denied);
}

#[tokio::test(start_paused = true)]
async fn other_names_and_no_name_are_other_brokers() {
    let one = named("alone").connect().await.unwrap();
    one.streams().create(StreamSpec::new("s")).await.unwrap();
    for config in [named("other"), Config::default(), Config::default()] {
        let client = config.connect().await.unwrap();
        assert!(client.streams().list().await.unwrap().is_empty());
        client.streams().create(StreamSpec::new("t")).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn different_settings_under_one_name_are_invalid() {
    let _one = named("same").connect().await.unwrap();
    let mut config = named("same");
    config.seed = 1;
    let error = config.connect().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    let message = error.message();
    assert!(
        message.contains("\"same\"") && message.contains("other settings"),
        "{error}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_named_broker_lives_as_long_as_a_handle() {
    let client = named("brief").connect().await.unwrap();
    client.streams().create(StreamSpec::new("s")).await.unwrap();
    let producer = client.producer("s").open().await.unwrap();
    drop(client);
    let again = named("brief").connect().await.unwrap();
    assert_eq!(again.streams().list().await.unwrap(), ["s"]);
    drop(again);
    producer.close().await.unwrap();
    // The name is free for other settings.
    let mut config = named("brief");
    config.seed = 1;
    let empty = config.connect().await.unwrap();
    assert!(empty.streams().list().await.unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_named_broker_shares_its_folder() {
    let folder = tempfile::tempdir().unwrap();
    let config = || {
        let mut config = named("folder");
        config.persist = Some(folder.path().to_owned());
        config
    };
    let one = Memory::new(config()).unwrap();
    let other = Memory::new(config()).unwrap();
    let spec = StreamSpec::new("s");
    Backend::streams(&one).create(&spec).await.unwrap();
    assert_eq!(Backend::streams(&other).list().await.unwrap(), ["s"]);
    drop((one, other));
    let fixture = Fixture {
        memory: Memory::new(config()).unwrap(),
    };
    assert_eq!(fixture.streams().list().await.unwrap(), ["s"]);
}
