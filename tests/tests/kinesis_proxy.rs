//! The proxy injects exactly the requested faults, as seen by the AWS SDK. Suite cases rely on them.

#![cfg(feature = "kinesis")]
#![allow(clippy::unwrap_used, reason = "these are tests")]

use std::sync::LazyLock;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use aws_sdk_dynamodb::types::{
    AttributeDefinition, AttributeValue, BillingMode, KeySchemaElement, KeyType,
    ScalarAttributeType,
};
use aws_sdk_kinesis::config::retry::RetryConfig;
use aws_sdk_kinesis::config::{AppName, BehaviorVersion, Credentials, Region};
use aws_sdk_kinesis::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_kinesis::operation::put_records::{PutRecordsError, PutRecordsOutput};
use aws_sdk_kinesis::primitives::Blob;
use aws_sdk_kinesis::types::{
    ConsumerStatus, PutRecordsRequestEntry, ShardIteratorType, StartingPosition, StreamStatus,
    SubscribeToShardEventStream,
};
use conformance::kinesis::{Emulator, Endpoint, Faults, Service, Testbed};
use tokio::runtime::Runtime;
use tokio::sync::OnceCell;
use tokio::time::{sleep, timeout};

const TIMEOUT: Duration = Duration::from_secs(30);
const POLL_INTERVAL: Duration = Duration::from_millis(20);
const SHARD: &str = "shardId-000000000000";

/// Outlives each test: the proxies run on it.
static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Runtime::new().unwrap());

/// The testbed that all tests on an emulator share. Its containers are removed with the process.
async fn testbed(emulator: Emulator) -> &'static Testbed {
    static TESTBEDS: [OnceCell<Testbed>; 2] = [const { OnceCell::const_new() }; 2];
    let start = async || Testbed::start(emulator).await;
    TESTBEDS[emulator as usize].get_or_init(start).await
}

fn unique(prefix: &str) -> String {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    format!("{prefix}-{}", COUNT.fetch_add(1, Relaxed))
}

fn kinesis(testbed: &Testbed, name: &str) -> aws_sdk_kinesis::Client {
    kinesis_at(testbed.endpoint(), name)
}

fn kinesis_at(endpoint: String, name: &str) -> aws_sdk_kinesis::Client {
    let [id, secret] = Testbed::CREDENTIALS;
    let config = aws_sdk_kinesis::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new(Testbed::REGION))
        .credentials_provider(Credentials::new(id, secret, None, None, "tests"))
        .retry_config(RetryConfig::disabled())
        .app_name(AppName::new(name.to_owned()).unwrap())
        .endpoint_url(endpoint);
    aws_sdk_kinesis::Client::from_conf(config.build())
}

fn dynamodb(testbed: &Testbed, name: &str) -> aws_sdk_dynamodb::Client {
    let [id, secret] = Testbed::CREDENTIALS;
    let config = aws_sdk_dynamodb::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new(Testbed::REGION))
        .credentials_provider(Credentials::new(id, secret, None, None, "tests"))
        .retry_config(RetryConfig::disabled())
        .app_name(AppName::new(name.to_owned()).unwrap())
        .endpoint_url(testbed.endpoint());
    aws_sdk_dynamodb::Client::from_conf(config.build())
}

/// A stream of one shard, and a client that goes through the proxy.
struct Stream {
    testbed: &'static Testbed,
    name: String,
    client: aws_sdk_kinesis::Client,
}

impl Stream {
    async fn create(testbed: &'static Testbed) -> Self {
        let name = unique("stream");
        let client = kinesis(testbed, "tests");
        let created = client.create_stream().stream_name(&name).shard_count(1);
        created.send().await.unwrap();
        let begun = Instant::now();
        loop {
            let described = client.describe_stream_summary().stream_name(&name).send();
            let described = described.await.unwrap().stream_description_summary.unwrap();
            if described.stream_status == StreamStatus::Active {
                break;
            }
            assert!(begun.elapsed() < TIMEOUT, "the stream is not made");
            sleep(POLL_INTERVAL).await;
        }
        Self {
            testbed,
            name,
            client,
        }
    }

