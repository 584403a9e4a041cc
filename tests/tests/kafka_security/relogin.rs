//! Logins that are refused after the client had logged in: the effect of a rolling restart, an outage of the login
//! service or a limit of new connections.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use conformance::Events;
use conformance::kafka::Faults;
use millstream_core::{Client, Consumer, ErrorKind, Producer, Receipt, Record, Start, StreamSpec};
use millstream_kafka::{Credentials, Sasl};
use tokio::time::{sleep, timeout};

use crate::proxied::{Proxied, RELOGIN};
use crate::secured::{LOGIN, Secured};
use crate::{AT_ONCE, refused};

const TIMEOUT: Duration = Duration::from_secs(90);

const KEYS: usize = 10;

/// The refusal of a broker that has not loaded the user yet.
const NOT_LOADED: &str = "Authentication failed during authentication due to invalid credentials";

/// The refusal of Amazon MSK when there are too many new connections.
const TOO_MANY: &str = "[d3c1a9ff-6d5a-4b0d-9f5e-5f8e9c3b7a11]: Too many connects";

async fn until(what: &str, met: impl Fn() -> bool) {
    let begun = Instant::now();
    while !met() {
        assert!(begun.elapsed() < TIMEOUT, "timed out: {what}");
        sleep(Duration::from_millis(20)).await;
    }
}

/// Waits until this many more logins were refused.
async fn until_refused(faults: &Faults, client: &str, more: u64) {
    let enough = faults.hits(client) + more;
    until("logins are refused", || faults.hits(client) >= enough).await;
}

async fn stream(client: &Client) -> String {
    let spec = StreamSpec::new("stream").partitions(2);
    client.streams().create(spec).await.unwrap();
    "stream".to_owned()
}

async fn join(client: &Client, stream: &str) -> Consumer {
    let group = client.group("group").stream(stream).start(Start::Earliest);
    let group = group.checkpoint_interval(Duration::from_millis(100));
    group.join().await.unwrap()
}

fn record(number: usize) -> Record {
    Record::new(number.to_string()).key(format!("{}", number % KEYS))
}

/// Sends a numbered record each millisecond until it is stopped.
async fn send_until(stop: Arc<AtomicBool>, producer: Producer) -> Vec<Receipt> {
    let mut receipts = Vec::new();
    while !stop.load(Relaxed) {
        let sent = producer.send(record(receipts.len())).await;
        receipts.push(sent.unwrap());
        sleep(Duration::from_millis(1)).await;
    }
    receipts
}

/// Asserts that all records are stored, each once, and those of a key in their order.
async fn assert_stored(receipts: Vec<Receipt>) {
    let mut last = BTreeMap::new();
    let mut places = BTreeSet::new();
    for (number, receipt) in receipts.into_iter().enumerate() {
        let stored = timeout(TIMEOUT, receipt).await.expect("it resolves");
        let stored = stored.unwrap_or_else(|error| panic!("record {number}: {error:?}"));
        let place = (stored.partition.clone(), stored.position);
        assert!(
            places.insert(place),
            "record {number} has a place of its own"
        );
        let before = last.insert(number % KEYS, stored.position);
        assert!(
            before < Some(stored.position),
            "record {number} is in order"
        );
    }
}

