//! Clients that close while their broker is killed or frozen with all connections open.

use std::time::{Duration, Instant};

use conformance::kafka::Broker;
use millstream_core::{Client, ErrorKind, Producer, Receipt, Record, StreamSpec};
use millstream_kafka::Protocol;
use tokio::time::{sleep, timeout};

use crate::fixture::{KEYS, config, options, pull, stream, unique};
use crate::threads::{Threads, drop_at_once};

#[derive(Debug, Clone, Copy)]
pub(crate) enum BrokerOutage {
    Dead,
    Paused,
}

impl BrokerOutage {
    async fn apply(self, broker: &Broker) {
        match self {
            Self::Dead => broker.kill().await,
            Self::Paused => broker.pause().await,
        }
    }
}

/// The maximum time for a member or a client without records to end. Longer than librdkafka waits for
/// the response to a leave.
const ENDS: Duration = Duration::from_secs(30);

/// The maximum time while a commit waits for its response: librdkafka (2.12) does not end before the commit has timed
/// out (`socket.timeout.ms`).
const ENDS_WITH_A_COMMIT: Duration = Duration::from_secs(90);

/// How much a call may exceed its timeout on a busy machine.
const SLACK: Duration = Duration::from_secs(5);

/// How long a runtime waits for the leave, after the drain.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(5);

/// Closes members with held deliveries, and a checkpoint in flight that gets no response.
pub(crate) async fn members(protocol: Protocol, silence: BrokerOutage) {
    const DRAIN: Duration = Duration::from_secs(2);
    let before = Threads::of_clients();
    let broker = options().start().await;
    let client = || config(broker.bootstrap(), protocol).connect();
    let first = client().await.expect("the broker responds");
    let stream = stream(&first, 2).await;
    let mut members = Vec::new();
    for _ in 0..2 {
        let client = client().await.expect("the broker responds");
        let group = client.group(unique("group")).stream(stream.as_str());
        let group = group.drain_timeout(DRAIN);
        let group = group.checkpoint_interval(Duration::from_millis(1));
        let mut consumer = group.join().await.expect("it joins");
        let held = pull(&mut consumer, KEYS).await;
        members.push((client, consumer, held));
    }
    silence.apply(&broker).await;
    for (_, consumer, held) in &mut members {
        match silence {
            // The first of its partition, so that there is progress to store.
            BrokerOutage::Dead => held.remove(0).ack(),
            BrokerOutage::Paused => held.pop().expect("some were pulled").ack(),
        }
        pull(consumer, 1)
            .await
            .into_iter()
            .for_each(|next| next.ack());
    }
    // Time for the checkpoints to be sent. The promise does not depend on whether they are.
    sleep(Duration::from_millis(200)).await;

    let (client, consumer, _held) = members.pop().expect("there are two");
    let since = Instant::now();
    drop_at_once("the member", (consumer, client, first));
    let (client, consumer, _held) = members.pop().expect("there are two");
    let closed = consumer.close().await;
    let took = since.elapsed();
    println!("closed after {took:?}: {closed:?}");
    let ends = match silence {
        BrokerOutage::Dead => {
            let error = closed.expect_err("the progress is not stored");
            assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
            ENDS_WITH_A_COMMIT
        }
        BrokerOutage::Paused => ENDS,
    };
    assert!(
        took < DRAIN + LEAVE_TIMEOUT + SLACK,
        "the close took {took:?}"
    );
    drop_at_once("the client", client);
    before.are_all(ends).await;
    println!("all threads had ended after {:?}", since.elapsed());
}

/// How long records are retried.
const TRIED: Duration = Duration::from_secs(5);

async fn producer(client: &Client, stream: &str, close: Duration) -> Producer {
    let producer = client.producer(stream).close_timeout(close).open().await;
    producer.expect("it opens")
}

async fn send(producer: &Producer) -> Vec<Receipt> {
    let mut receipts = Vec::new();
    for number in 0..100 {
        let record = Record::new("x").key(format!("key-{}", number % KEYS));
        receipts.push(producer.send(record).await.expect("there is room"));
    }
    receipts
}

/// With records in flight: each receipt reports that its record may not be stored.
pub(crate) async fn producers(silence: BrokerOutage) {
    const CLOSE: Duration = Duration::from_secs(2);
    let before = Threads::of_clients();
    let broker = options().start().await;
    let mut config = config(broker.bootstrap(), Protocol::default());
    config.producer.timeout = TRIED;
    let client = config.connect().await.expect("the broker responds");
    let stream = stream(&client, 1).await;
    let dropped = producer(&client, &stream, CLOSE).await;
    let closed = producer(&client, &stream, CLOSE).await;
    silence.apply(&broker).await;
    let since = Instant::now();
    let mut receipts = send(&dropped).await;
    receipts.extend(send(&closed).await);

    drop_at_once("the producer", (dropped, client));
    let error = closed.close().await.expect_err("nothing is stored");
    let took = since.elapsed();
    println!("closed after {took:?}: {error}");
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error:?}");
    assert!(took < CLOSE + SLACK, "the close took {took:?}");
    drop_at_once("the closed producer", closed);
    for receipt in receipts {
        let result = timeout(TRIED + SLACK, receipt).await;
        let result = result.expect("each receipt resolves");
        let error = result.expect_err("nothing is stored");
        assert!(error.is_retryable(), "{error:?}");
    }
    println!("all receipts resolved after {:?}", since.elapsed());
    before.are_all(ENDS).await;
    println!("all threads had ended after {:?}", since.elapsed());
}

/// While administrative calls get no response, and after they were abandoned.
pub(crate) async fn questions(silence: BrokerOutage) {
    const TIMEOUT: Duration = Duration::from_secs(2);
    let before = Threads::of_clients();
    let broker = options().start().await;
    let mut config = config(broker.bootstrap(), Protocol::default());
    config.request_timeout = TIMEOUT;
    let client = config.clone().connect().await.expect("the broker responds");
    let stream = stream(&client, 1).await;
    silence.apply(&broker).await;

    let since = Instant::now();
    let streams = client.streams();
    let described = streams.describe(&stream).await;
    let described = described.expect_err("nobody responds");
    assert!(described.is_retryable(), "{described:?}");
    let spec = StreamSpec::new(unique("stream"));
    let created = streams.create(spec.clone()).await;
    let created = created.expect_err("nobody responds");
    assert!(created.is_retryable(), "{created:?}");
    let took = since.elapsed();
    println!("given up after {took:?}: {described}; {created}");
    assert!(took < 2 * TIMEOUT + 2 * SLACK, "the calls took {took:?}");
    // A call in flight is abandoned with its future.
    let pending = timeout(TIMEOUT / 10, streams.create(spec)).await;
    assert!(pending.is_err(), "nobody responds: {pending:?}");
    drop_at_once("the client", (streams, client));
    let ended = before.are_all(ENDS).await;
    println!("its threads had ended after {ended:?}");
}
