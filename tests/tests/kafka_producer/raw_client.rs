//! Reads and administers the broker with rdkafka, without the tested driver.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use conformance::kafka::{Broker, Options};
use futures_util::future::{JoinAll, join_all};
use millstream_core::{Client, Producer, Receipt, Record, RecordMetadata};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{BorrowedMessage, Headers, Message};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use tokio::sync::OnceCell;

const TIMEOUT: Duration = Duration::from_secs(60);

/// Returns a broker without faults, which all tests of this process share.
pub(crate) async fn shared_broker() -> String {
    static BROKER: OnceCell<Broker> = OnceCell::const_new();
    let broker = BROKER.get_or_init(|| Options::new().start()).await;
    broker.bootstrap()
}

pub(crate) fn config(bootstrap: &str) -> millstream_kafka::Config {
    let mut config = millstream_kafka::Config::default();
    config.brokers = vec![bootstrap.to_owned()];
    config
}

pub(crate) async fn connect(bootstrap: &str) -> Client {
    config(bootstrap).connect().await.unwrap()
}

/// Opens a producer of a new client.
pub(crate) async fn open(bootstrap: &str, topic: &str) -> Producer {
    let client = connect(bootstrap).await;
    client.producer(topic).open().await.unwrap()
}

/// Sends a record and awaits its receipt.
pub(crate) async fn send_and_wait(
    producer: &Producer,
    record: Record,
) -> millstream_core::Result<RecordMetadata> {
    producer.send(record).await.unwrap().await
}

/// Sends records in turn, and returns when all are accepted, before their responses.
pub(crate) async fn send_all(
    producer: &Producer,
    records: impl IntoIterator<Item = Record>,
) -> JoinAll<Receipt> {
    let mut receipts = Vec::new();
    for record in records {
        receipts.push(producer.send(record).await.unwrap());
    }
    join_all(receipts)
}

/// Returns a numbered record, of one of `keys` keys.
pub(crate) fn numbered(number: u64, keys: u64) -> Record {
    Record::new(number.to_be_bytes().to_vec()).key(format!("{}", number % keys))
}

pub(crate) fn admin(bootstrap: &str) -> AdminClient<DefaultClientContext> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", bootstrap);
    // A broker that was frozen is outside its cluster for a moment. A client that then learns that
    // there is no controller waits until its next metadata refresh.
    config.set("topic.metadata.refresh.interval.ms", "1000");
    config.create().unwrap()
}

pub(crate) async fn create(
    bootstrap: &str,
    topic: &str,
    partitions: i32,
    settings: &[(&str, &str)],
) {
    let mut new = NewTopic::new(topic, partitions, TopicReplication::Fixed(1));
    for (name, value) in settings {
        new = new.set(name, value);
    }
    let options = AdminOptions::new().operation_timeout(Some(TIMEOUT));
    let admin = admin(bootstrap);
    let created = admin.create_topics([&new], &options).await;
    created.unwrap().pop().unwrap().unwrap();
    let topic = topic.to_owned();
    let appears = move || {
        let begun = Instant::now();
        while !is_there(&admin, &topic) {
            assert!(begun.elapsed() < TIMEOUT, "{topic} does not appear");
        }
    };
    tokio::task::spawn_blocking(appears).await.unwrap();
}

/// A broker learns of a new topic somewhat later than the controller that has created it.
fn is_there(admin: &AdminClient<DefaultClientContext>, topic: &str) -> bool {
    let metadata = admin.inner().fetch_metadata(Some(topic), TIMEOUT).unwrap();
    let partitions = metadata.topics()[0].partitions();
    !partitions.is_empty() && partitions.iter().all(|p| p.leader() >= 0)
}

pub(crate) async fn delete(bootstrap: &str, topic: &str) {
    let options = AdminOptions::new().operation_timeout(Some(TIMEOUT));
    let deleted = admin(bootstrap).delete_topics(&[topic], &options).await;
    deleted.unwrap().pop().unwrap().unwrap();
}

/// A record as it was stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StoredMessage {
    pub(crate) offset: i64,
    pub(crate) key: Option<Vec<u8>>,
    pub(crate) payload: Option<Vec<u8>>,
    pub(crate) headers: Vec<(String, Option<Vec<u8>>)>,
    pub(crate) timestamp: i64,
}

impl StoredMessage {
    fn new(message: &BorrowedMessage<'_>) -> Self {
        let headers = message.headers().map(|headers| {
            let pairs = headers.iter();
            let pairs = pairs.map(|h| (h.key.to_owned(), h.value.map(<[u8]>::to_vec)));
            pairs.collect()
        });
        Self {
            offset: message.offset(),
            key: message.key().map(<[u8]>::to_vec),
            payload: message.payload().map(<[u8]>::to_vec),
            headers: headers.unwrap_or_default(),
            // `None` for a record without a timestamp.
            timestamp: message.timestamp().to_millis().unwrap_or(-1),
        }
    }
}

/// Returns all current records of a topic, by partition.
pub(crate) async fn read(bootstrap: &str, topic: &str) -> BTreeMap<i32, Vec<StoredMessage>> {
    let (bootstrap, topic) = (bootstrap.to_owned(), topic.to_owned());
    let read = move || read_blocking(&bootstrap, &topic);
    tokio::task::spawn_blocking(read).await.unwrap()
}

fn read_blocking(bootstrap: &str, topic: &str) -> BTreeMap<i32, Vec<StoredMessage>> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", bootstrap);
    config.set("group.id", "witness");
    config.set("enable.partition.eof", "true");
    let consumer: BaseConsumer = config.create().unwrap();
    let metadata = consumer.fetch_metadata(Some(topic), TIMEOUT).unwrap();
    let mut list = TopicPartitionList::new();
    let mut stored = BTreeMap::new();
    let mut reading = 0;
    for partition in metadata.topics()[0].partitions() {
        list.add_partition_offset(topic, partition.id(), Offset::Beginning)
            .unwrap();
        stored.insert(partition.id(), Vec::new());
        reading += 1;
    }
    consumer.assign(&list).unwrap();
    while reading > 0 {
        match consumer.poll(TIMEOUT).unwrap() {
            Ok(message) => {
                let seen = StoredMessage::new(&message);
                stored.get_mut(&message.partition()).unwrap().push(seen);
            }
            Err(rdkafka::error::KafkaError::PartitionEOF(_)) => reading -= 1,
            Err(error) => panic!("{topic} cannot be read: {error}"),
        }
    }
    stored
}
