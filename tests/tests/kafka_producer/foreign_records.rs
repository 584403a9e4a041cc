//! Records of other producers that the tested driver would not have written this way.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use millstream_core::{Delivery, Record, Start};
use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};

use crate::raw_client::{connect, create, read, send_and_wait, shared_broker};

const TIMEOUT: Duration = Duration::from_secs(60);

/// Writes records with these timestamps, in this order, to one partition.
async fn write(bootstrap: &str, topic: &str, timestamps: impl IntoIterator<Item = Option<i64>>) {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", bootstrap);
    let producer: BaseProducer = config.create().unwrap();
    for (number, timestamp) in timestamps.into_iter().enumerate() {
        let payload = number.to_string();
        let mut record = BaseRecord::<(), _>::to(topic).payload(&payload);
        record.timestamp = timestamp;
        producer.send(record).map_err(|(error, _)| error).unwrap();
    }
    tokio::task::spawn_blocking(move || producer.flush(TIMEOUT).unwrap())
        .await
        .unwrap();
}

/// -1 means no timestamp, as in records from before Kafka 0.10.
fn without_one_in_the_middle() -> impl Iterator<Item = Option<i64>> {
    (0..21).map(|number| (number == 10).then_some(-1))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_without_timestamp_is_passed_on() {
    let bootstrap = shared_broker().await;
    create(&bootstrap, "timeless", 1, &[]).await;
    create(&bootstrap, "timeless-copy", 1, &[]).await;
    write(&bootstrap, "timeless", without_one_in_the_middle()).await;
    let client = connect(&bootstrap).await;
    let copy = client.producer("timeless-copy").open().await.unwrap();
    let group = client.group("timeless-group").stream("timeless");
    let pass_on =
        |delivery: Delivery| async move { Ok::<_, std::io::Error>([delivery.to_record()]) };
    let group = group.start(Start::Earliest);
    let running = tokio::spawn(group.transform_to(&copy, pass_on, std::future::pending()));
    let begun = Instant::now();
    loop {
        assert!(!running.is_finished(), "the pipeline ended");
        let copied = read(&bootstrap, "timeless-copy").await.remove(&0).unwrap();
        if copied.len() == 21 {
            assert_eq!(copied[10].timestamp, -1);
            assert!(copied[9].timestamp > 0 && copied[11].timestamp > 0);
            break;
        }
        let (waited, count) = (begun.elapsed(), copied.len());
        assert!(waited < TIMEOUT, "{count} of 21 were passed on");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    running.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unread_records_without_timestamp_count_as_lag() {
    let bootstrap = shared_broker().await;
    create(&bootstrap, "timeless-lag", 1, &[]).await;
    let client = connect(&bootstrap).await;
    let group = client.group("timeless-lag-group").stream("timeless-lag");
    let consumer = group.start(Start::Earliest).join().await.unwrap();
    consumer.close().await.unwrap();
    write(&bootstrap, "timeless-lag", [Some(-1); 5]).await;
    let group = client.group("timeless-lag-group");
    let checkpoints = group.checkpoints().await.unwrap();
    let [checkpoint] = &checkpoints[..] else {
        panic!("{checkpoints:?}");
    };
    assert_eq!(
        (checkpoint.lag.records, checkpoint.lag.time),
        (Some(5), None)
    );
}

/// The bytes of the header name are ff and fe.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_header_name_that_is_not_utf8_is_passed_on() {
    const NAME: &str = "\u{10FFFF}\u{10FFFE}";
    let bootstrap = shared_broker().await;
    create(&bootstrap, "odd-name", 1, &[]).await;
    let client = connect(&bootstrap).await;
    let producer = client.producer("odd-name").open().await.unwrap();
    let record = Record::new("x").header(NAME, "v").timestamp(UNIX_EPOCH);
    send_and_wait(&producer, record).await.unwrap();
    let group = client.group("odd-name-group").stream("odd-name");
    let mut consumer = group.start(Start::Earliest).join().await.unwrap();
    let next = tokio::time::timeout(TIMEOUT, consumer.next())
        .await
        .unwrap();
    let delivery = next.unwrap().unwrap();
    assert_eq!(delivery.headers().get_str(NAME), Some("v"));
    assert_eq!(delivery.timestamp(), UNIX_EPOCH);
    delivery.ack();
    consumer.close().await.unwrap();
}

/// The broker sets the time at which it stores them, which is the time that a start at a time compares.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_of_a_topic_with_log_append_time_have_the_time_of_the_broker() {
    let bootstrap = shared_broker().await;
    let settings = [("message.timestamp.type", "LogAppendTime")];
    create(&bootstrap, "append-time", 1, &settings).await;
    let client = connect(&bootstrap).await;
    let producer = client.producer("append-time").open().await.unwrap();
    let begun = SystemTime::now() - Duration::from_secs(1);
    let an_hour_ago = begun - Duration::from_secs(3_600);
    let record = Record::new("x").timestamp(an_hour_ago);
    producer.send(record).await.unwrap().await.unwrap();
    producer.close().await.unwrap();

    let group = client.group("append-time").stream("append-time");
    let mut consumer = group.start(Start::At(begun)).join().await.unwrap();
    let next = tokio::time::timeout(TIMEOUT, consumer.next()).await;
    let delivery = next.unwrap().unwrap().unwrap();
    assert!(delivery.timestamp() >= begun, "{delivery:?}");
    // The converted record has that time, too.
    assert_eq!(delivery.to_record().timestamp, Some(delivery.timestamp()));
    delivery.ack();
    consumer.close().await.unwrap();
}
