//! Programs on Kafka's own client and on this one share topics and groups. The other side consists of Kafka's
//! console tools, which are shipped with the broker, and of the broker's own description of groups.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use conformance::kafka::{Broker, Options};
use millstream_core::{Client, Consumer, Delivery, ErrorKind, PendingDelivery, Record, StreamSpec};
use millstream_kafka::Config;
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _};
use rdkafka::message::Message as _;

const TIMEOUT: Duration = Duration::from_secs(60);

async fn connect(broker: &Broker) -> Client {
    let mut config = Config::default();
    config.brokers = vec![broker.bootstrap()];
    config.connect().await.expect("the broker is there")
}

async fn create(client: &Client, stream: &str, partitions: usize) {
    let spec = StreamSpec::new(stream).partitions(partitions);
    client.streams().create(spec).await.expect("it is created");
}

/// Sends the lines of a file within the container by Kafka's console producer. It reports a
/// failure only in its log.
async fn java_produces(broker: &Broker, topic: &str, file: &str, properties: &[&str]) {
    let properties: String = properties
        .iter()
        .map(|property| format!(" --property '{property}'"))
        .collect();
    let produce = format!(
        "/opt/kafka/bin/kafka-console-producer.sh --bootstrap-server localhost:9093 --topic {topic} \
         --message-send-max-retries 100{properties} < {file}"
    );
    let output = broker.exec(&["bash", "-c", &produce]).await;
    assert!(!output.stderr.contains("ERROR"), "{output:?}");
    output.ok();
}

/// Returns the output of Kafka's console consumer for `count` records.
async fn java_consumes(broker: &Broker, topic: &str, count: usize, more: &[&str]) -> Vec<String> {
    let count = count.to_string();
    let mut args = vec!["--topic", topic, "--max-messages", &count];
    args.extend(["--timeout-ms", "60000"]);
    args.extend(more);
    let printed = broker.tool("kafka-console-consumer.sh", &args).await.ok();
    printed.lines().map(str::to_owned).collect()
}

async fn next(consumer: &mut Consumer) -> PendingDelivery {
    let next = tokio::time::timeout(TIMEOUT, consumer.next()).await;
    let next = next.expect("a delivery comes").expect("it is consumed");
    next.expect("the consumer is open")
}

/// Reads `count` records as a group, in order within each partition.
async fn read(client: &Client, group: &str, stream: &str, count: usize) -> Vec<Delivery> {
    let group = client.group(group).stream(stream).concurrency(1);
    let mut consumer = group.join().await.expect("it joins");
    let mut read = Vec::new();
    while read.len() < count {
        let delivery = next(&mut consumer).await;
        read.push((*delivery).clone());
        delivery.ack();
    }
    consumer.close().await.expect("it closes");
    read
}

fn millis(at: SystemTime) -> u128 {
    let since = at.duration_since(UNIX_EPOCH).expect("later than 1970");
    since.as_millis()
}

/// Returns keys of all length remainders that the hash distinguishes, with bytes of either sign.
fn keys() -> Vec<String> {
    let mut keys = vec![String::new()];
    for n in 1..10_000 {
        keys.push(match n % 4 {
            0 => format!("key-{n}"),
            1 => format!("clé-{n}"),
            2 => format!("{n}-ключ-鍵-🔑"),
            _ => format!("{n}{}", "é0".repeat(n % 90)),
        });
    }
    keys
}

