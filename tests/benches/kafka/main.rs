//! The Kafka backend beside plain `rdkafka`, on the same broker, the same topics and records, in one
//! run.
//!
//! `tests/bench kafka [FILTER] [--rounds N]` runs the measurements whose name contains the filter.
//!
//! # Method
//!
//! All jobs that the wanted figures need take turns, round after round, so that a slow moment of the
//! machine meets all of them alike; every other round runs them backwards. A ratio is the median of
//! the ratios of each round. The first round only warms up, and does not count.
//!
//! **Each job is a process of its own**, with the same multi-threaded runtime of tokio, and its
//! processor time is that of the whole process (user and system, of all threads, connecting and
//! leaving included) over its records. The broker, one for all, runs on the same machine: where the
//! cores are few, a rate is also that of the broker.
//!
//! * *Consume*: 3 million keyed records without headers, from 4 partitions, in a group of its own for
//!   each process; the rate from the first record handled until the last one. Ours is the SDK at its
//!   defaults with a handler that is ready at once, reads the headers, and holds the payload. The
//!   plain loop is `StreamConsumer::stream` doing the same job: headers read, the payload copied
//!   into `Bytes`, `store_offset` for each record, and librdkafka's auto commit. It runs with the
//!   settings that our backend gives to librdkafka, and once more (`_at_defaults`) without. `_bare`
//!   is a loop that ignores headers, borrows the payload and stores nothing. Ours and the same job
//!   count only if the broker then has stored that all records are settled.
//!   `_rtt10` adds 10 ms to each round trip, by a proxy in the process that waits for the jobs.
//! * *Produce*: 1 million keyed records of 512 bytes, each receipt awaited, at most 10,000 open.
//!   `FutureProducer` awaits in the order of sending, as ours does, and once more (`_unordered`) by
//!   `FuturesUnordered`. `_rtt5` and `_rtt10` add to each round trip. `kafka_throttle` compares ours with itself,
//!   when no record waits for the response to a request of its partition. All idempotent, `acks=all`, with the same linger and partitioner.
//! * *Chain*: 1.5 million keyed records of 512 bytes are read from 4 partitions, and each is stored in
//!   another topic with 4 partitions, in transactions with the progress. Ours is `transform_to` with
//!   `Guarantee::ExactlyOnce`, at the SDK's defaults: it publishes every 100 ms, or when 10,000 records
//!   wait. The plain loop polls a `BaseConsumer`, sends each record by a transactional `BaseProducer`,
//!   and commits at the same times: `begin_transaction`, `send_offsets_to_transaction`,
//!   `commit_transaction`. `_polling` is the same loop, but waits until its records are stored before
//!   it commits: the commit of rdkafka (0.39) waits in steps of 100 ms. The settings of the consumer,
//!   `acks`, partitioner, sizes of batches and compression (none) are the same on both sides. The loop
//!   has a linger of 5 ms, without which it is slower; ours hands over a whole transaction at once,
//!   without linger. The rate is that from the first record handled until the last commit. A job
//!   counts only if a reader of committed records finds one result of each record, and progress is
//!   stored for all of them. `_transaction` is how many records a transaction has, by the markers in
//!   the topic.
//! * *Latency*: 10,000 records/s of 512 bytes, producer and consumer in one process, ten seconds
//!   after three that do not count. See [`latency`].
//! * *Rebalance*: see [`rebalance`]. The plain client is librdkafka's at its defaults.
//!
//! # Findings
//!
//! * What costs a consumer is not the record but what is done once for each: a wake, a channel, a
//!   shared counter, an allocation. So records are taken by librdkafka's batch call on one thread,
//!   copied into one buffer for the batch, and cut from it; the runtime is woken for each batch.
//! * A consumer that is quicker than the broker finds its local queue full, and librdkafka then does
//!   not fetch a partition for `fetch.queue.backoff.ms`, a second by default. With small records
//!   that is most of the time (`_100b_at_defaults`). Ours sets 2 ms.
//! * A producer gets its receipts by one event for each request and wakes a call once, when all its
//!   records are acknowledged.
//! * Where receipts are awaited in a window, the rate is the window over the time to a response, for an
//!   idempotent producer of librdkafka's has one request of a partition on its way at a time. While
//!   more records wait behind that, its thread spins and takes the broker's share of the processor
//!   here. Where responses take longer than records linger, ours hands it one request of a partition at
//!   a time: that halved the processor time, and the broker responds sooner.
//! * `BaseProducer::poll` of rdkafka (0.39) does not return before its time is over, whatever it gets, and
//!   `flush` and `commit_transaction` poll for 100 ms. So each transaction lasted that long. Ours now
//!   waits in librdkafka's own `rd_kafka_flush`, while the producer's thread polls.
//! * A member learns of a rebalance with a heartbeat, and librdkafka sends heartbeats, joins again and
//!   fetches again up to a second later than it could. Ours wakes the thread in question each time.

