//! The proxy injects exactly the faults that it is asked for, as seen by rdkafka. Suite cases rely
//! on them.

#![cfg(feature = "kafka")]
#![allow(clippy::unwrap_used, reason = "these are tests")]

use std::sync::LazyLock;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use conformance::kafka::{Options, Testbed};
use millstream_core::Partition;
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::FromClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::Message;
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use tokio::runtime::Runtime;
use tokio::sync::OnceCell;

const TIMEOUT: Duration = Duration::from_secs(30);

const SESSION: Duration = Duration::from_secs(2);

/// Outlives each test: the proxy runs on it.
static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Runtime::new().unwrap());

/// Returns the broker of all tests. Its container is removed with the process.
fn testbed() -> &'static Testbed {
    static TESTBED: OnceCell<Testbed> = OnceCell::const_new();
    let testbed = TESTBED.get_or_init(|| async { Testbed::start(Options::new()).await });
    RUNTIME.block_on(testbed)
}

fn unique(prefix: &str) -> String {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    format!("{prefix}-{}", COUNT.fetch_add(1, Relaxed))
}

fn client<T: FromClientConfig>(testbed: &Testbed, settings: &[(&str, &str)]) -> T {
    client_at(testbed.bootstrap(), settings)
}

fn client_at<T: FromClientConfig>(bootstrap: String, settings: &[(&str, &str)]) -> T {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", bootstrap);
    for (name, value) in settings {
        config.set(*name, *value);
    }
    config.create().unwrap()
}

/// Creates a topic of one partition.
fn topic(testbed: &Testbed) -> String {
    let name = unique("topic");
    let admin: AdminClient<DefaultClientContext> = client(testbed, &[]);
    let topics = [NewTopic::new(&name, 1, TopicReplication::Fixed(1))];
    let created = admin.create_topics(&topics, &AdminOptions::new());
    RUNTIME.block_on(created).unwrap()[0].as_ref().unwrap();
    name
}

fn producer(testbed: &Testbed) -> FutureProducer {
    client(
        testbed,
        &[("enable.idempotence", "true"), ("linger.ms", "0")],
    )
}

/// Sends one record, and returns its offset.
fn send(producer: &FutureProducer, topic: &str) -> KafkaResult<i64> {
    let record = FutureRecord::<(), str>::to(topic).payload("x").partition(0);
    let sent = RUNTIME.block_on(producer.send(record, TIMEOUT));
    sent.map(|delivery| delivery.offset)
        .map_err(|(error, _)| error)
}

/// Returns the first offset and the end of a topic.
fn ends(testbed: &Testbed, topic: &str) -> (i64, i64) {
    let asker: BaseConsumer = client(testbed, &[("group.id", "none")]);
    asker.fetch_watermarks(topic, 0, TIMEOUT).unwrap()
}

#[test]
fn refused_sends_are_not_stored_and_go_through_in_the_end() {
    let (testbed, topic, other) = (testbed(), topic(testbed()), topic(testbed()));
    testbed.faults().refuse_sends(&topic, 3);
    let producer = producer(testbed);
    assert_eq!(send(&producer, &other), Ok(0));
    assert_eq!(
        (testbed.faults().hits(&topic), ends(testbed, &topic)),
        (0, (0, 0))
    );
    assert_eq!(send(&producer, &topic), Ok(0));
    assert_eq!(testbed.faults().hits(&topic), 3);
    assert_eq!(
        (testbed.faults().hits(&other), ends(testbed, &topic)),
        (0, (0, 1))
    );
}

#[test]
fn a_send_is_given_up_when_it_is_refused_for_ever() {
    let (testbed, topic) = (testbed(), topic(testbed()));
    testbed.faults().refuse_sends(&topic, u32::MAX);
    let timeout = [
        ("enable.idempotence", "true"),
        ("message.timeout.ms", "1500"),
    ];
    let given_up = send(&client(testbed, &timeout), &topic);
    let timed_out = KafkaError::MessageProduction(RDKafkaErrorCode::MessageTimedOut);
    assert_eq!(given_up, Err(timed_out));
    testbed.faults().refuse_sends(&topic, 0);
    assert_eq!(send(&producer(testbed), &topic), Ok(0));
}

#[test]
fn cut_sends_are_not_stored_and_go_through_in_the_end() {
    let (testbed, topic) = (testbed(), topic(testbed()));
    testbed.faults().cut_sends(&topic, 2);
    assert_eq!(send(&producer(testbed), &topic), Ok(0));
    assert_eq!(
        (testbed.faults().hits(&topic), ends(testbed, &topic)),
        (2, (0, 1))
    );
}