#[tokio::test]
async fn a_key_is_in_the_same_partition_whoever_sends_it() {
    const PARTITIONS: usize = 17;
    let keys = keys();
    let lines: String = keys.iter().map(|key| format!("{key}\tx\n")).collect();
    let broker = Options::new().file("/etc/millstream/keys", lines);
    let broker = broker.start().await;
    let client = connect(&broker).await;
    create(&client, "of-java", PARTITIONS).await;
    create(&client, "of-sdk", PARTITIONS).await;

    java_produces(
        &broker,
        "of-java",
        "/etc/millstream/keys",
        &["parse.key=true"],
    )
    .await;
    let producer = client.producer("of-sdk").open().await.expect("it opens");
    let mut receipts = Vec::new();
    for key in &keys {
        let sent = producer.send(Record::new("x").key(key.clone())).await;
        receipts.push(sent.expect("it is taken"));
    }
    let mut ours = BTreeMap::new();
    for (key, receipt) in keys.iter().zip(receipts) {
        let metadata = receipt.await.expect("it is stored");
        ours.insert(key.clone(), metadata.partition.id().to_owned());
    }
    producer.close().await.expect("it closes");

    let theirs = read(&client, "reader", "of-java", keys.len()).await;
    let theirs: BTreeMap<_, _> = theirs
        .iter()
        .map(|delivery| {
            let key = delivery.key().expect("each has a key").to_vec();
            let key = String::from_utf8(key).expect("keys are text");
            (key, delivery.partition().id().to_owned())
        })
        .collect();
    assert_eq!(theirs.len(), keys.len());
    let apart = ours.iter().filter(|(key, at)| theirs.get(*key) != Some(at));
    assert_eq!(apart.collect::<Vec<_>>(), []);
    let used: BTreeSet<_> = ours.values().collect();
    assert_eq!(used.len(), PARTITIONS, "the keys show nothing");
}

/// It deletes its key from a compacted topic, which an empty payload does not.
#[tokio::test]
async fn a_null_value_of_java_is_read_as_a_tombstone() {
    let lines = "key\tNULL\nkey\tlater\n";
    let broker = Options::new().file("/etc/millstream/records", lines);
    let broker = broker.start().await;
    let client = connect(&broker).await;
    create(&client, "of-java", 1).await;
    let parse = ["parse.key=true", "null.marker=NULL"];
    java_produces(&broker, "of-java", "/etc/millstream/records", &parse).await;
    let theirs = read(&client, "reader", "of-java", 2).await;
    let tombstones: Vec<_> = theirs
        .iter()
        .map(|delivery| delivery.is_tombstone())
        .collect();
    assert_eq!(tombstones, [true, false]);
    assert_eq!(*theirs[1].payload(), "later");
    assert!(
        theirs
            .iter()
            .all(|of| of.key().is_some_and(|key| key == "key"))
    );
}

#[tokio::test]
async fn records_are_the_same_on_either_side() {
    let lines = "a:1,b:é,a:2\tkey\tof java\nNULL\tNULL\tbare\nc:\t\tempty key\n";
    let broker = Options::new().file("/etc/millstream/records", lines);
    let broker = broker.start().await;
    let client = connect(&broker).await;
    let began = SystemTime::now();

    create(&client, "of-java", 1).await;
    let parse = ["parse.key=true", "parse.headers=true", "null.marker=NULL"];
    java_produces(&broker, "of-java", "/etc/millstream/records", &parse).await;
    let theirs = read(&client, "reader", "of-java", 3).await;
    let seen: Vec<_> = theirs
        .iter()
        .map(|delivery| {
            let headers = delivery.headers().iter();
            let headers =
                headers.map(|(name, value)| (name.to_owned(), value.map(|value| value.to_vec())));
            (
                delivery.key().map(|key| key.to_vec()),
                delivery.payload().to_vec(),
                headers.collect::<Vec<_>>(),
            )
        })
        .collect();
    let header = |name: &str, value: &str| (name.to_owned(), Some(value.as_bytes().to_vec()));
    assert_eq!(
        seen,
        [
            (
                Some(b"key".to_vec()),
                b"of java".to_vec(),
                vec![header("a", "1"), header("b", "é"), header("a", "2")]
            ),
            (None, b"bare".to_vec(), vec![]),
            (Some(vec![]), b"empty key".to_vec(), vec![header("c", "")]),
        ]
    );
    for delivery in &theirs {
        let at = millis(delivery.timestamp());
        assert!(millis(began) <= at && at <= millis(SystemTime::now()));
    }

    create(&client, "of-sdk", 1).await;
    let producer = client.producer("of-sdk").open().await.expect("it opens");
    let at = UNIX_EPOCH + Duration::from_millis(1_700_000_000_123);
    let full = Record::new("of the sdk").key("clé").timestamp(at);
    let full = full.header("a", "1").header("b", "é").header("a", "2");
    for record in [
        full,
        Record::new("bare"),
        Record::new("empty key").key(Bytes::new()),
    ] {
        let receipt = producer.send(record).await.expect("it is taken");
        receipt.await.expect("it is stored");
    }
    producer.close().await.expect("it closes");

    let print = |what: &str| format!("print.{what}=true");
    let print = ["timestamp", "partition", "offset", "headers", "key"].map(print);
    let mut args = vec!["--from-beginning"];
    for property in &print {
        args.extend(["--property", property]);
    }
    // The tool prints the data of both sides, including the timestamps of this side's records.
    for (topic, deliveries) in [
        ("of-java", theirs),
        ("of-sdk", read(&client, "reader", "of-sdk", 3).await),
    ] {
        let printed = java_consumes(&broker, topic, 3, &args).await;
        let expected: Vec<_> = deliveries.iter().map(as_printed).collect();
        assert_eq!(printed, expected, "{topic}");
    }
}