#[path = "../args/mod.rs"]
mod args;
mod chain;
#[path = "../clock/mod.rs"]
mod clock;
mod consume;
mod environment;
mod job;
mod latency;
mod member;
#[path = "../metric/mod.rs"]
mod metric;
mod metrics;
mod ours;
mod produce;
#[path = "../quartiles/mod.rs"]
mod quartiles;
mod raw;
mod rebalance;
mod round_trip;
#[path = "../watchdog/mod.rs"]
mod watchdog;

use std::collections::{BTreeMap, BTreeSet};

use args::Args;
use environment::{Contents, Environment};
use job::{CHILD, Job, Measured, Target, Task};
use metric::{Metric, Report};
use metrics::METRICS;
use tokio::runtime::Runtime;

pub(crate) type Fault = Box<dyn std::error::Error + Send + Sync>;
pub(crate) type Result<T, E = Fault> = std::result::Result<T, E>;

const ROUNDS: usize = 9;
/// One round takes minutes, for dead members are missed late; and none warms up, for it is the
/// group's own timeouts that are measured.
const REBALANCE_ROUNDS: usize = 5;

fn main() -> Result<()> {
    let args = std::env::args().skip(1).collect::<Vec<_>>();
    if let [child, task] = &*args {
        if child == CHILD {
            return Task::run(task);
        }
    }
    let Args { filter, rounds } = Args::from_args(args)?;
    let metrics = METRICS
        .iter()
        .filter(|metric| metric.name.contains(&filter));
    let metrics = metrics.collect::<Vec<_>>();
    if metrics.is_empty() {
        return Err(format!("no figure has \"{filter}\" in its name").into());
    }

    let runtime = environment::runtime()?;
    let mut environment = runtime.block_on(Environment::set())?;
    let outcome = measure(&runtime, &mut environment, &metrics, rounds);
    // A container goes within a runtime.
    runtime.block_on(async move { drop(environment) });
    outcome
}

fn measure(
    runtime: &Runtime,
    environment: &mut Environment,
    metrics: &[&Metric],
    rounds: Option<usize>,
) -> Result<()> {
    let jobs = metrics.iter().flat_map(|metric| metric.jobs());
    let jobs = jobs.collect::<BTreeSet<_>>();
    let contents = jobs.iter().filter_map(|job| match job {
        Job::Consume { bytes, .. } => Some(Contents::consumed(*bytes)),
        Job::Chain(_) => Some(chain::CONTENTS),
        _ => None,
    });
    for contents in contents.collect::<BTreeSet<_>>() {
        runtime.block_on(environment.fill(contents))?;
    }

    let mut report = Report::default();
    for round in 0..=rounds.unwrap_or(ROUNDS) {
        let is_due = |job: &&Job| match job {
            Job::Rebalance { .. } => (1..=rounds.unwrap_or(REBALANCE_ROUNDS)).contains(&round),
            _ => true,
        };
        let mut due = jobs.iter().filter(is_due).collect::<Vec<_>>();
        if round % 2 == 1 {
            due.reverse();
        }
        let mut measured = BTreeMap::new();
        for job in due {
            measured.insert(*job, run(runtime, environment, *job)?);
        }
        if round > 0 {
            report.add(measured);
        }
    }
    for metric in metrics {
        report.print(metric);
    }
    Ok(())
}

fn run(runtime: &Runtime, environment: &mut Environment, job: Job) -> Result<Measured> {
    let partitions = match job {
        Job::Consume {
            bytes,
            round_trip_ms,
            ..
        } => {
            let target = environment.full(Contents::consumed(bytes));
            return Task::Measure(job, environment.at(&target, round_trip_ms)).measure();
        }
        Job::Rebalance { .. } => rebalance::PARTITIONS,
        Job::Produce { .. } | Job::Chain(_) | Job::Latency { .. } => environment::PARTITIONS,
    };
    let target = runtime.block_on(environment.empty(partitions))?;
    let measured = match job {
        Job::Rebalance { by, protocol } => rebalance::run(by, protocol, &target)?,
        Job::Produce { round_trip_ms, .. } => {
            Task::Measure(job, environment.at(&target, round_trip_ms)).measure()?
        }
        Job::Chain(_) => {
            let chained = Target {
                output: Some(target.topic.clone()),
                ..environment.full(chain::CONTENTS)
            };
            Task::Measure(job, chained).measure()?
        }
        _ => Task::Measure(job, target.clone()).measure()?,
    };
    runtime.block_on(environment.delete(&target))?;
    Ok(measured)
}
