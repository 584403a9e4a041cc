//! The producers of the fleet.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use fastrand::Rng;
use millstream_core::{Error, ErrorKind, Partition, Producer, Receipt, Record, Result};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::oddity::Oddities;
use super::script::{Ending, ProducerPlan, Script};
use super::world::World;
use crate::history::{Event, RecordGenerator};

/// The interval at which a sender checks whether its stream was recreated.
const ABSENT_TICK: Duration = Duration::from_millis(10);

/// The minimum time that a producer has to close its driver.
const MIN_CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// A sender with successive producers.
#[derive(Debug)]
pub(super) struct Sender {
    plan: ProducerPlan,
    number: u64,
    /// Whether a record may be stored although its send failed in the end.
    send_faults: bool,
    load: RecordGenerator,
    oddities: Oddities,
    dice: Rng,
    /// Its closed and dropped producers.
    pub(super) runs: Vec<ProducerRun>,
}

/// The unread receipts of one producer.
#[derive(Debug)]
pub(super) struct ProducerRun {
    pub(super) stream: String,
    /// The name of the stream in the history.
    pub(super) name: Arc<str>,
    /// The records whose receipts were dropped unread.
    pub(super) unread: Vec<u64>,
    /// The number of those that have failed, as reported by `flush` and `close`. `None` if neither was called.
    pub(super) reported: Option<u64>,
}

/// The destination of an open producer.
#[derive(Debug, Clone)]
struct Destination {
    stream: String,
    /// The name of the stream in the history.
    name: Arc<str>,
    send_faults: bool,
}

impl Destination {
    /// Returns whether the stream is still the one that the producer was opened for.
    fn exists(&self, world: &World) -> bool {
        world.incarnations.current(&self.stream).as_ref() == Some(&self.name)
    }

    /// Returns whether an error reports that the stream was deleted, and is right.
    fn is_deleted(&self, world: &World, error: &Error) -> bool {
        error.kind() == ErrorKind::NotFound && !self.exists(world)
    }
}

/// The counters of an open producer.
#[derive(Debug, Default)]
struct ReceiptCounts {
    sent: u64,
    /// Results of the receipts that were read.
    stored: Arc<AtomicU64>,
    failed: Arc<AtomicU64>,
    unread: Vec<u64>,
    reported: u64,
}

impl Sender {
    pub(super) fn new(world: &World, script: &Script, plan: &ProducerPlan, number: u64) -> Self {
        Self {
            plan: plan.clone(),
            number,
            send_faults: script.has_send_faults(),
            load: RecordGenerator::new(&world.history, &plan.stream, (number + 1) * 1_000_000),
            oddities: Oddities::new(script, plan),
            dice: Rng::with_seed(script.seed ^ (number + 1)),
            runs: Vec::new(),
        }
    }

    /// Sends a share of the planned records, and waits for all receipts that are read.
    pub(super) async fn send(mut self, world: World, phases: u64) -> Self {
        let share = self.plan.records / phases;
        for _ in 0..self.plan.runs {
            let mut left = share / self.plan.runs;
            loop {
                left = self.live(&world, left).await;
                if left == 0 {
                    break;
                }
            }
        }
        self
    }

    /// Opens a producer of the current stream, or of the next one that is created.
    async fn open(&mut self, world: &World) -> Option<(Producer, Destination)> {
        loop {
            let Some(name) = world.incarnations.current(&self.plan.stream) else {
                tokio::time::sleep(ABSENT_TICK).await;
                continue;
            };
            let opened = world
                .client
                .producer(&*self.plan.stream)
                .in_flight_records(self.plan.in_flight)
                .in_flight_bytes(self.plan.in_flight_bytes)
                .timeout(self.plan.timeout)
                .close_timeout(self.plan.close_timeout)
                .open();
            let opened = opened.await;
            let destination = Destination {
                stream: self.plan.stream.clone(),
                name,
                send_faults: self.send_faults,
            };
            if destination.exists(world) {
                let producer = world.expect("open producer", opened)?;
                return Some((producer, destination));
            }
        }
    }