/// Returns a record as the console consumer prints it.
fn as_printed(delivery: &Delivery) -> String {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("it is text");
    let headers = delivery.headers().iter();
    let headers: Vec<_> = headers
        .map(|(name, value)| {
            let value = value.map_or("null".to_owned(), |value| text(value));
            format!("{name}:{value}")
        })
        .collect();
    let headers = match headers.is_empty() {
        true => "NO_HEADERS".to_owned(),
        false => headers.join(","),
    };
    format!(
        "CreateTime:{}\tPartition:{}\tOffset:{}\t{headers}\t{}\t{}",
        millis(delivery.timestamp()),
        delivery.partition().id(),
        delivery.position(),
        delivery.key().map_or("null".to_owned(), |key| text(key)),
        text(delivery.payload()),
    )
}

/// The output of `kafka-consumer-groups.sh --describe` for one partition.
#[derive(Debug)]
struct Described {
    topic: String,
    current: u64,
    lag: u64,
    /// `None` if it has no owner.
    client: Option<String>,
}

async fn describe(broker: &Broker, group: &str) -> BTreeMap<usize, Described> {
    let args = ["--describe", "--group", group];
    let said = broker.tool("kafka-consumer-groups.sh", &args).await.ok();
    let lines = said
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>());
    lines
        .filter(|words| words.first() == Some(&group))
        .map(|words| {
            let number = |n: usize| {
                let word: &str = words[n];
                word.parse().unwrap_or_else(|_| panic!("{word} in {said}"))
            };
            let partition = usize::try_from(number(2)).expect("a partition");
            let described = Described {
                topic: words[1].to_owned(),
                current: number(3),
                lag: number(5),
                client: Some(words[8].to_owned()).filter(|client| client != "-"),
            };
            (partition, described)
        })
        .collect()
}

