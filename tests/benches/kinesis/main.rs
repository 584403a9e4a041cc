//! The Kinesis backend compared with plain requests by the AWS SDK and with Java's libraries, and with
//! the limits of a shard, in one run.
//!
//! `tests/bench kinesis [FILTER] [--rounds N]` runs the measurements whose name contains the filter.
//!
//! # Method
//!
//! No emulator is Kinesis, and none is as fast. So a metric is a fraction of a shard's limit,
//! or a ratio to another client of the same emulator, in the same run. All jobs for the selected
//! metrics take turns, round after round, and every other round runs them backwards; a ratio is
//! the median of the ratios of each round. **Each job is a separate process**, or several, with the
//! same multi-threaded runtime of tokio. The emulators, ferrokinesis and DynamoDB Local, run in
//! containers on the same machine.
//!
//! * *Put*, [`put`]: keyed records of 100 bytes into 4 shards, with the same number of keys in each, by millstream's
//!   producer with and without aggregation, by a loop of `PutRecords`, and by Amazon's own producer library for
//!   Java, the KPL, [`put_java`]. One measurement is at the write limits, which the emulator enforces, for 30 s after
//!   two that do not count. Another one, except for the KPL, is without limits, for the CPU time of the
//!   client's process. At the limits all of them use TLS, because the KPL supports nothing else. The KPL's
//!   CPU time is that of all its processes within those 30 s, and is compared with millstream's within them.
//!   The same is measured with the latency of a distant region at the limits, and through an endpoint like that of AWS
//!   (TLS, HTTP/2, 10 ms of latency), where the loop uses the SDK's default client.
//! * *Poll*, [`poll`]: a full stream, as one member of a new group, through a proxy that rejects requests
//!   over the read limits.
//! * *Fan-out*, [`fan_out`]: the time from the due time of a record's send until it is handled, by millstream's
//!   member and by a bare loop of `SubscribeToShard`: without TLS, and through the endpoint like that of AWS.
//! * *Takeover*, [`takeover`]: two members in processes; one is killed, another one leaves.
//! * *Requests*, [`requests`]: the requests of members to DynamoDB, millstream's and Java's.
//! * *Membership*, [`membership`]: the requests of millstream's members to both services by operation, of a join and
//!   of an hour, extrapolated from 5 minutes.

mod aggregate;
#[path = "../args/mod.rs"]
mod args;
#[path = "../clock/mod.rs"]
mod clock;
mod environment;
mod fan_out;
mod feed;
mod java;
mod job;
mod keys;
mod member;
mod membership;
#[path = "../metric/mod.rs"]
mod metric;
mod metrics;
mod ours;
mod poll;
mod process;
mod put;
mod put_java;
mod put_loop;
#[path = "../quartiles/mod.rs"]
mod quartiles;
mod raw;
mod requests;
mod stored;
mod takeover;
#[path = "../watchdog/mod.rs"]
mod watchdog;

use std::collections::{BTreeMap, BTreeSet};

use args::Args;
use environment::Environment;
use job::{CHILD, Job, Link, Measured, Task};
use metric::{Metric, Report};

pub(crate) type Fault = Box<dyn std::error::Error + Send + Sync>;
pub(crate) type Result<T, E = Fault> = std::result::Result<T, E>;

const ROUNDS: usize = 5;

fn main() -> Result<()> {
    let args = std::env::args().skip(1).collect::<Vec<_>>();
    if let [child, task] = &*args
        && child == CHILD
    {
        return Task::run(task);
    }
    let Args { filter, rounds } = Args::from_args(args)?;
    let metrics = metrics::all().into_iter();
    let metrics = metrics.filter(|metric| metric.name.contains(&filter));
    let metrics = metrics.collect::<Vec<_>>();
    if metrics.is_empty() {
        return Err(format!("no figure has \"{filter}\" in its name").into());
    }
    environment::runtime()?.block_on(measure(&metrics, rounds))
}

async fn measure(metrics: &[Metric], rounds: Option<usize>) -> Result<()> {
    let jobs = metrics.iter().flat_map(Metric::jobs);
    let jobs = jobs.collect::<BTreeSet<_>>();
    let mut environment = Environment::set().await;
    if jobs.contains(&Job::Poll) {
        environment.fill().await?;
    }
    let mut report = Report::default();
    for round in 0..rounds.unwrap_or(ROUNDS) {
        let is_due = |job: &&Job| rounds.is_some() || round < job.rounds();
        let mut due = jobs.iter().filter(is_due).collect::<Vec<_>>();
        if round % 2 == 1 {
            due.reverse();
        }
        let mut measured = BTreeMap::new();
        for job in due {
            measured.insert(*job, run(&mut environment, *job).await?);
        }
        report.add(measured);
    }
    for metric in metrics {
        report.print(metric);
    }
    Ok(())
}

async fn run(environment: &mut Environment, job: Job) -> Result<Measured> {
    match job {
        Job::Put { limited, link, .. } => put(environment, job, limited, link).await,
        Job::PutJava => put(environment, job, true, Link::Local).await,
        Job::Poll => {
            let bench_stream = environment.full()?;
            bench_stream.proxy.limit_reads(&bench_stream.target.stream);
            let mut measured = Task::Measure(job, bench_stream.target.clone())
                .measure()
                .await?;
            measured.insert(
                "share".into(),
                poll::share(&bench_stream.proxy.stats().reads())?,
            );
            Ok(measured)
        }
        Job::FanOut { link, .. } => {
            let bench_stream = environment.empty(false, link).await?;
            let measured = Task::Measure(job, bench_stream.target.clone())
                .measure()
                .await?;
            environment.delete(&bench_stream.target).await?;
            Ok(measured)
        }
        Job::Takeover => {
            let bench_stream = environment.empty(false, Link::Local).await?;
            let measured = takeover::run(&bench_stream).await?;
            environment.delete(&bench_stream.target).await?;
            Ok(measured)
        }
        Job::Requests { by, failover } => requests::run(environment, by, failover).await,
        Job::Membership => membership::run(environment).await,
    }
}

async fn put(
    environment: &mut Environment,
    job: Job,
    limited: bool,
    link: Link,
) -> Result<Measured> {
    let bench_stream = environment.empty(limited, link).await?;
    let mut measured = Task::Measure(job, bench_stream.target.clone())
        .measure()
        .await?;
    if limited {
        let sent = bench_stream.proxy.stats().sent();
        let share = sent.refused as f64 / sent.completed as f64;
        measured.insert("refused".into(), share);
    }
    environment.delete(&bench_stream.target).await?;
    Ok(measured)
}
