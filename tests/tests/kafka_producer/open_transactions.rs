//! Transactions that a producer has left open, as readers see them.

use std::time::Duration;

use conformance::Events;
use millstream_core::{Partition, Record, Start};
use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use tokio::time::{Instant, sleep};

use crate::raw_client::{config, create, open, send_all, shared_broker};

/// How long the broker waits for the end of the transaction.
const TRANSACTION_TIMEOUT: &str = "25000";

/// The timeout of everything that must happen.
const TIMEOUT: Duration = Duration::from_secs(90);

const BEHIND: u64 = 1_000;

/// Begins a transaction with one record, and abandons it.
fn leave_open(bootstrap: &str, topic: &str) {
    let mut settings = ClientConfig::new();
    settings.set("bootstrap.servers", bootstrap);
    settings.set("transactional.id", topic);
    settings.set("transaction.timeout.ms", TRANSACTION_TIMEOUT);
    let producer: BaseProducer = settings.create().unwrap();
    producer.init_transactions(TIMEOUT).unwrap();
    producer.begin_transaction().unwrap();
    let record = BaseRecord::<(), _>::to(topic).payload("never seen");
    producer.send(record).map_err(|(error, _)| error).unwrap();
    producer.flush(TIMEOUT).unwrap();
}

async fn until(what: &str, mut is_met: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_met() {
        assert!(begun.elapsed() < TIMEOUT, "{what}");
        sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_behind_a_transaction_that_stays_open_are_a_lag_and_reported() {
    let events = Events::listen();
    let bootstrap = shared_broker().await;
    let topic = "left-open";
    create(&bootstrap, topic, 1, &[]).await;
    let left = bootstrap.clone();
    tokio::task::spawn_blocking(move || leave_open(&left, topic))
        .await
        .unwrap();
    let producer = open(&bootstrap, topic).await;
    let records = (0..BEHIND).map(|number| Record::new(number.to_string()));
    for receipt in send_all(&producer, records).await.await {
        receipt.unwrap();
    }
    let mut config = config(&bootstrap);
    config.statistics_interval = Duration::from_millis(500);
    let client = config.connect().await.unwrap();
    let group = client.group("reader").stream(topic).start(Start::Earliest);
    let mut consumer = group.join().await.unwrap();
    let handle = consumer.handle();
    let reported = || {
        events.with(
            "millstream.kafka.partition.open_transaction",
            "stream",
            topic,
        )
    };
    until("it is reported", || !reported().is_empty()).await;
    let event = reported().remove(0);
    assert!(
        event.has("partition", "0") && event.has("offset", "0"),
        "{event:?}"
    );
    assert!(event.has("records", &(BEHIND + 1).to_string()), "{event:?}");
    let partition = Partition::new(topic, "0");
    let lag = || {
        handle
            .partitions()
            .get(&partition)
            .and_then(|stats| stats.lag.records)
    };
    until("it is a lag", || lag() == Some(BEHIND + 1)).await;
    // The broker ends it, and the other records can be read.
    for _ in 0..BEHIND {
        let next = tokio::time::timeout(TIMEOUT, consumer.next());
        next.await.unwrap().unwrap().unwrap().ack();
    }
    let ended = || {
        events.with(
            "millstream.kafka.partition.transaction_ended",
            "stream",
            topic,
        )
    };
    until("its end is reported", || !ended().is_empty()).await;
    assert_eq!(reported().len(), 1, "it is reported once");
    consumer.close().await.unwrap();
}