    fn faults(&self) -> &Faults {
        self.testbed.faults()
    }

    /// Sends a record for each key, with the key as its payload.
    async fn send(&self, keys: &[&str]) -> Result<PutRecordsOutput, SdkError<PutRecordsError>> {
        let entries = keys.iter().map(|key| {
            let entry = PutRecordsRequestEntry::builder().data(Blob::new(key.as_bytes()));
            entry.partition_key(*key).build().unwrap()
        });
        let request = self.client.put_records().stream_name(&self.name);
        request.set_records(Some(entries.collect())).send().await
    }

    /// Returns the error of each record that was sent, if any.
    async fn sent(&self, keys: &[&str]) -> Vec<Option<String>> {
        let records = self.send(keys).await.unwrap().records;
        records
            .into_iter()
            .map(|record| record.error_code)
            .collect()
    }

    /// Returns an iterator of the beginning of the stream.
    async fn iterator(&self) -> String {
        let iterator = self.client.get_shard_iterator().stream_name(&self.name);
        let iterator = iterator
            .shard_id(SHARD)
            .shard_iterator_type(ShardIteratorType::TrimHorizon);
        iterator.send().await.unwrap().shard_iterator.unwrap()
    }

    /// Reads the stream from its beginning, and returns the keys of all records.
    async fn stored(&self) -> Vec<String> {
        let iterator = self.iterator().await;
        let read = self
            .client
            .get_records()
            .shard_iterator(iterator)
            .send()
            .await;
        let records = read.unwrap().records.into_iter();
        records.filter_map(|record| record.partition_key).collect()
    }
}

fn code<E: ProvideErrorMetadata, R>(error: &SdkError<E, R>) -> Option<&str> {
    error
        .as_service_error()
        .and_then(ProvideErrorMetadata::code)
}

