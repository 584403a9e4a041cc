//! The example `sink` applies each record exactly once.

#![cfg(feature = "sqlite")]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use millstream::{BatchFailure, Client, ConsumerGroup, Delivery, Record, StreamSpec};
use sink::Sink;
use tokio::time::{sleep, timeout};

#[path = "../examples/sink/sink.rs"]
mod sink;

const STREAM: &str = "reports";
const CARS: usize = 10;
const RECORDS: usize = 1_000;

async fn create(client: &Client) -> millstream::Result<()> {
    let spec = StreamSpec::new(STREAM).partitions(4);
    client.streams().create(spec).await
}

async fn send(client: &Client, records: usize) -> millstream::Result<()> {
    let producer = client.producer(STREAM).open().await?;
    for number in 0..records {
        let record = Record::new(number.to_string()).key(format!("car-{}", number % CARS));
        // `close` reports a failure whose receipt was dropped.
        drop(producer.send(record).await?);
    }
    producer.close().await
}

async fn client_with(records: usize) -> millstream::Result<Client> {
    let client = millstream::memory::Config::default().connect().await?;
    create(&client).await?;
    send(&client, records).await?;
    Ok(client)
}

/// Returns a group that checkpoints nothing before it is closed: a crash repeats all of its records.
fn group(client: &Client) -> ConsumerGroup {
    let rarely = Duration::from_secs(60 * 60);
    let group = client.group("sink").stream(STREAM);
    group.checkpoint_interval(rarely).concurrency(4)
}

/// A handler that counts deliveries, and keeps one batch of the first member.
#[derive(Clone)]
struct Handler {
    sink: Arc<Sink>,
    delivered: Arc<AtomicUsize>,
    first: Arc<Mutex<Vec<Delivery>>>,
}

impl Handler {
    fn new() -> Self {
        Self {
            sink: Arc::new(Sink::open(":memory:").unwrap()),
            delivered: Arc::default(),
            first: Arc::default(),
        }
    }

    async fn batch(self, batch: Vec<Delivery>) -> Result<(), BatchFailure> {
        sleep(Duration::from_millis(10)).await;
        self.sink.apply(&batch)?;
        self.delivered.fetch_add(batch.len(), SeqCst);
        let mut first = self.first.lock().unwrap();
        if first.is_empty() {
            *first = batch;
        }
        Ok(())
    }

    async fn one(self, delivery: Delivery) -> anyhow::Result<()> {
        // Keys complete in another order than they were stored in.
        let number = delivery.position().offset().unwrap();
        sleep(Duration::from_millis(number * 7 % 50)).await;
        self.sink.apply_one(&delivery)?;
        self.delivered.fetch_add(1, SeqCst);
        Ok(())
    }

    fn delivered(&self) -> usize {
        self.delivered.load(SeqCst)
    }

    /// Waits until this many records were delivered. Fails after an hour of the paused clock.
    async fn until_delivered(&self, count: usize) {
        let reached = async {
            while self.delivered() < count {
                sleep(Duration::from_millis(1)).await;
            }
        };
        let hour = Duration::from_secs(60 * 60);
        timeout(hour, reached).await.unwrap();
    }

    fn applied(&self) -> Vec<i64> {
        let reports = self.sink.reports().unwrap();
        reports.into_iter().map(|(_, reports)| reports).collect()
    }
}

/// Returns the expected count of each car.
fn each(records: usize) -> Vec<i64> {
    vec![(records / CARS) as i64; CARS]
}

#[tokio::test(start_paused = true)]
async fn batches_are_applied_once_although_members_crash() -> millstream::Result<()> {
    let client = client_with(RECORDS).await?;
    let handler = Handler::new();
    let run = || {
        let handler = handler.clone();
        let each = move |batch| handler.clone().batch(batch);
        tokio::spawn(group(&client).run_batches(20, each, std::future::pending()))
    };
    for count in [100, 300, 600] {
        let member = run();
        handler.until_delivered(count).await;
        member.abort();
        // Dropping it is a crash: the next member waits for the session timeout.
        assert!(member.await.unwrap_err().is_cancelled());
    }
    let before = handler.delivered();
    let member = run();
    handler.until_delivered(before + RECORDS).await;
    assert_eq!(handler.applied(), each(RECORDS));

    // A member that was away for a long time ends its work now.
    let stale = handler.first.lock().unwrap().clone();
    let error = handler.sink.apply(&stale).unwrap_err().to_string();
    assert!(error.contains("is older than"), "{error}");
    assert_eq!(handler.applied(), each(RECORDS));
    member.abort();
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn keys_are_applied_once_although_members_crash() -> millstream::Result<()> {
    let client = client_with(RECORDS).await?;
    let handler = Handler::new();
    let run = || {
        let handler = handler.clone();
        let each = move |delivery| handler.clone().one(delivery);
        tokio::spawn(group(&client).run(each, std::future::pending()))
    };
    for count in [100, 300] {
        let member = run();
        handler.until_delivered(count).await;
        member.abort();
        assert!(member.await.unwrap_err().is_cancelled());
    }
    let before = handler.delivered();
    let member = run();
    handler.until_delivered(before + RECORDS).await;
    assert_eq!(handler.applied(), each(RECORDS));
    member.abort();
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_is_created_anew_is_applied_from_its_beginning() -> millstream::Result<()> {
    let client = client_with(50).await?;
    let handler = Handler::new();
    for turn in 1..=2 {
        let each_batch = {
            let handler = handler.clone();
            move |batch| handler.clone().batch(batch)
        };
        let shutdown = {
            let handler = handler.clone();
            async move { handler.until_delivered(turn * 50).await }
        };
        let run = group(&client).run_batches(20, each_batch, shutdown);
        run.await?;
        assert_eq!(handler.applied(), each(turn * 50));
        client.streams().delete(STREAM).await?;
        create(&client).await?;
        send(&client, 50).await?;
    }
    Ok(())
}
