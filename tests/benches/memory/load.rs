//! One producer and one member of a group, on one thread, with a separate stream.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::error::Error;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use millstream_core::{Client, ConsumerGroup, Producer, Record, RunFuture, StreamSpec};
use tokio::runtime::Runtime;
use tokio::sync::Notify;

const STREAM: &str = "bench";
const PAYLOAD: usize = 512;
/// The duration of a sleeping handler.
pub(crate) const SLEEP: Duration = Duration::from_millis(10);
/// The duration of a computing handler.
const COMPUTATION: Duration = Duration::from_micros(50);
/// The interval of a ticker.
const TICK: Duration = Duration::from_millis(1);
/// The number of open receipts before the producer awaits the oldest.
const RECEIPTS: usize = 1_000;

pub(crate) struct Load {
    pub(crate) records: usize,
    pub(crate) partitions: usize,
    pub(crate) keys: usize,
    pub(crate) concurrency: usize,
    pub(crate) handler: Handler,
}

#[derive(Clone, Copy)]
pub(crate) enum Handler {
    /// Ready when it is first polled.
    Ready,
    /// Ready after [`COMPUTATION`] of CPU time.
    Computes,
    /// Pending once.
    Yields,
    /// Pending for [`SLEEP`].
    Sleeps,
}

pub(crate) struct Times {
    /// The time from the start of the member until it has all partitions, or handles its first record.
    pub(crate) joined: Duration,
    /// The time from the first `send`, or the first handled record, until the last record was handled.
    pub(crate) settled: Duration,
    /// The time from the first `send`, or the start of the member, until the member has left.
    pub(crate) closed: Duration,
}

const UNSEEN: &str = "the handler has not seen every record";

pub(crate) fn runtime() -> io::Result<Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
}

/// Counts the handled records, and ends the member after the last one.
#[derive(Default)]
struct Handled {
    count: AtomicUsize,
    first: OnceLock<Instant>,
    last: OnceLock<Instant>,
    finished: Notify,
}

impl Load {
    /// Returns one record for each key, to be cloned: a clone shares key and payload.
    pub(crate) fn records(&self) -> Vec<Record> {
        let payload = Bytes::from(vec![b'x'; PAYLOAD]);
        let key = |number| format!("car-{number:05}");
        (0..self.keys)
            .map(|number| Record::new(payload.clone()).key(key(number)))
            .collect()
    }

    /// Produces and consumes concurrently.
    pub(crate) fn run(&self) -> Result<Times, Box<dyn Error>> {
        runtime()?.block_on(async {
            let client = self.connect().await?;
            let handled = Arc::new(Handled::default());
            let begun = Instant::now();
            let member = self.member(&client, &handled);
            let control = member.handle();
            let member = tokio::spawn(member);
            while control.partitions().len() < self.partitions {
                tokio::task::yield_now().await;
            }
            let joined = begun.elapsed();

            let producer = client.producer(STREAM).open().await?;
            let begun = Instant::now();
            self.produce(&producer).await?;
            member.await??;
            let closed = begun.elapsed();
            self.check(&client, &control.stats()).await?;
            let last = handled.last.get().ok_or(UNSEEN)?;
            Ok(Times {
                joined,
                settled: *last - begun,
                closed,
            })
        })
    }

    pub(crate) fn produce_only(&self) -> Result<Duration, Box<dyn Error>> {
        runtime()?.block_on(async {
            let client = self.connect().await?;
            let producer = client.producer(STREAM).open().await?;
            let begun = Instant::now();
            self.produce(&producer).await?;
            Ok(begun.elapsed())
        })
    }

    /// Consumes a full stream. Nothing is sent meanwhile.
    pub(crate) fn consume_only(&self) -> Result<Times, Box<dyn Error>> {
        runtime()?.block_on(async {
            let client = self.connect().await?;
            self.produce(&client.producer(STREAM).open().await?).await?;
            let handled = Arc::new(Handled::default());
            let member = self.member(&client, &handled);
            let control = member.handle();
            let begun = Instant::now();
            member.await?;
            let ended = Instant::now();
            self.check(&client, &control.stats()).await?;
            let (first, last) = handled.first.get().zip(handled.last.get()).ok_or(UNSEEN)?;
            Ok(Times {
                joined: *first - begun,
                settled: *last - *first,
                closed: ended - begun,
            })
        })
    }

    /// Pulls a full stream. Returns the time from the first delivery to the last.
    pub(crate) fn pull_only(&self) -> Result<Duration, Box<dyn Error>> {
        runtime()?.block_on(async {
            let client = self.connect().await?;
            self.produce(&client.producer(STREAM).open().await?).await?;
            let mut consumer = self.group(&client).join().await?;
            let control = consumer.handle();
            let mut first = None;
            for _ in 0..self.records {
                let delivery = consumer.next().await?.ok_or(UNSEEN)?;
                first.get_or_insert_with(Instant::now);
                delivery.ack();
            }
            let last = Instant::now();
            consumer.close().await?;
            self.check(&client, &control.stats()).await?;
            Ok(last - first.ok_or(UNSEEN)?)
        })
    }

