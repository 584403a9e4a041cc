//! A slow source of tokens.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use millstream_core::{Consumer, ConsumerHandle, Record, Start, StreamSpec};
use millstream_kafka::{Kafka, Token, TokenSource};
use tokio::time::{sleep, timeout};

use crate::proxied::Proxied;
use crate::tokens::Unsigned;

const TIMEOUT: Duration = Duration::from_secs(90);

/// The duration of creating a token, after the first one.
const SLOW: Duration = Duration::from_secs(20);

/// The limit of everything that must not wait for a token, on a busy machine too.
const IN_TIME: Duration = Duration::from_secs(10);

#[derive(Debug, Clone)]
struct Slow {
    tokens: Unsigned,
    is_busy: Arc<AtomicBool>,
}

impl TokenSource for Slow {
    fn token(&self) -> Result<Token, Box<dyn std::error::Error + Send + Sync>> {
        if self.tokens.made() > 0 {
            self.is_busy.store(true, Relaxed);
            thread::sleep(SLOW);
            self.is_busy.store(false, Relaxed);
        }
        self.tokens.token()
    }
}

/// Handles all deliveries of a member, for as long as the runtime lives.
fn handle_all(mut consumer: Consumer) -> ConsumerHandle {
    let handle = consumer.handle();
    tokio::spawn(async move {
        while let Some(delivery) = consumer.next().await.unwrap() {
            delivery.ack();
        }
    });
    handle
}

async fn in_time<T>(what: &str, call: impl Future<Output = T>) -> T {
    let begun = Instant::now();
    let done = timeout(IN_TIME, call).await;
    println!("{what}: after {:?}", begun.elapsed());
    done.unwrap_or_else(|_| panic!("{what} waits for a token"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_takes_long_delays_neither_receipts_nor_a_rebalance() {
    let proxied = Proxied::with_tokens().await;
    let source = Slow {
        tokens: Unsigned::new("admin", Duration::from_secs(60)),
        is_busy: Arc::default(),
    };
    let kafka = Kafka::connect_with(proxied.config("slow"), source.clone()).await;
    let client = millstream_core::Client::new(kafka.unwrap());
    let spec = StreamSpec::new("stream").partitions(2);
    client.streams().create(spec).await.unwrap();
    let producer = client.producer("stream").open().await.unwrap();
    let join = async || {
        let group = client.group("group").stream("stream");
        handle_all(group.start(Start::Earliest).join().await.unwrap())
    };
    let first = join().await;
    let begun = Instant::now();
    while first.partitions().len() < 2 || !source.is_busy.load(Relaxed) {
        assert!(begun.elapsed() < TIMEOUT, "no second token is wanted");
        sleep(Duration::from_millis(20)).await;
    }

    let mut receipts = Vec::new();
    for number in 0..100 {
        let record = Record::new("x").key(format!("{number}"));
        receipts.push(producer.send(record).await.unwrap());
    }
    for receipt in receipts {
        in_time("a receipt", receipt).await.unwrap();
    }
    let rebalance = in_time("a rebalance", async {
        let second = join().await;
        while first.partitions().len() != 1 || second.partitions().len() != 1 {
            sleep(Duration::from_millis(20)).await;
        }
    });
    rebalance.await;
    assert!(
        source.is_busy.load(Relaxed),
        "the token came too soon to show it"
    );

    // The new token is used: the first one expired a minute after it was created.
    while source.is_busy.load(Relaxed) {
        sleep(Duration::from_millis(20)).await;
    }
    let over = Instant::now();
    while over.elapsed() < Duration::from_secs(25) {
        let sent = producer.send(Record::new("x")).await.unwrap();
        in_time("a later receipt", sent).await.unwrap();
        sleep(Duration::from_millis(500)).await;
    }
    producer.close().await.unwrap();
}
