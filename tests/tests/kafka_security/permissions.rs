//! Authorization: calls without permission fail with `Denied`, and succeed once allowed.

use std::time::Duration;

use conformance::Events;
use millstream_core::ErrorKind::{Denied, TooLarge};
use millstream_core::{Client, Record, Start, StreamSpec};
use millstream_kafka::Sasl;
use tokio::time::{sleep, timeout};

use crate::refused;
use crate::secured::{SECRET, Secured};

async fn client(secured: &Secured, user: &str) -> Client {
    secured.user(user, &format!("{user}{SECRET}")).await;
    let config = secured.login(Sasl::ScramSha256, user);
    config.connect().await.unwrap()
}

/// Reads the first record of a stream.
async fn read(client: &Client, group: &str, stream: &str) -> millstream_core::Result<String> {
    let group = client.group(group).stream(stream).start(Start::Earliest);
    let mut consumer = group.join().await?;
    let delivery = consumer.next().await?.unwrap();
    let text = String::from_utf8_lossy(delivery.payload()).into_owned();
    delivery.ack();
    consumer.close().await?;
    Ok(text)
}

async fn write(client: &Client, stream: &str) -> millstream_core::Result<()> {
    let producer = client.producer(stream).open().await?;
    let sent = producer.send(Record::new("hello").key("k")).await;
    let receipt = match sent {
        Ok(receipt) => receipt.await.map(drop),
        Err(error) => Err(error),
    };
    // The receipt has already reported its error.
    drop(producer.close().await);
    receipt
}

#[tokio::test]
async fn who_may_not_read_is_told_which_stream_and_group_and_reads_once_allowed() {
    let secured = Secured::start().await;
    secured.topic("topic").await;
    let admin = secured.login(Sasl::Plain, "admin").connect().await.unwrap();
    write(&admin, "topic").await.unwrap();
    let user = client(&secured, "team").await;

    let error = refused("no rights", Denied, read(&user, "group", "topic")).await;
    assert_eq!(error.group(), Some("group"), "{error}");

    let on_group = ["--operation", "Read", "--group", "group"];
    secured.allow("team", &on_group).await;
    let error = refused("the group alone", Denied, read(&user, "group", "topic")).await;
    let named = (error.stream(), error.group());
    assert_eq!(named, (Some("topic"), Some("group")), "{error}");

    let on_topic = ["--operation", "Read", "--topic", "topic"];
    secured.allow("team", &on_topic).await;
    assert_eq!(read(&user, "group", "topic").await.unwrap(), "hello");

    let error = refused("another group", Denied, read(&user, "other", "topic")).await;
    assert_eq!(error.group(), Some("other"), "{error}");
}

#[tokio::test]
async fn who_may_not_read_requests_for_resets_is_warned_once_and_obeys_them_once_allowed() {
    let warnings = || {
        let name = "millstream.consumer.resets_denied";
        Events::listen().with(name, "beside", "deaf.millstream-reset")
    };
    Events::listen();
    let secured = Secured::start().await;
    secured.topic("topic").await;
    let admin = secured.login(Sasl::Plain, "admin").connect().await.unwrap();
    write(&admin, "topic").await.unwrap();
    let user = client(&secured, "team").await;
    let rights = ["--operation", "Read", "--group", "deaf", "--topic", "topic"];
    secured.allow("team", &rights).await;

    let group = user.group("deaf").stream("topic").start(Start::Earliest);
    let group = group.checkpoint_interval(Duration::from_millis(10));
    let mut consumer = group.join().await.unwrap();
    let mut read = async || {
        let next = timeout(TIMEOUT, consumer.next()).await;
        next.expect("a record comes").unwrap().unwrap().ack();
    };
    read().await;
    until(|| !warnings().is_empty()).await;
    println!("{:?}", warnings());
    // It is an ordinary member.
    write(&admin, "topic").await.unwrap();
    read().await;

    let beside = ["--operation", "Read", "--group", "deaf.millstream-reset"];
    secured.allow("team", &beside).await;
    let all = admin.group("deaf").reset("topic", Start::Earliest).await;
    all.unwrap();
    read().await;
    read().await;
    consumer.close().await.unwrap();
    assert_eq!(warnings().len(), 1, "{:?}", warnings());
}

/// The timeout of everything that must happen, on a busy machine too.
const TIMEOUT: Duration = Duration::from_secs(60);

async fn until(met: impl Fn() -> bool) {
    let looked = async {
        while !met() {
            sleep(Duration::from_millis(20)).await;
        }
    };
    let met = timeout(TIMEOUT, looked).await;
    met.expect("it comes about");
}

#[tokio::test]
async fn who_may_not_write_is_told_which_stream_and_writes_once_allowed() {
    let secured = Secured::start().await;
    secured.topic("topic").await;
    let user = client(&secured, "team").await;

    let error = refused("no rights", Denied, write(&user, "topic")).await;
    assert_eq!(error.stream(), Some("topic"), "{error}");

    let on_topic = ["--operation", "Write", "--topic", "topic"];
    secured.allow("team", &on_topic).await;
    write(&user, "topic").await.unwrap();
}

/// A client that may not read the settings of a topic finds out the topic's batch size limit by itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_may_not_see_the_limit_of_a_topic_writes_in_smaller_batches_when_it_is_lowered() {
    let secured = Secured::start().await;
    secured.topic("topic").await;
    let user = client(&secured, "team").await;
    let on_topic = ["--operation", "Write", "--topic", "topic"];
    secured.allow("team", &on_topic).await;
    let producer = user.producer("topic").open().await.unwrap();
    let first = producer.send(Record::new("first")).await.unwrap();
    first.await.unwrap();
    secured.limit_batches("topic", 20_000).await;

    let mut receipts = Vec::new();
    for number in 0..20_000 {
        let record = Record::new(vec![b'x'; 100]).key(format!("{}", number % 10));
        receipts.push(producer.send(record).await.unwrap());
    }
    for (number, receipt) in receipts.into_iter().enumerate() {
        let stored = timeout(TIMEOUT, receipt).await.expect("it resolves");
        assert!(stored.is_ok(), "record {number}: {stored:?}");
    }
    let large = producer.send(Record::new(vec![0; 30_000])).await.unwrap();
    let error = timeout(TIMEOUT, large)
        .await
        .expect("it resolves")
        .unwrap_err();
    assert_eq!(error.kind(), TooLarge, "{error:?}");
    producer.close().await.unwrap();
}

#[tokio::test]
async fn who_may_not_create_is_told_which_stream_and_creates_once_allowed() {
    let secured = Secured::start().await;
    let user = client(&secured, "team").await;
    let spec = StreamSpec::new("topic").partitions(1);
    let create = async || user.streams().create(spec.clone()).await;

    let error = refused("no rights", Denied, create()).await;
    assert_eq!(error.stream(), Some("topic"), "{error}");

    // Describing it needs a separate permission.
    let on_topic = [
        "--operation",
        "Create",
        "--operation",
        "Describe",
        "--topic",
        "topic",
    ];
    secured.allow("team", &on_topic).await;
    create().await.unwrap();
}