/// Runs a test on one emulator, then on the other.
fn on_each(test: impl AsyncFn(&'static Testbed)) {
    for emulator in [Emulator::Ferrokinesis, Emulator::KinesisMock] {
        // Printed if it fails.
        println!("on {emulator:?}");
        RUNTIME.block_on(async { test(testbed(emulator).await).await });
    }
}

#[test]
fn records_of_a_key_fail_and_are_not_stored() {
    on_each(async |testbed| {
        let (stream, other) = (Stream::create(testbed).await, Stream::create(testbed).await);
        stream.faults().fail_records(&stream.name, Some("b"), 2);
        let failed = Some("InternalFailure".to_owned());
        assert_eq!(other.sent(&["b"]).await, [None]);
        assert_eq!(
            stream.sent(&["a", "b", "c", "b"]).await,
            [None, failed.clone(), None, failed]
        );
        assert_eq!(stream.stored().await, ["a", "c"]);
        assert_eq!(stream.sent(&["b"]).await, [None]);
        assert_eq!(stream.stored().await, ["a", "c", "b"]);
        let hits = |stream: &Stream| stream.faults().hits(&stream.name);
        assert_eq!((hits(&stream), hits(&other)), (2, 0));
    });
}

#[test]
fn a_reader_misses_no_record_of_concurrent_requests() {
    on_each(async |testbed| {
        const LARGE: usize = 500;
        const REQUESTS: usize = 10;
        const SMALL_PER_LARGE: usize = 5;
        let stream = Stream::create(testbed).await;
        // A large one takes long to be stored. Meanwhile small ones are stored, and read.
        let sends = async |key: &str, records: usize, requests: usize| {
            for _ in 0..requests {
                let errors = stream.sent(&vec![key; records]).await;
                assert!(errors.iter().all(Option::is_none), "{errors:?}");
            }
        };
        let reads = async {
            let mut iterator = stream.iterator().await;
            let (begun, mut missing) = (Instant::now(), REQUESTS * (LARGE + SMALL_PER_LARGE));
            while missing > 0 {
                assert!(begun.elapsed() < TIMEOUT, "{missing} records are missing");
                let records = stream.client.get_records().shard_iterator(iterator);
                let records = records.send().await.unwrap();
                missing -= records.records.len();
                iterator = records.next_shard_iterator.unwrap();
            }
        };
        tokio::join!(
            sends("large", LARGE, REQUESTS),
            sends("small", 1, REQUESTS * SMALL_PER_LARGE),
            reads
        );
    });
}

#[test]
fn sends_are_throttled_whole_or_by_records() {
    on_each(async |testbed| {
        let stream = Stream::create(testbed).await;
        let throttled = "ProvisionedThroughputExceededException";
        stream.faults().throttle_records(&stream.name, 1);
        assert_eq!(
            stream.sent(&["a", "b"]).await,
            [None, Some(throttled.to_owned())]
        );
        stream.faults().throttle_sends(&stream.name, 1);
        let refused = stream.send(&["c"]).await.unwrap_err();
        assert_eq!(code(&refused), Some(throttled));
        assert_eq!(stream.stored().await, ["a"]);
    });
}

#[test]
fn a_send_that_tells_nothing_is_stored_or_not() {
    on_each(async |testbed| {
        let stream = Stream::create(testbed).await;
        stream.faults().cut_sends(&stream.name, 1);
        let cut = stream.send(&["a"]).await.unwrap_err();
        assert!(matches!(cut, SdkError::DispatchFailure(_)), "{cut:?}");
        assert_eq!(stream.stored().await, [""; 0]);
        stream.faults().lose_send_responses(&stream.name, 1);
        let lost = stream.send(&["b"]).await.unwrap_err();
        assert!(matches!(lost, SdkError::DispatchFailure(_)), "{lost:?}");
        stream.faults().fail_stored_sends(&stream.name, 1);
        assert_eq!(
            stream.sent(&["c"]).await,
            [Some("InternalFailure".to_owned())]
        );
        assert_eq!(stream.stored().await, ["b", "c"]);
    });
}

#[test]
fn delayed_answers_come_when_they_are_due() {
    on_each(async |testbed| {
        let stream = Stream::create(testbed).await;
        let by = Duration::from_millis(700);
        stream.faults().delay_send_responses(&stream.name, by);
        let begun = Instant::now();
        assert_eq!(stream.sent(&["a"]).await, [None]);
        let late = begun.elapsed();
        stream
            .faults()
            .delay_send_responses(&stream.name, Duration::ZERO);
        let begun = Instant::now();
        assert_eq!(stream.sent(&["a"]).await, [None]);
        let soon = begun.elapsed();
        assert!(
            late >= by && late < by * 3 && soon < by,
            "{late:?}, {soon:?}"
        );
    });
}

#[test]
fn a_frozen_client_hears_nothing_and_what_it_sent_arrives() {
    on_each(async |testbed| {
        let stream = Stream::create(testbed).await;
        let network = testbed.network(Endpoint::Plain);
        let endpoint = format!("http://{}", network.address("a"));
        let frozen = Stream {
            testbed: stream.testbed,
            name: stream.name.clone(),
            client: kinesis_at(endpoint, "a"),
        };
        let (a_while, second) = (Duration::from_millis(300), Duration::from_secs(1));
        network.of("a").freeze(second);
        let begun = Instant::now();
        let given_up = timeout(a_while, frozen.send(&["a"])).await;
        assert!(given_up.is_err());
        assert_eq!(stream.stored().await, [""; 0], "others are not frozen");
        assert_eq!(frozen.sent(&["b"]).await, [None]);
        assert!(begun.elapsed() >= second);
        while stream.stored().await.len() < 2 {
            assert!(begun.elapsed() < TIMEOUT, "what was sent is lost");
            sleep(POLL_INTERVAL).await;
        }
    });
}

#[test]
fn a_client_is_cut_off_from_one_service() {
    on_each(async |testbed| {
        let name = unique("client");
        let (kinesis, dynamodb) = (kinesis(testbed, &name), dynamodb(testbed, &name));
        let second = Duration::from_secs(1);
        testbed
            .faults()
            .cut_off(&name, "", Service::DynamoDb, second);
        let begun = Instant::now();
        let cut_off = dynamodb.list_tables().send().await.unwrap_err();
        assert!(
            matches!(cut_off, SdkError::DispatchFailure(_)),
            "{cut_off:?}"
        );
        kinesis.list_streams().send().await.unwrap();
        while dynamodb.list_tables().send().await.is_err() {
            assert!(begun.elapsed() < TIMEOUT, "it stays cut off");
            sleep(POLL_INTERVAL).await;
        }
        assert!(begun.elapsed() >= second);
    });
}

/// A lease table with one lease, `0`.
async fn table(client: &aws_sdk_dynamodb::Client) -> String {
    let name = unique("table");
    let attribute = AttributeDefinition::builder()
        .attribute_name("leaseKey")
        .attribute_type(ScalarAttributeType::S);
    let key = KeySchemaElement::builder()
        .attribute_name("leaseKey")
        .key_type(KeyType::Hash);
    let created = client
        .create_table()
        .table_name(&name)
        .attribute_definitions(attribute.build().unwrap())
        .key_schema(key.build().unwrap())
        .billing_mode(BillingMode::PayPerRequest);
    created.send().await.unwrap();
    name
}

#[test]
fn checkpoints_are_refused_or_their_answers_are_lost() {
    on_each(async |testbed| {
        let client = dynamodb(testbed, "tests");
        let table = table(&client).await;
        let set = async |attribute: &str, value: &str| {
            let update = client.update_item().table_name(&table);
            let update = update
                .key("leaseKey", AttributeValue::S("0".into()))
                .update_expression("SET #a = :v")
                .expression_attribute_names("#a", attribute)
                .expression_attribute_values(":v", AttributeValue::S(value.into()));
            update.send().await.map(drop)
        };
        let stored = async || {
            let lease = client.get_item().table_name(&table);
            let lease = lease
                .key("leaseKey", AttributeValue::S("0".into()))
                .consistent_read(true);
            let lease = lease.send().await.unwrap().item.unwrap();
            lease
                .get("checkpoint")
                .map(|value| value.as_s().unwrap().clone())
        };
        testbed.faults().refuse_checkpoints(&table, 1);
        set("leaseOwner", "a").await.unwrap();
        let refused = set("checkpoint", "1").await.unwrap_err();
        assert_eq!(code(&refused), Some("InternalFailure"));
        assert_eq!(stored().await, None);
        testbed.faults().lose_checkpoint_responses(&table, 1);
        let lost = set("checkpoint", "2").await.unwrap_err();
        assert!(matches!(lost, SdkError::DispatchFailure(_)), "{lost:?}");
        assert_eq!(stored().await.as_deref(), Some("2"));
        testbed.faults().throttle_table(&table, 1);
        let throttled = set("leaseOwner", "b").await.unwrap_err();
        assert_eq!(
            code(&throttled),
            Some("ProvisionedThroughputExceededException")
        );
        set("checkpoint", "3").await.unwrap();
        assert_eq!(testbed.faults().hits(&table), 3);
    });
}

#[test]
fn trimmed_records_are_gone() {
    on_each(async |testbed| {
        let (stream, other) = (Stream::create(testbed).await, Stream::create(testbed).await);
        for stream in [&stream, &other] {
            assert_eq!(stream.sent(&["a", "b"]).await, [None, None]);
        }
        stream.testbed.trim(&stream.name).await;
        assert_eq!(stream.stored().await, [""; 0]);
        assert_eq!(stream.sent(&["c"]).await, [None]);
        assert_eq!(stream.stored().await, ["c"]);
        assert_eq!(other.stored().await, ["a", "b"]);
    });
}

/// Returns the keys of the records from a subscription, until there are that many or it ends.
async fn subscribed(stream: &Stream, consumer: &str, count: usize) -> (Vec<String>, bool) {
    let position = StartingPosition::builder().r#type(ShardIteratorType::TrimHorizon);
    let subscribe = stream.client.subscribe_to_shard().consumer_arn(consumer);
    let subscribe = subscribe
        .shard_id(SHARD)
        .starting_position(position.build().unwrap());
    let mut keys = Vec::new();
    let mut events = match subscribe.send().await {
        Ok(subscribed) => subscribed.event_stream,
        // It may be cut before its response begins.
        Err(SdkError::ResponseError(_) | SdkError::DispatchFailure(_)) => return (keys, true),
        Err(error) => panic!("{error:?}"),
    };
    while keys.len() < count {
        match timeout(TIMEOUT, events.recv()).await.unwrap() {
            Ok(Some(SubscribeToShardEventStream::SubscribeToShardEvent(event))) => {
                keys.extend(
                    event
                        .records
                        .into_iter()
                        .filter_map(|record| record.partition_key),
                );
            }
            Ok(Some(other)) => panic!("{other:?}"),
            Ok(None) => panic!("it ends cleanly"),
            Err(_) => return (keys, true),
        }
    }
    (keys, false)
}

#[test]
fn subscriptions_show_what_is_left_and_are_cut() {
    on_each(async |testbed| {
        let stream = Stream::create(testbed).await;
        let described = stream
            .client
            .describe_stream_summary()
            .stream_name(&stream.name);
        let described = described
            .send()
            .await
            .unwrap()
            .stream_description_summary
            .unwrap();
        let arn = described.stream_arn;
        let register = stream.client.register_stream_consumer().stream_arn(&arn);
        let registered = register.consumer_name("tests").send().await.unwrap();
        let consumer = registered.consumer.unwrap().consumer_arn;
        let begun = Instant::now();
        loop {
            let described = stream
                .client
                .describe_stream_consumer()
                .consumer_arn(&consumer);
            let described = described
                .send()
                .await
                .unwrap()
                .consumer_description
                .unwrap();
            if described.consumer_status == ConsumerStatus::Active {
                break;
            }
            assert!(begun.elapsed() < TIMEOUT, "the consumer is not registered");
            sleep(POLL_INTERVAL).await;
        }
        assert_eq!(stream.sent(&["a", "b"]).await, [None, None]);
        assert_eq!(
            subscribed(&stream, &consumer, 2).await,
            (vec!["a".into(), "b".into()], false)
        );
        stream.testbed.trim(&stream.name).await;
        assert_eq!(stream.sent(&["c"]).await, [None]);
        // Until this one is cut: an ended subscription may count as active for a while, and be cut in its place.
        let cut_all = async {
            loop {
                stream.faults().cut_subscriptions(&stream.name);
                sleep(POLL_INTERVAL).await;
            }
        };
        let (keys, cut) = tokio::select! {
            ended = subscribed(&stream, &consumer, usize::MAX) => ended,
            () = cut_all => unreachable!("it has no end"),
        };
        assert!(cut && keys.len() <= 1, "{keys:?}");
        // Like Kinesis, it considers a subscription active for a while after it is cut.
        let begun = Instant::now();
        while subscribed(&stream, &consumer, 1).await != (vec!["c".into()], false) {
            assert!(begun.elapsed() < TIMEOUT, "what is left is not shown");
            sleep(POLL_INTERVAL).await;
        }
    });
}

#[test]
fn a_lasting_site_keeps_what_it_has_through_a_restart() {
    RUNTIME.block_on(async {
        // Its containers are removed with the process, too.
        let testbed: &'static Testbed = Box::leak(Box::new(Testbed::persistent().await));
        let stream = Stream::create(testbed).await;
        assert_eq!(stream.sent(&["a"]).await, [None]);
        let table = table(testbed.dynamodb()).await;
        testbed.restart().await;
        assert_eq!(stream.sent(&["b"]).await, [None]);
        assert_eq!(stream.stored().await, ["a", "b"]);
        let tables = dynamodb(testbed, "tests")
            .list_tables()
            .send()
            .await
            .unwrap();
        assert!(tables.table_names().contains(&table));
    });
}