/// The broker has the record after the first attempt, and recognizes it again: a client that sends it
/// as a new record would store it twice.
fn is_stored_once_though(fault: impl FnOnce(&Testbed, &str)) {
    let (testbed, topic) = (testbed(), topic(testbed()));
    let producer = producer(testbed);
    assert_eq!(send(&producer, &topic), Ok(0));
    fault(testbed, &topic);
    assert_eq!(send(&producer, &topic), Ok(1));
    assert_eq!(
        (testbed.faults().hits(&topic), ends(testbed, &topic)),
        (1, (0, 2))
    );
}

#[test]
fn a_send_whose_answer_is_lost_is_stored() {
    is_stored_once_though(|testbed, topic| testbed.faults().lose_send_responses(topic, 1));
}

#[test]
fn a_send_that_times_out_is_stored() {
    is_stored_once_though(|testbed, topic| testbed.faults().time_out_sends(topic, 1));
}

#[test]
fn a_send_that_times_out_is_stored_though_nobody_tries_again() {
    let (testbed, topic) = (testbed(), topic(testbed()));
    testbed.faults().time_out_sends(&topic, 1);
    let once = [("retries", "0"), ("acks", "all")];
    assert!(send(&client(testbed, &once), &topic).is_err());
    assert_eq!(ends(testbed, &topic), (0, 1));
}

#[test]
fn delayed_answers_come_when_they_are_due() {
    let (testbed, topic) = (testbed(), topic(testbed()));
    let by = Duration::from_millis(700);
    let producer = producer(testbed);
    assert_eq!(send(&producer, &topic), Ok(0));
    let took = |offset| {
        let begun = Instant::now();
        assert_eq!(send(&producer, &topic), Ok(offset));
        begun.elapsed()
    };
    testbed.faults().delay_send_responses(&topic, by);
    let late = took(1);
    testbed
        .faults()
        .delay_send_responses(&topic, Duration::ZERO);
    let soon = took(2);
    assert!(
        late >= by && late < by * 3 && soon < by,
        "{late:?}, {soon:?}"
    );
}

/// Returns a joined member of a group, with its own port of the proxy.
fn member(testbed: &Testbed, group: &str, topic: &str, protocol: &str, name: &str) -> BaseConsumer {
    let mut settings = vec![
        ("group.id", group),
        ("group.protocol", protocol),
        ("enable.auto.commit", "false"),
        ("auto.offset.reset", "earliest"),
    ];
    if protocol == "classic" {
        settings.push(("partition.assignment.strategy", "cooperative-sticky"));
        settings.push(("session.timeout.ms", "2000"));
        settings.push(("heartbeat.interval.ms", "200"));
    }
    let bootstrap = testbed.network().address(name).to_string();
    let member: BaseConsumer = client_at(bootstrap, &settings);
    member.subscribe(&[topic]).unwrap();
    member
}

/// Polls the members in turn until a condition is met, and returns how long that took.
fn poll_until(members: &[&BaseConsumer], met: impl Fn() -> bool) -> Duration {
    let begun = Instant::now();
    while !met() {
        assert!(begun.elapsed() < TIMEOUT, "timed out");
        for member in members {
            // A member gets errors when it is evicted.
            drop(member.poll(Duration::from_millis(10)));
        }
    }
    begun.elapsed()
}

fn owns(member: &BaseConsumer) -> bool {
    member.assignment().unwrap().count() > 0
}

fn mark(topic: &str, offset: Offset) -> TopicPartitionList {
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, 0, offset).unwrap();
    list
}

fn committed(member: &BaseConsumer, topic: &str) -> Offset {
    let list = mark(topic, Offset::Invalid);
    let reported = member.committed_offsets(list, TIMEOUT).unwrap();
    reported.elements()[0].offset()
}

fn commits(protocol: &str) {
    let (testbed, topic, group) = (testbed(), topic(testbed()), unique("group"));
    send(&producer(testbed), &topic).unwrap();
    let member = member(testbed, &group, &topic, protocol, &unique("client"));
    poll_until(&[&member], || owns(&member));
    let commit = |offset| member.commit(&mark(&topic, Offset::Offset(offset)), CommitMode::Sync);

    commit(1).unwrap();
    assert_eq!(committed(&member, &topic), Offset::Offset(1));
    testbed.faults().refuse_commits(&group, 1);
    let refused = KafkaError::ConsumerCommit(RDKafkaErrorCode::RebalanceInProgress);
    assert_eq!(commit(2), Err(refused));
    assert_eq!(committed(&member, &topic), Offset::Offset(1));
    testbed.faults().lose_commits(&group, 1);
    commit(3).unwrap();
    assert_eq!(committed(&member, &topic), Offset::Offset(1));
    commit(4).unwrap();
    assert_eq!(committed(&member, &topic), Offset::Offset(4));
    assert_eq!(testbed.faults().hits(&group), 2);
}