    /// Sends with one producer. Returns the number of remaining records if the stream was deleted.
    async fn live(&mut self, world: &World, records: u64) -> u64 {
        let Some((producer, destination)) = self.open(world).await else {
            return 0;
        };
        self.load.continue_in(&destination.name);
        let (receipts_tx, receipts) = mpsc::unbounded_channel();
        let mut counts = ReceiptCounts::default();
        let (stored, failed) = (counts.stored.clone(), counts.failed.clone());
        let reader = tokio::spawn(record_receipts(
            world.clone(),
            destination.clone(),
            receipts,
            stored,
            failed,
        ));
        let mut left = records;
        while left > 0 && destination.exists(world) {
            let gap = self.plan.gap.mul_f64(2.0 * self.dice.f64());
            tokio::time::sleep(gap).await;
            let burst = self.dice.u64(1..=self.plan.burst).min(left);
            left -= burst;
            for _ in 0..burst {
                let (id, record) = self.next(world, &destination);
                let sent = self.send_one(world, &producer, id, record).await;
                self.sent(world, &destination, &mut counts, &receipts_tx, id, sent);
            }
            if self.dice.f64() < self.plan.flushing {
                counts.add_failures(world, "flush", producer.flush().await);
            }
        }
        let reported = match self.plan.ending {
            Ending::Close => {
                drop(receipts_tx);
                join_reader(world, reader).await;
                counts.closed(world, &producer, producer.close().await);
                Some(counts.reported)
            }
            Ending::CloseInFlight => {
                // Some are too late.
                let late = async {
                    for _ in 0..3 {
                        let (id, record) = self.next(world, &destination);
                        let sent = producer.send(record).await;
                        self.sent(
                            world,
                            &destination,
                            &mut counts,
                            &receipts_tx,
                            id,
                            Some(sent),
                        );
                    }
                };
                let (closed, ()) = futures_util::future::join(producer.close(), late).await;
                drop(receipts_tx);
                join_reader(world, reader).await;
                counts.closed(world, &producer, closed);
                Some(counts.reported)
            }
            Ending::Drop => {
                drop((producer, receipts_tx));
                join_reader(world, reader).await;
                // It sends the remaining records in the background, and the next producer has no order with it.
                tokio::time::sleep(self.plan.close_timeout + MIN_CLOSE_TIMEOUT).await;
                None
            }
        };
        self.runs.push(ProducerRun {
            stream: destination.stream,
            name: destination.name,
            unread: counts.unread,
            reported,
        });
        left
    }

    fn next(&mut self, world: &World, destination: &Destination) -> (u64, Record) {
        let key = key(&self.plan, self.number, &mut self.dice);
        let (oddities, dice) = (&self.oddities, &mut self.dice);
        let change = |record| oddities.change(record, dice);
        let (id, record) = self.load.next_with(key.as_deref(), change);
        world.incarnations.sent(id, &destination.name);
        (id, record)
    }

    /// Sends. Returns `None` if `send_timeout` expires before.
    async fn send_one(
        &self,
        world: &World,
        producer: &Producer,
        id: u64,
        record: Record,
    ) -> Option<Result<Receipt>> {
        match self.plan.send_timeout {
            None => Some(producer.send(record).await),
            Some(send_timeout) => match timeout(send_timeout, producer.send(record)).await {
                Ok(sent) => Some(sent),
                Err(_) => {
                    // A dropped `send` has not sent the record.
                    world.record(Event::Failed { id });
                    None
                }
            },
        }
    }

    fn sent(
        &mut self,
        world: &World,
        destination: &Destination,
        counts: &mut ReceiptCounts,
        receipts_tx: &mpsc::UnboundedSender<(u64, Receipt)>,
        id: u64,
        sent: Option<Result<Receipt>>,
    ) {
        match sent {
            None => {}
            Some(Ok(receipt)) => {
                counts.sent += 1;
                if self.dice.f64() < self.plan.unread {
                    counts.unread.push(id);
                    drop(receipt);
                } else {
                    // The reader lives until the sender is gone.
                    let _ = receipts_tx.send((id, receipt));
                }
            }
            Some(Err(error))
                if error.kind() == ErrorKind::Closed
                    && self.plan.ending == Ending::CloseInFlight =>
            {
                world.record(Event::Failed { id });
            }
            Some(Err(error)) if destination.is_deleted(world, &error) => {
                world.record(Event::Failed { id });
            }
            Some(Err(error)) => world.report_problem(format!("send of record {id}: {error:?}")),
        }
    }
}

