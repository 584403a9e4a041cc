//! A rejected record fails with its own kind of error and does not block others.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use millstream_core::driver::Backend;
use millstream_core::{Error, ErrorKind, Producer, Record};
use millstream_kafka::Kafka;
use rdkafka::admin::{AdminOptions, AlterConfig, ResourceSpecifier};

use crate::raw_client::{
    admin, config, connect, create, delete, numbered, open, read, send_all, send_and_wait,
    shared_broker,
};

fn assert_told(error: &Error, kind: ErrorKind, topic: &str) {
    assert_eq!((error.kind(), error.stream()), (kind, Some(topic)));
}

/// Sends one record after another, until one is stored; the others fail with an error of this kind.
async fn until_stored(producer: &Producer, kind: ErrorKind) {
    let begun = Instant::now();
    while let Err(error) = send_and_wait(producer, Record::new("again")).await {
        assert_eq!(error.kind(), kind, "{error}");
        assert!(begun.elapsed() < Duration::from_secs(30), "{error}");
    }
}

#[tokio::test]
async fn an_unknown_topic_is_not_opened() {
    let client = connect(&shared_broker().await).await;
    let error = client.producer("nowhere").open().await.unwrap_err();
    assert_told(&error, ErrorKind::NotFound, "nowhere");
}

#[tokio::test]
async fn a_record_of_the_limit_is_stored_and_a_larger_one_is_not() {
    let bootstrap = shared_broker().await;
    for (topic, largest) in [("small", 2_000), ("large", 3_000_000)] {
        let settings = [("max.message.bytes", &*largest.to_string())];
        create(&bootstrap, topic, 1, &settings).await;
        let producer = open(&bootstrap, topic).await;
        let limit = largest - 61 - 36;

        let fits = producer.send(Record::new(vec![1; limit])).await.unwrap();
        let more = producer
            .send(Record::new(vec![2; limit + 1]))
            .await
            .unwrap_err();
        assert_told(&more, ErrorKind::TooLarge, topic);
        // The lengths of headers are not in the size that `send` checks.
        let headers = Record::new(vec![3; limit - 1]).header("x", "").key("k");
        assert_eq!(headers.size(), limit + 1);
        let headers = Record::new(vec![3; limit - 1]).header("x", "");
        let refused = send_and_wait(&producer, headers).await.unwrap_err();
        assert_told(&refused, ErrorKind::TooLarge, topic);
        let after = producer.send(Record::new(vec![4; limit])).await.unwrap();

        fits.await.unwrap();
        after.await.unwrap();
        producer.close().await.unwrap();
        let stored = read(&bootstrap, topic).await.remove(&0).unwrap();
        let sizes: Vec<_> = stored
            .iter()
            .map(|seen| seen.payload.as_ref().unwrap().len())
            .collect();
        assert_eq!(sizes, [limit, limit], "{topic}");
    }
}

/// Requests of many records, filled to the limit, stay within the topic's limit too.
#[tokio::test]
async fn no_request_is_larger_than_its_topic_takes() {
    let bootstrap = shared_broker().await;
    create(&bootstrap, "brim", 1, &[("max.message.bytes", "2000")]).await;
    let producer = open(&bootstrap, "brim").await;
    let records = (0..2_000).map(|number| Record::new(vec![0; number % 300]).key("k"));
    for result in send_all(&producer, records).await.await {
        result.unwrap();
    }
}

async fn limit_batches(bootstrap: &str, topic: &str, bytes: usize) {
    let bytes = bytes.to_string();
    let config = AlterConfig::new(ResourceSpecifier::Topic(topic)).set("max.message.bytes", &bytes);
    let altered = admin(bootstrap).alter_configs([&config], &AdminOptions::new());
    altered.await.unwrap().pop().unwrap().unwrap();
}

/// The limit applies to batches, and librdkafka fills those up to the earlier limit.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn small_records_are_stored_when_the_limit_of_their_topic_is_lowered() {
    const COUNT: u64 = 20_000;
    const KEYS: u64 = 10;
    let bootstrap = shared_broker().await;
    create(&bootstrap, "lowered", 2, &[]).await;
    let producer = open(&bootstrap, "lowered").await;
    send_and_wait(&producer, Record::new("first"))
        .await
        .unwrap();
    limit_batches(&bootstrap, "lowered", 2_000).await;

    let begun = Instant::now();
    let records = (0..COUNT).map(|number| numbered(number, KEYS));
    for (number, result) in send_all(&producer, records).await.await.iter().enumerate() {
        assert!(result.is_ok(), "record {number}: {result:?}");
    }
    println!("stored after {:?}", begun.elapsed());
    let mut next: Vec<u64> = (0..KEYS).collect();
    let mut stored = 0;
    for seen in read(&bootstrap, "lowered").await.into_values().flatten() {
        let payload: Result<[u8; 8], _> = seen.payload.unwrap().try_into();
        let Ok(payload) = payload else { continue };
        let number = u64::from_be_bytes(payload);
        let next = &mut next[usize::try_from(number % KEYS).unwrap()];
        assert_eq!(number, *next, "each once, and in the order of its key");
        *next += KEYS;
        stored += 1;
    }
    assert_eq!(stored, COUNT);

    // A record that is now too large itself fails, and no other record does.
    let large = Record::new(vec![0; 3_000]).key("1");
    let error = send_and_wait(&producer, large).await.unwrap_err();
    assert_told(&error, ErrorKind::TooLarge, "lowered");
    send_and_wait(&producer, Record::new("last")).await.unwrap();
    producer.close().await.unwrap();
}