#[tokio::test]
async fn kafkas_own_tool_shows_a_group_and_its_lag() {
    const PARTITIONS: usize = 4;
    let broker = Options::new().start().await;
    let client = connect(&broker).await;
    create(&client, "shown", PARTITIONS).await;
    let group = |member: &str| client.group("readers").stream("shown").member(member);
    let mut a = group("a").join().await.expect("it joins");
    let mut b = group("b").join().await.expect("it joins");

    let producer = client.producer("shown").open().await.expect("it opens");
    for n in 0..100 {
        let record = Record::new("x").key(format!("key-{n}"));
        let receipt = producer.send(record).await.expect("it is taken");
        receipt.await.expect("it is stored");
    }
    producer.close().await.expect("it closes");

    // Of the records that both get, the last one of one partition is held.
    let mut held: Option<PendingDelivery> = None;
    let mut settled = BTreeMap::new();
    let streams = client.streams();
    let ends = streams.describe("shown").await.expect("it is there");
    let last = ends.partitions.iter().find(|p| p.partition.id() == "2");
    let last = last.and_then(|p| p.latest).expect("partition 2 has some");
    while settled.values().sum::<u64>() < 99 || held.is_none() {
        let delivery = tokio::time::timeout(TIMEOUT, async {
            tokio::select! {
                delivery = a.next() => delivery,
                delivery = b.next() => delivery,
            }
        });
        let delivery = delivery.await.expect("a delivery comes");
        let delivery = delivery.expect("it is consumed").expect("it is open");
        if delivery.partition().id() == "2" && delivery.position() == last {
            held = Some(delivery);
        } else {
            let partition: usize = delivery.partition().id().parse().expect("a number");
            *settled.entry(partition).or_insert(0) += 1;
            delivery.ack();
        }
    }
    let deadline = tokio::time::Instant::now() + TIMEOUT;
    let shown = loop {
        let shown = describe(&broker, "readers").await;
        if shown.values().map(|p| p.current).sum::<u64>() == 99 {
            break shown;
        }
        assert!(tokio::time::Instant::now() < deadline, "{shown:?}");
    };
    assert_eq!(shown.len(), PARTITIONS);
    let mut clients = BTreeMap::new();
    for (partition, described) in &shown {
        assert_eq!(described.topic, "shown");
        assert_eq!(described.current, settled[partition]);
        assert_eq!(described.lag, u64::from(*partition == 2));
        let client = described.client.clone().expect("somebody has it");
        *clients.entry(client).or_insert(0) += 1;
    }
    let expected = ["millstream.a", "millstream.b"].map(|name| (name.to_owned(), 2));
    assert_eq!(clients, BTreeMap::from(expected));

    held.expect("it is held").ack();
    a.close().await.expect("it closes");
    b.close().await.expect("it closes");
    let shown = describe(&broker, "readers").await;
    let left = |described: &Described| described.lag == 0 && described.client.is_none();
    assert!(shown.values().all(left), "{shown:?}");
}

/// Sends 100 different records with keys.
async fn send_all(client: &Client, stream: &str) -> BTreeSet<String> {
    let all: BTreeSet<_> = (0..100).map(|n| format!("record-{n}")).collect();
    let producer = client.producer(stream).open().await.expect("it opens");
    for record in &all {
        let record = Record::new(record.clone()).key(record.clone());
        let receipt = producer.send(record).await.expect("it is taken");
        receipt.await.expect("it is stored");
    }
    producer.close().await.expect("it closes");
    all
}

/// Returns the payloads of deliveries.
fn texts(read: &[Delivery]) -> Vec<String> {
    let texts = read.iter().map(|d| String::from_utf8(d.payload().to_vec()));
    texts.map(|text| text.expect("it is text")).collect()
}

#[tokio::test]
async fn a_group_goes_on_where_the_other_client_left_it() {
    let broker = Options::new().start().await;
    let client = connect(&broker).await;
    create(&client, "shared", 3).await;
    let all = send_all(&client, "shared").await;
    let theirs = |group: &'static str| ["--group", group, "--from-beginning"];

    let mut read_by_both = java_consumes(&broker, "shared", 30, &theirs("from-java")).await;
    assert_eq!(read_by_both.len(), 30);
    read_by_both.extend(texts(&read(&client, "from-java", "shared", 70).await));
    assert_eq!(read_by_both.len(), 100);
    assert_eq!(BTreeSet::from_iter(read_by_both), all);

    let mut read_by_both = texts(&read(&client, "to-java", "shared", 40).await);
    read_by_both.extend(java_consumes(&broker, "shared", 60, &theirs("to-java")).await);
    assert_eq!(read_by_both.len(), 100);
    assert_eq!(BTreeSet::from_iter(read_by_both), all);

    for group in ["from-java", "to-java"] {
        let shown = describe(&broker, group).await;
        assert!(shown.values().all(|p| p.lag == 0), "{group}: {shown:?}");
    }
}