impl ReceiptCounts {
    /// Counts the failures that `flush` or `close` reports.
    fn add_failures(&mut self, world: &World, what: &str, reported: Result<()>) {
        let Err(error) = reported else { return };
        match failures(&error) {
            Some(count) if !self.unread.is_empty() => self.reported += count,
            _ => world.report_problem(format!("{what}: {error:?}")),
        }
    }

    /// Compares the counters of a closed producer with the reported failures.
    fn closed(&mut self, world: &World, producer: &Producer, closed: Result<()>) {
        match closed {
            Err(error) if error.kind() == ErrorKind::Timeout && failures(&error).is_none() => {
                // The close timed out. Unread failures are its source.
                let source = std::error::Error::source(&error);
                let unread = source.and_then(|source| source.downcast_ref::<Error>());
                self.reported += unread.and_then(failures).unwrap_or(0);
            }
            closed => self.add_failures(world, "close producer", closed),
        }
        let stats = producer.stats();
        let (stored, failed) = (self.stored.load(Relaxed), self.failed.load(Relaxed));
        let unread = self.unread.len() as u64;
        if stats.sent != self.sent
            || stats.in_flight != 0
            || stats.in_flight_bytes != 0
            || stats.stored + stats.failed != stats.sent
            || stats.stored + self.reported != stored + unread
            || stats.failed != failed + self.reported
        {
            world.report_problem(format!(
                "a closed producer counts {stats:?}; {} were sent, receipts report {stored} stored and \
                 {failed} failed, {unread} were not read, of which {} were reported to have failed",
                self.sent, self.reported
            ));
        }
    }
}

/// Returns how many unread receipts an error of `flush` or `close` represents.
fn failures(error: &Error) -> Option<u64> {
    let (count, rest) = error.message().split_once(' ')?;
    match (count, rest) {
        ("a", rest) if rest.starts_with("record whose receipt") => Some(1),
        (count, rest) if rest.starts_with("records whose receipts") => count.parse().ok(),
        _ => None,
    }
}

fn key(plan: &ProducerPlan, number: u64, dice: &mut Rng) -> Option<String> {
    if dice.f64() < plan.keyless {
        return None;
    }
    let mut key = dice.usize(..plan.keys);
    if plan.skewed {
        key = dice.usize(..=key);
    }
    Some(format!("key-{number}-{key}"))
}

async fn join_reader(world: &World, reader: tokio::task::JoinHandle<()>) {
    if let Err(error) = reader.await {
        world.report_problem(format!("reading receipts: {error}"));
    }
}

/// Records the results of receipts.
async fn record_receipts(
    world: World,
    destination: Destination,
    mut receipts: mpsc::UnboundedReceiver<(u64, Receipt)>,
    stored: Arc<AtomicU64>,
    failed: Arc<AtomicU64>,
) {
    while let Some((id, receipt)) = receipts.recv().await {
        let event = receipt.await;
        match &event {
            Ok(_) => stored.fetch_add(1, Relaxed),
            Err(_) => failed.fetch_add(1, Relaxed),
        };
        let event = match event {
            Ok(metadata) => Event::Acknowledged {
                id,
                partition: Partition::new(destination.name.clone(), metadata.partition.id()),
                position: metadata.position,
            },
            Err(error) if error.kind() == ErrorKind::Timeout => Event::Unknown { id },
            Err(error) if error.is_retryable() => Event::Failed { id },
            // An earlier attempt may have stored it.
            Err(error) if destination.is_deleted(&world, &error) && destination.send_faults => {
                Event::Unknown { id }
            }
            Err(error) if destination.is_deleted(&world, &error) => Event::Failed { id },
            Err(error) => {
                world.report_problem(format!("receipt of record {id}: {error:?}"));
                Event::Unknown { id }
            }
        };
        world.record(event);
    }
}