#[test]
fn commits_are_refused_or_lost_classic() {
    commits("classic");
}

#[test]
fn commits_are_refused_or_lost_consumer() {
    commits("consumer");
}

fn freeze(protocol: &str) {
    let (testbed, topic, group) = (testbed(), topic(testbed()), unique("group"));
    let (a, b) = (unique("client"), unique("client"));
    let join = |name| member(testbed, &group, &topic, protocol, name);
    let frozen = join(&a);
    poll_until(&[&frozen], || owns(&frozen));
    let other = join(&b);
    let both = [&frozen, &other];
    testbed.network().of(&a).freeze(SESSION * 3);
    let took = poll_until(&both, || owns(&other));
    assert!(
        took < SESSION * 3,
        "the other takes over meanwhile: {took:?}"
    );
    // It was evicted, and returns as a member without a partition; or with it, if it is assigned
    // again. In both cases it reaches its broker again.
    let asked = Instant::now();
    frozen.fetch_watermarks(&topic, 0, TIMEOUT).unwrap();
    let silence = took + asked.elapsed();
    assert!(silence > SESSION * 2, "it was frozen for {silence:?}");
    let stale = frozen.commit(&mark(&topic, Offset::Offset(7)), CommitMode::Sync);
    assert!(stale.is_err() || owns(&frozen), "{stale:?}");
}

#[test]
fn a_frozen_member_is_put_out_classic() {
    freeze("classic");
}

#[test]
fn a_frozen_member_is_put_out_consumer() {
    freeze("consumer");
}

fn steal(protocol: &str) {
    let (testbed, topic, group) = (testbed(), topic(testbed()), unique("group"));
    let producer = producer(testbed);
    send(&producer, &topic).unwrap();
    let victim = member(testbed, &group, &topic, protocol, &unique("client"));
    poll_until(&[&victim], || owns(&victim));
    RUNTIME.block_on(testbed.steal(&group, &Partition::new(topic.as_str(), "0")));
    // For the broker, the partition has no owner, although the victim does not know that yet.
    let stale = victim.commit(&mark(&topic, Offset::Offset(1)), CommitMode::Sync);
    let unknown = KafkaError::ConsumerCommit(RDKafkaErrorCode::UnknownMemberId);
    assert_eq!(stale, Err(unknown));
    poll_until(&[&victim], || !owns(&victim));
    poll_until(&[&victim], || owns(&victim));
    victim
        .commit(&mark(&topic, Offset::Offset(1)), CommitMode::Sync)
        .unwrap();
}

#[test]
fn a_partition_is_stolen_classic() {
    steal("classic");
}

#[test]
fn a_partition_is_stolen_consumer() {
    steal("consumer");
}

#[test]
fn trimmed_records_are_gone() {
    let (testbed, topic) = (testbed(), topic(testbed()));
    let producer = producer(testbed);
    for offset in 0..5 {
        assert_eq!(send(&producer, &topic), Ok(offset));
    }
    RUNTIME.block_on(testbed.trim(&topic));
    assert_eq!(ends(testbed, &topic), (5, 5));
    assert_eq!(send(&producer, &topic), Ok(5));
}

#[test]
fn clients_go_on_after_a_restart() {
    let testbed = RUNTIME.block_on(Testbed::start(Options::new()));
    let topic = topic(&testbed);
    let producer = producer(&testbed);
    assert_eq!(send(&producer, &topic), Ok(0));
    RUNTIME.block_on(testbed.restart());
    assert_eq!(send(&producer, &topic), Ok(1));
    let reader: BaseConsumer = client(&testbed, &[("group.id", "none")]);
    reader.assign(&mark(&topic, Offset::Beginning)).unwrap();
    let begun = Instant::now();
    let mut read = Vec::new();
    while read.len() < 2 && begun.elapsed() < TIMEOUT {
        let polled = reader.poll(Duration::from_millis(100));
        read.extend(polled.map(|message| message.unwrap().offset()));
    }
    assert_eq!(read, [0, 1]);
    drop((reader, producer));
    // The container is removed by the runtime that created it.
    RUNTIME.block_on(async { drop(testbed) });
}