/// Handles `count` records as a member of a group with Kafka's oldest assignment strategy, and commits.
/// Then remains a member while the result is alive.
fn eager_member(broker: &Broker, group: &str, count: usize) -> (BaseConsumer, BTreeSet<String>) {
    let mut settings = ClientConfig::new();
    settings.set("bootstrap.servers", broker.bootstrap());
    settings.set("group.id", group);
    settings.set("partition.assignment.strategy", "range");
    settings.set("auto.offset.reset", "earliest");
    settings.set("enable.auto.commit", "false");
    let consumer: BaseConsumer = settings.create().expect("it is made");
    consumer.subscribe(&["eager"]).expect("it subscribes");
    let begun = std::time::Instant::now();
    let mut handled = BTreeSet::new();
    while handled.len() < count {
        assert!(begun.elapsed() < TIMEOUT, "{} are handled", handled.len());
        if let Some(message) = consumer.poll(Duration::from_millis(100)) {
            let message = message.expect("a record");
            let text = message.payload_view::<str>().expect("it has one");
            handled.insert(text.expect("it is text").to_owned());
            let committed = consumer.commit_message(&message, CommitMode::Sync);
            committed.expect("it is committed");
        }
    }
    (consumer, handled)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_of_an_eager_strategy_is_moved_when_its_members_have_ended() {
    let broker = Options::new().start().await;
    let client = connect(&broker).await;
    create(&client, "eager", 3).await;
    let all = send_all(&client, "eager").await;
    let (member, mut handled) = tokio::task::block_in_place(|| eager_member(&broker, "moved", 40));
    let polls = std::thread::spawn(move || {
        // It remains in its group as long as it is polled.
        for _ in 0..20 {
            drop(member.poll(Duration::from_millis(100)));
        }
        member
    });
    let refused = client.group("moved").stream("eager").join().await;
    let error = refused.expect_err("the strategies differ");
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    assert!(error.message().contains("`range`"), "{error}");
    let member = polls.join().expect("it polls");
    tokio::task::block_in_place(|| drop(member));

    let rest = read(&client, "moved", "eager", 60).await;
    for text in texts(&rest) {
        assert!(handled.insert(text.clone()), "{text} was handled before");
    }
    assert_eq!(handled, all);
}

/// Other clients may use any group names.
#[tokio::test]
async fn a_group_of_any_name_is_continued() {
    const GROUP: &str = "\u{e9}quipe a/b: \u{1f697}";
    const STORED: i64 = 3;
    let broker = Options::new().start().await;
    let client = connect(&broker).await;
    create(&client, "of-any-name", 1).await;
    let producer = client.producer("of-any-name").open().await;
    let producer = producer.expect("it opens");
    for number in 0..5 {
        let sent = producer.send(Record::new(number.to_string())).await;
        sent.expect("it is taken").await.expect("it is stored");
    }
    producer.close().await.expect("it closes");
    let bootstrap = broker.bootstrap();
    let stored = tokio::task::spawn_blocking(move || {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", bootstrap);
        config.set("group.id", GROUP);
        let other: BaseConsumer = config.create().expect("it is made");
        let mut offsets = rdkafka::TopicPartitionList::new();
        let offset = rdkafka::Offset::Offset(STORED);
        offsets
            .add_partition_offset("of-any-name", 0, offset)
            .expect("it is an offset");
        other.commit(&offsets, CommitMode::Sync)
    });
    stored.await.expect("it ends").expect("it is stored");

    let group = client.group(GROUP).stream("of-any-name");
    let mut consumer = group.join().await.expect("it joins");
    for number in STORED..5 {
        let delivery = next(&mut consumer).await;
        assert_eq!(*delivery.payload(), number.to_string());
        delivery.ack();
    }
    consumer.close().await.expect("it closes");
    let checkpoints = group.checkpoints().await.expect("they are read");
    assert_eq!(checkpoints[0].lag.records, Some(0), "{checkpoints:?}");
}
