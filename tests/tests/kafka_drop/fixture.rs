//! The broker, streams and clients of the cases.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use conformance::kafka::{Options, Testbed};
use millstream_core::{Client, Consumer, PendingDelivery, Record, StreamSpec};
use millstream_kafka::{Config, Protocol};
use tokio::runtime::{Builder, Runtime};
use tokio::time::{Instant, sleep, timeout};

/// The session timeout of members. It is long, to distinguish a member that leaves from one that falls
/// silent.
pub(crate) const SESSION: Duration = Duration::from_secs(10);

/// The timeout of everything that must happen.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(60);

/// A short heartbeat interval of members.
pub(crate) const QUICK: Duration = Duration::from_millis(200);

const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// The number of keys: some go to each of [`PARTITIONS`] partitions.
pub(crate) const KEYS: usize = 10;
pub(crate) const PARTITIONS: usize = 2;

/// Creates a runtime like an application's.
pub(crate) fn runtime() -> Runtime {
    let mut builder = Builder::new_multi_thread();
    let runtime = builder.worker_threads(2).enable_all().build();
    runtime.expect("a runtime")
}

pub(crate) fn options() -> Options {
    let session = SESSION.as_millis().to_string();
    Options::new().property("group.consumer.session.timeout.ms", &session)
}

pub(crate) fn config(bootstrap: String, protocol: Protocol) -> Config {
    let mut config = Config::default();
    config.brokers = vec![bootstrap];
    config.consumer.protocol = protocol;
    config.consumer.session_timeout = SESSION;
    config.consumer.heartbeat_interval = Some(QUICK);
    config
}

/// The shared broker, with one protocol.
#[derive(Debug)]
pub(crate) struct Fixture {
    pub(crate) testbed: Arc<Testbed>,
    protocol: Protocol,
}

impl Fixture {
    pub(crate) fn new(testbed: Arc<Testbed>, protocol: Protocol) -> Self {
        Self { testbed, protocol }
    }

    pub(crate) async fn client(&self) -> Client {
        self.client_with_heartbeat(QUICK).await
    }

    /// Returns a client whose members of classic groups learn of a rebalance after this interval.
    pub(crate) async fn client_with_heartbeat(&self, every: Duration) -> Client {
        self.client_of(unique("client"), every).await
    }

    /// Like that, with an id by which the testbed identifies its members.
    pub(crate) async fn client_of(&self, id: String, every: Duration) -> Client {
        let beat = |config: &mut Config| config.consumer.heartbeat_interval = Some(every);
        self.client_with(id, beat).await
    }

    /// Like that, with a changed configuration.
    pub(crate) async fn client_with(&self, id: String, change: impl FnOnce(&mut Config)) -> Client {
        let mut config = config(self.testbed.bootstrap(), self.protocol);
        config.client_id = id;
        change(&mut config);
        config.connect().await.expect("the broker responds")
    }
}

/// Returns a name that no other case has.
pub(crate) fn unique(prefix: &str) -> String {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    format!("{prefix}-{}", COUNT.fetch_add(1, Relaxed))
}

/// Creates a stream with `per_key` records of each key, numbered in their order.
pub(crate) async fn stream(client: &Client, per_key: usize) -> String {
    let name = unique("stream");
    let spec = StreamSpec::new(name.as_str()).partitions(PARTITIONS);
    let created = client.streams().create(spec).await;
    created.expect("it is new");
    send(client, &name, 0..per_key).await;
    name
}

/// Sends a record of each key for each number.
pub(crate) async fn send(client: &Client, stream: &str, numbers: Range<usize>) {
    let producer = client.producer(stream).open().await;
    let producer = producer.expect("it opens");
    for number in numbers {
        for key in 0..KEYS {
            let record = Record::new(format!("{key}/{number}")).key(format!("key-{key}"));
            drop(producer.send(record).await.expect("there is room"));
        }
    }
    producer.close().await.expect("all are stored");
}

pub(crate) async fn pull(consumer: &mut Consumer, count: usize) -> Vec<PendingDelivery> {
    let mut pulled = Vec::with_capacity(count);
    while pulled.len() < count {
        let next = timeout(TIMEOUT, consumer.next()).await;
        let next = next.unwrap_or_else(|_| panic!("{} of {count} came", pulled.len()));
        let next = next.expect("the consumer continues");
        pulled.push(next.expect("it is not closed"));
    }
    pulled
}

pub(crate) async fn until(what: &str, met: impl Fn() -> bool) {
    let begun = Instant::now();
    while !met() {
        assert!(begun.elapsed() < TIMEOUT, "timed out: {what}");
        sleep(POLL_INTERVAL).await;
    }
}