    /// Consumes a full stream, concurrently with a task that ticks each millisecond. Returns the largest delay
    /// of a tick.
    pub(crate) fn ticker_delay(&self) -> Result<Duration, Box<dyn Error>> {
        runtime()?.block_on(async {
            let client = self.connect().await?;
            self.produce(&client.producer(STREAM).open().await?).await?;
            let handled = Arc::new(Handled::default());
            let member = self.member(&client, &handled);
            let latest = Arc::new(Mutex::new(Duration::ZERO));
            let seen = latest.clone();
            let ticker = tokio::spawn(async move {
                let mut due = Instant::now() + TICK;
                loop {
                    tokio::time::sleep_until(due.into()).await;
                    let now = Instant::now();
                    let mut latest = seen.lock().expect("nothing panics with it");
                    *latest = (*latest).max(now - due);
                    due = now + TICK;
                }
            });
            member.await?;
            ticker.abort();
            let latest = *latest.lock().expect("nothing panics with it");
            Ok(latest)
        })
    }

    /// Moves half of the partitions of a member to another one that joins. Returns the time from its start
    /// until each owns half.
    pub(crate) fn handover(&self) -> Result<Duration, Box<dyn Error>> {
        runtime()?.block_on(async {
            let client = self.connect().await?;
            let [older, newer] = [(); 2].map(|()| self.member(&client, &Arc::default()));
            let [of_older, of_newer] = [older.handle(), newer.handle()];
            let older = tokio::spawn(older);
            while of_older.stats().assigned < self.partitions as u64 {
                tokio::task::yield_now().await;
            }
            let begun = Instant::now();
            let newer = tokio::spawn(newer);
            let half = self.partitions as u64 / 2;
            while of_older.stats().released < half || of_newer.stats().assigned < half {
                tokio::task::yield_now().await;
            }
            let took = begun.elapsed();
            for (handle, member) in [(of_older, older), (of_newer, newer)] {
                handle.shutdown();
                member.await??;
            }
            Ok(took)
        })
    }

    async fn connect(&self) -> Result<Client, Box<dyn Error>> {
        let client = millstream_memory::Config::default().connect().await?;
        client
            .streams()
            .create(StreamSpec::new(STREAM).partitions(self.partitions))
            .await?;
        Ok(client)
    }

    async fn produce(&self, producer: &Producer) -> Result<(), Box<dyn Error>> {
        let records = self.records();
        let mut receipts = VecDeque::with_capacity(RECEIPTS);
        for record in records.iter().cycle().take(self.records) {
            if receipts.len() == RECEIPTS {
                if let Some(oldest) = receipts.pop_front() {
                    let _: millstream_core::RecordMetadata = oldest.await?;
                }
            }
            receipts.push_back(producer.send(record.clone()).await?);
        }
        for receipt in receipts {
            receipt.await?;
        }
        Ok(producer.close().await?)
    }

    fn group(&self, client: &Client) -> ConsumerGroup {
        client
            .group("bench")
            .stream(STREAM)
            .concurrency(self.concurrency)
    }

    fn member(&self, client: &Client, handled: &Arc<Handled>) -> RunFuture {
        let group = self.group(client);
        let (counts, ends) = (handled.clone(), handled.clone());
        let (records, handler) = (self.records, self.handler);
        let handle = move |_delivery| {
            let counts = counts.clone();
            async move {
                match handler {
                    Handler::Ready => {}
                    Handler::Computes => {
                        let begun = Instant::now();
                        while begun.elapsed() < COMPUTATION {
                            std::hint::spin_loop();
                        }
                    }
                    Handler::Yields => tokio::task::yield_now().await,
                    Handler::Sleeps => tokio::time::sleep(SLEEP).await,
                }
                let before = counts.count.fetch_add(1, Relaxed);
                if before == 0 {
                    counts.first.get_or_init(Instant::now);
                }
                if before + 1 == records {
                    counts.last.get_or_init(Instant::now);
                    counts.finished.notify_one();
                }
                Ok::<(), Infallible>(())
            }
        };
        group.run(handle, async move { ends.finished.notified().await })
    }

    /// Checks that every record was settled once and that the checkpoints show it, or the measurement is invalid.
    async fn check(
        &self,
        client: &Client,
        stats: &millstream_core::ConsumerStats,
    ) -> Result<(), Box<dyn Error>> {
        assert_eq!(stats.settled, self.records as u64, "settled records");
        let left = client
            .group("bench")
            .checkpoints()
            .await?
            .iter()
            .filter_map(|each| each.lag.records)
            .sum::<u64>();
        assert_eq!(left, 0, "records that the checkpoints have not passed");
        Ok(())
    }
}