async fn read_all(consumer: &mut Consumer, count: usize) {
    let mut missing: BTreeSet<usize> = (0..count).collect();
    while !missing.is_empty() {
        let next = timeout(TIMEOUT, consumer.next()).await;
        let next = next.unwrap_or_else(|_| panic!("{} do not come", missing.len()));
        let delivery = next.expect("the member continues").expect("it is open");
        let number = String::from_utf8_lossy(delivery.payload()).into_owned();
        missing.remove(&number.parse().unwrap());
        delivery.ack();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn logins_refused_for_a_while_end_no_member_and_fail_no_record() {
    Events::listen();
    let proxied = Proxied::start().await;
    let client = proxied.config("passing").connect().await.unwrap();
    let stream = stream(&client).await;
    let producer = client.producer(&*stream).open().await.unwrap();
    let mut consumer = join(&client, &stream).await;
    let stop = Arc::new(AtomicBool::new(false));
    let sending = tokio::spawn(send_until(stop.clone(), producer.clone()));

    let begun = Instant::now();
    proxied
        .faults
        .refuse_logins("passing", NOT_LOADED, u32::MAX);
    until_refused(&proxied.faults, "passing", 8).await;
    let outage = Duration::from_secs(6);
    until("the outage is long enough", || begun.elapsed() >= outage).await;
    proxied.faults.refuse_logins("passing", NOT_LOADED, 0);
    stop.store(true, Relaxed);

    let receipts = sending.await.unwrap();
    let count = receipts.len();
    println!("{count} records, {:?}", proxied.faults.hits("passing"));
    assert_stored(receipts).await;
    read_all(&mut consumer, count).await;
    producer.close().await.unwrap();
    consumer.close().await.unwrap();
    let name = "millstream.kafka.login.refused";
    assert!(!Events::listen().with(name, "group", "group").is_empty());
    assert!(!Events::listen().with(name, "stream", "stream").is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn logins_that_stay_refused_end_a_member_and_records_wait_for_their_timeout() {
    let proxied = Proxied::start().await;
    let mut config = proxied.config("lasting");
    config.request_timeout = Duration::from_secs(5);
    config.producer.timeout = Duration::from_secs(20);
    let client = config.connect().await.unwrap();
    let stream = stream(&client).await;
    let producer = client.producer(&*stream).open().await.unwrap();
    let mut consumer = join(&client, &stream).await;
    let first = producer.send(record(0)).await.unwrap();
    first.await.unwrap();
    read_all(&mut consumer, 1).await;

    proxied
        .faults
        .refuse_logins("lasting", NOT_LOADED, u32::MAX);
    let begun = Instant::now();
    until_refused(&proxied.faults, "lasting", 4).await;
    until("no connection is left", || begun.elapsed() >= 2 * RELOGIN).await;
    let begun = Instant::now();
    let receipt = producer.send(record(1)).await.unwrap();
    let ended = timeout(TIMEOUT, consumer.next()).await.expect("it ends");
    let error = ended.expect_err("it is not let in any more");
    assert_eq!(error.kind(), ErrorKind::Unauthenticated, "{error:?}");
    println!("the member ended after {:?}: {error}", begun.elapsed());
    let failed = timeout(TIMEOUT, receipt).await.expect("it resolves");
    let error = failed.expect_err("it is not stored");
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error:?}");
    assert!(format!("{error:?}").contains(NOT_LOADED), "{error:?}");
    let took = begun.elapsed();
    assert!(took >= Duration::from_secs(19), "it waited for {took:?}");

    proxied.faults.refuse_logins("lasting", NOT_LOADED, 0);
    let begun = Instant::now();
    loop {
        let sent = producer.send(record(2)).await.unwrap();
        match sent.await {
            Ok(_) => break,
            Err(error) => assert!(begun.elapsed() < TIMEOUT, "{error:?}"),
        }
    }
    drop(consumer);
}

/// No client is opened again: both read the new password from the file.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_and_producers_take_up_a_password_that_was_changed() {
    Events::listen();
    let secured = Secured::start().await;
    secured.user("user", "old").await;
    let all = ["--operation", "All", "--topic", "*", "--group", "*"];
    secured.allow("user", &all).await;
    secured.topic("rotated").await;
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "old").unwrap();
    let mut user = Credentials::new("user", "");
    user.password = None;
    user.password_file = Some(file.path().to_owned());
    let mut config = secured.config(LOGIN);
    config.security.sasl = Some(Sasl::ScramSha256(user));
    let client = config.connect().await.unwrap();
    let producer = client.producer("rotated").open().await.unwrap();
    let group = client.group("rotating").stream("rotated");
    let mut consumer = group.start(Start::Earliest).join().await.unwrap();
    producer.send(record(0)).await.unwrap().await.unwrap();
    read_all(&mut consumer, 1).await;

    secured.user("user", "new").await;
    // A broker checks a password when a connection is made.
    secured.broker.stop().await;
    secured.broker.start().await;
    let name = "millstream.kafka.login.refused";
    let refused = |field, value| !Events::listen().with(name, field, value).is_empty();
    let receipt = producer.send(record(1)).await.unwrap();
    until("both are refused", || {
        refused("group", "rotating") && refused("stream", "rotated")
    })
    .await;
    std::fs::write(file.path(), "new").unwrap();
    let stored = timeout(TIMEOUT, receipt).await.expect("it resolves");
    stored.unwrap();
    let next = timeout(TIMEOUT, consumer.next()).await.expect("it comes");
    next.unwrap().unwrap().ack();
    producer.close().await.unwrap();
    consumer.close().await.unwrap();
}

#[tokio::test]
async fn too_many_connects_are_throttling() {
    let proxied = Proxied::start().await;
    proxied.faults.refuse_logins("patient", TOO_MANY, 3);
    let client = proxied.config("patient").connect().await.unwrap();
    client.streams().list().await.unwrap();
    assert_eq!(proxied.faults.hits("patient"), 3);

    proxied.faults.refuse_logins("brief", TOO_MANY, u32::MAX);
    let mut config = proxied.config("brief");
    config.request_timeout = Duration::from_secs(3);
    let error = refused("too many connects", ErrorKind::Throttled, config.connect()).await;
    assert!(error.is_retryable() && error.message().contains("Too many connects"));
}

/// An abandoned request does not delay the shutdown of its runtime.
#[test]
fn a_refused_login_keeps_no_program_from_its_end() {
    let other = tokio::runtime::Runtime::new().unwrap();
    let proxied = other.block_on(Proxied::start());
    proxied.faults.refuse_logins("ends", NOT_LOADED, u32::MAX);
    let mut config = proxied.config("ends");
    config.request_timeout = Duration::from_secs(30);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(refused(
        "the login",
        ErrorKind::Unauthenticated,
        config.connect(),
    ));
    let begun = Instant::now();
    drop(runtime);
    let took = begun.elapsed();
    // The container is removed by the runtime that created it.
    other.block_on(async { drop(proxied) });
    assert!(took < AT_ONCE, "it took {took:?}");
}