#[tokio::test]
async fn what_kafka_cannot_keep_is_invalid() {
    let bootstrap = shared_broker().await;
    create(&bootstrap, "odd", 1, &[]).await;
    let producer = open(&bootstrap, "odd").await;
    for record in [
        Record::new("").timestamp(std::time::UNIX_EPOCH - Duration::from_secs(1)),
        Record::new("").header("a\0b", ""),
    ] {
        let error = send_and_wait(&producer, record).await.unwrap_err();
        assert_told(&error, ErrorKind::Invalid, "odd");
    }
    send_and_wait(&producer, Record::new("fine")).await.unwrap();
}

/// How long it takes until a topic counts as deleted: one broker may not know it yet, or not for a moment.
const BELIEVED: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deleted_topic_is_reported_once_it_is_certain() {
    let bootstrap = shared_broker().await;
    create(&bootstrap, "doomed", 4, &[]).await;
    let producer = open(&bootstrap, "doomed").await;
    send_and_wait(&producer, Record::new("first"))
        .await
        .unwrap();

    delete(&bootstrap, "doomed").await;
    let begun = Instant::now();
    let error = loop {
        let receipt = producer.send(Record::new("more").key("k")).await.unwrap();
        match receipt.await {
            Ok(_) => assert!(begun.elapsed() < BELIEVED, "it lives on"),
            Err(error) => break error,
        }
    };
    assert_told(&error, ErrorKind::NotFound, "doomed");
    assert_eq!(error.operation(), "send");
    let took = begun.elapsed();
    println!("reported after {took:?}");
    assert!(took >= BELIEVED && took < BELIEVED * 2, "{took:?}");

    // It is there again: the same producer finds it.
    create(&bootstrap, "doomed", 4, &[]).await;
    until_stored(&producer, ErrorKind::NotFound).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn time_outs_are_told_and_the_producer_goes_on() {
    let broker = conformance::kafka::Options::new().start().await;
    let bootstrap = broker.bootstrap();
    create(&bootstrap, "slow", 2, &[]).await;
    let mut config = config(&bootstrap);
    config.producer.timeout = Duration::from_secs(2);
    let producer = config
        .connect()
        .await
        .unwrap()
        .producer("slow")
        .open()
        .await
        .unwrap();
    // A broker that has just started gives producers their ids late.
    until_stored(&producer, ErrorKind::Timeout).await;

    broker.pause().await;
    let records = (0..5_000).map(|number| numbered(number, 10));
    for result in send_all(&producer, records).await.await {
        let error = result.unwrap_err();
        assert_told(&error, ErrorKind::Timeout, "slow");
    }
    broker.unpause().await;
    until_stored(&producer, ErrorKind::Timeout).await;
    producer.close().await.unwrap();
}

/// Kafka rejects whole requests because of one record in them that the topic does not accept.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_that_the_broker_refuses_stops_its_key_and_no_other() {
    const KEYS: usize = 10;
    let bootstrap = shared_broker().await;
    let settings = [("message.timestamp.after.max.ms", "60000")];
    create(&bootstrap, "punctual", 2, &settings).await;
    let kafka = Kafka::connect(config(&bootstrap)).await.unwrap();
    let producer = kafka.open_producer("punctual", &[]).await.unwrap();
    let tomorrow = std::time::SystemTime::now() + Duration::from_secs(24 * 60 * 60);
    // The later requests are rejected because an earlier one is missing.
    assert!(
        producer
            .send(vec![Record::new("x"); 50])
            .await
            .iter()
            .all(Result::is_ok)
    );

    let bad = |call: usize, index: usize| call % 2 == 0 && index == 20 + call;
    let calls = (0..20).map(|call| {
        let records = (0..200).map(|index| {
            let record = Record::new(format!("{call} {index}")).key(format!("{}", index % KEYS));
            match bad(call, index) {
                true => record.timestamp(tomorrow),
                false => record,
            }
        });
        producer.send(records.collect())
    });
    for (call, results) in join_all(calls).await.iter().enumerate() {
        let mut failed = [false; KEYS];
        for (index, result) in results.iter().enumerate() {
            let failed = &mut failed[index % KEYS];
            let kind = result.as_ref().err().map(|rejected| rejected.error.kind());
            match kind {
                Some(ErrorKind::Invalid) if bad(call, index) => *failed = true,
                Some(ErrorKind::Unavailable) if *failed => {}
                None if !*failed && !bad(call, index) => {}
                kind => panic!("record {index} of call {call}: {kind:?}, failed: {failed}"),
            }
        }
    }
    producer.close().await.unwrap();
}
