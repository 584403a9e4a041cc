//! The Kinesis backend beside plain requests by the AWS SDK and beside Java's libraries, and against
//! the limits of a shard, in one run.
//!
//! `tests/bench kinesis [FILTER] [--rounds N]` runs the measurements whose name contains the filter.
//!
//! # Method
//!
//! No emulator is Kinesis, and none is as fast. So what is measured is a share of what a shard allows,
//! or a ratio to another client of the same emulator, in the same run. All jobs that the wanted
//! figures need take turns, round after round, and every other round runs them backwards; a ratio is
//! the median of the ratios of each round. **Each job is a process of its own**, or several, with the
//! same multi-threaded runtime of tokio. The emulators, ferrokinesis and DynamoDB Local, are in
//! containers on the same machine.
//!
//! * *Put*, [`put`]: keyed records of 100 bytes into 4 shards, as many keys in each, by our producer
//!   with and without aggregation, by a loop of `PutRecords`, and by Amazon's own producer library for
//!   Java, the KPL, [`put_java`]. At the limits of writing, which the emulator enforces, for 30 s after
//!   two that do not count; and, but for the KPL, without limits, for the processor time of the
//!   client's process. At the limits all of them speak TLS, as the KPL does nothing else. Its
//!   processor time is that of all its processes within those 30 s, and beside ours within them.
//! * *Poll*, [`poll`]: a full stream, as one member of a new group, through a proxy that refuses what
//!   is over the limits of reading.
//! * *Fan-out*, [`fan_out`]: from the moment that a record is due to be sent until it is handled, by our
//!   member and by a bare loop of `SubscribeToShard`.
//! * *Takeover*, [`takeover`]: two members in processes; one is killed, another one leaves.
//! * *Requests*, [`requests`]: what members ask of DynamoDB, ours and Java's.

mod carrier;
#[path = "../clock/mod.rs"]
mod clock;
mod fan_out;
mod feed;
#[path = "../figure/mod.rs"]
mod figure;
mod figures;
mod java;
mod job;
mod keys;
mod member;
mod ours;
mod poll;
mod process;
mod put;
mod put_java;
mod put_loop;
mod raw;
mod requests;
#[path = "../spread/mod.rs"]
mod spread;
mod stage;
mod stored;
mod takeover;
#[path = "../wanted/mod.rs"]
mod wanted;
#[path = "../watchdog/mod.rs"]
mod watchdog;

use std::collections::{BTreeMap, BTreeSet};

use figure::{Figure, Report};
use job::{CHILD, Job, Measured, Task};
use stage::Stage;
use wanted::Wanted;

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
    let Wanted { filter, rounds } = Wanted::from_args(args)?;
    let figures = figures::all().into_iter();
    let figures = figures.filter(|figure| figure.name.contains(&filter));
    let figures = figures.collect::<Vec<_>>();
    if figures.is_empty() {
        return Err(format!("no figure has \"{filter}\" in its name").into());
    }
    stage::runtime()?.block_on(measure(&figures, rounds))
}

async fn measure(figures: &[Figure], rounds: Option<usize>) -> Result<()> {
    let jobs = figures.iter().flat_map(Figure::jobs);
    let jobs = jobs.collect::<BTreeSet<_>>();
    let mut stage = Stage::set().await;
    if jobs.contains(&Job::Poll) {
        stage.fill().await?;
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
            measured.insert(*job, run(&mut stage, *job).await?);
        }
        report.add(measured);
    }
    for figure in figures {
        report.print(figure);
    }
    Ok(())
}

async fn run(stage: &mut Stage, job: Job) -> Result<Measured> {
    match job {
        Job::Put { limited, .. } => put(stage, job, limited).await,
        Job::PutJava => put(stage, job, true).await,
        Job::Poll => {
            let scene = stage.full().await?;
            scene.proxy.limit_reads();
            let mut measured = Task::Measure(job, scene.place.clone()).measure().await?;
            measured.insert("share".into(), poll::share(&scene.proxy.tally().reads())?);
            Ok(measured)
        }
        Job::FanOut { .. } => {
            let scene = stage.empty(false).await?;
            let measured = Task::Measure(job, scene.place.clone()).measure().await?;
            stage.delete(&scene.place).await?;
            Ok(measured)
        }
        Job::Takeover => {
            let scene = stage.empty(false).await?;
            let measured = takeover::run(&scene.place).await?;
            stage.delete(&scene.place).await?;
            Ok(measured)
        }
        Job::Requests { by, failover } => requests::run(stage, by, failover).await,
    }
}

async fn put(stage: &mut Stage, job: Job, limited: bool) -> Result<Measured> {
    let scene = stage.empty(limited).await?;
    let mut measured = Task::Measure(job, scene.place.clone()).measure().await?;
    if limited {
        let sent = scene.proxy.tally().sent();
        let share = sent.refused as f64 / sent.answered as f64;
        measured.insert("refused".into(), share);
    }
    stage.delete(&scene.place).await?;
    Ok(measured)
}
