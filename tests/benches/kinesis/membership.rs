//! The requests of members to both services, by operation: of a member that joins, and of a group at work.
//!
//! One member creates the group, and another one joins it. Each is behind its own proxy, which counts. A join
//! begins with the member's process, and ends when the members have shared the shards evenly for 5 s. The hour is
//! extrapolated from [`COUNTED`] after that, of both members together. There are no records, so no progress is
//! stored: [`requests`](crate::requests) measures what that adds.

use std::collections::BTreeMap;
use std::time::Duration;

use conformance::kinesis::{Proxy, Service};
use millstream_kinesis::Retrieval;

use crate::Result;
use crate::environment::{BenchStream, Environment};
use crate::job::Measured;
use crate::process::Process;
use crate::requests::share;

/// The time from which the requests of an hour are extrapolated. Most timers of a member are shorter than a minute, and
/// the longest one is 10 minutes.
pub(crate) const COUNTED: Duration = Duration::from_secs(300);

/// The default.
const FAILOVER: Duration = Duration::from_secs(10);

/// How the members get records, with their names in the metrics.
pub(crate) const RETRIEVALS: [(&str, Retrieval); 2] = [
    ("polling", Retrieval::Polling),
    ("fan_out", Retrieval::FanOut),
];

/// What is counted: the join of the first member, that of the second one, and an hour of both.
pub(crate) const PHASES: [&str; 3] = ["first_join", "join", "hour"];

/// The operations that have a row of their own.
pub(crate) const OPERATIONS: [&str; 14] = [
    "DescribeStreamSummary",
    "ListShards",
    "ListStreams",
    "GetShardIterator",
    "RegisterStreamConsumer",
    "DescribeStreamConsumer",
    "CreateTable",
    "DescribeTable",
    "Scan",
    "Query",
    "GetItem",
    "PutItem",
    "UpdateItem",
    "DeleteItem",
];

/// All other operations of the control plane and of DynamoDB.
pub(crate) const OTHERS: &str = "others";

/// The operations that read records, which depend on the records.
const READS: [&str; 2] = ["GetRecords", "SubscribeToShard"];

/// The name of a measured value.
pub(crate) fn name(retrieval: &str, phase: &str, operation: &str) -> String {
    format!("{retrieval}_{phase}_{operation}")
}

pub(crate) async fn run(environment: &mut Environment) -> Result<Measured> {
    let mut groups = Vec::new();
    for (name, retrieval) in RETRIEVALS {
        let first = environment.watched().await?;
        let second = environment.watched_again(&first.target)?;
        groups.push((name, retrieval, [first, second]));
    }
    let counted = groups.iter().map(async |(name, retrieval, members)| {
        let phases = count(*retrieval, members).await?;
        let phases = PHASES.iter().zip(phases);
        Result::<_>::Ok(phases.flat_map(|(phase, counts)| values(name, phase, &counts)))
    });
    let counted = futures_util::future::try_join_all(counted).await?;
    for (_, _, [first, _]) in &groups {
        environment.delete(&first.target).await?;
    }
    Ok(counted.into_iter().flatten().collect())
}

type Counts = BTreeMap<(Service, String), f64>;

/// Returns the requests of each of [`PHASES`].
async fn count(retrieval: Retrieval, [first, second]: &[BenchStream; 2]) -> Result<[Counts; 3]> {
    let join = |member: &BenchStream| Process::join(&member.target, FAILOVER, retrieval);
    let one = join(first)?;
    share(&first.target, 1).await?;
    let first_join = counts([&first.proxy]);
    let other = join(second)?;
    share(&first.target, 2).await?;
    let later_join = counts([&second.proxy]);

    let proxies = [&first.proxy, &second.proxy];
    let before = counts(proxies);
    tokio::time::sleep(COUNTED).await;
    let mut hour = counts(proxies);
    for (operation, requests) in &mut hour {
        *requests -= before.get(operation).copied().unwrap_or_default();
        *requests *= 3_600.0 / COUNTED.as_secs_f64();
    }
    one.left().await?;
    other.left().await?;
    Ok([first_join, later_join, hour])
}

/// Returns the requests that have passed these proxies so far.
fn counts<const N: usize>(proxies: [&Proxy; N]) -> Counts {
    let mut counts = Counts::new();
    for (operation, requests) in proxies
        .map(|proxy| proxy.stats().requests())
        .into_iter()
        .flatten()
    {
        *counts.entry(operation).or_default() += requests as f64;
    }
    counts
}

/// Returns a value for each operation with a row, even if there were no requests, and one for all others.
fn values(retrieval: &str, phase: &str, counts: &Counts) -> Measured {
    let names = OPERATIONS.iter().chain([&OTHERS]);
    let mut values: Measured = names
        .map(|operation| (name(retrieval, phase, operation), 0.0))
        .collect();
    for ((_, operation), requests) in counts {
        if READS.contains(&&**operation) {
            continue;
        }
        let known = OPERATIONS.contains(&&**operation);
        let operation = if known { operation } else { OTHERS };
        *values.entry(name(retrieval, phase, operation)).or_default() += requests;
    }
    values
}
