//! The requests of members to DynamoDB, for each lease and minute: millstream's and Java's.
//!
//! One member with four shards and two members with two each, without records and with some, whose
//! progress is stored every second: all four at once, each group with its own table and
//! behind its own proxy, which counts.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use millstream_kinesis::Retrieval;

use crate::environment::{BenchStream, Environment};
use crate::feed::Feed;
use crate::java::Worker;
use crate::job::{Library, Link, Measured, Target};
use crate::keys::SHARDS;
use crate::process::Process;
use crate::{Result, raw};

/// The interval between two groups of four records.
const EVERY: Duration = Duration::from_millis(200);
const COUNTED: Duration = Duration::from_secs(60);
/// Leases are shared when their owners have not changed for this long.
const SETTLED: Duration = Duration::from_secs(5);
const TIMEOUT: Duration = Duration::from_secs(150);
const POLL_INTERVAL: Duration = Duration::from_millis(500);

/// The setups in which a group is measured, with their names in the metrics.
pub(crate) const WAYS: [(&str, usize, bool); 4] = [
    ("one_idle", 1, false),
    ("one_loaded", 1, true),
    ("two_idle", 2, false),
    ("two_loaded", 2, true),
];

enum Member {
    Ours(Process),
    Java(Worker),
}

pub(crate) async fn run(
    environment: &mut Environment,
    by: Library,
    failover: Duration,
) -> Result<Measured> {
    let mut scenes = Vec::new();
    for _ in WAYS {
        scenes.push(environment.empty(false, Link::Local).await?);
    }
    let counted = WAYS.iter().zip(&scenes).map(async |(way, bench_stream)| {
        let (name, members, loaded) = *way;
        let requests = count(bench_stream, by, failover, members, loaded).await?;
        let minutes = COUNTED.as_secs_f64() / 60.0;
        let each = requests as f64 / SHARDS as f64 / minutes;
        Result::<_>::Ok((name.to_owned(), each))
    });
    let measured = futures_util::future::try_join_all(counted).await?;
    for bench_stream in &scenes {
        environment.delete(&bench_stream.target).await?;
    }
    Ok(measured.into_iter().collect())
}

async fn count(
    bench_stream: &BenchStream,
    by: Library,
    failover: Duration,
    members: usize,
    loaded: bool,
) -> Result<u64> {
    let target = &bench_stream.target;
    let feed = loaded.then(|| Feed::start(target, EVERY));
    let mut group = Vec::new();
    for number in 0..members {
        group.push(match by {
            Library::Ours => Member::Ours(Process::join(target, failover, Retrieval::Polling)?),
            _ => Member::Java(Worker::start(by, target, failover, number).await),
        });
    }
    share(target, members).await?;
    let before = bench_stream.proxy.stats().to_dynamodb();
    tokio::time::sleep(COUNTED).await;
    let requests = bench_stream.proxy.stats().to_dynamodb() - before;
    for member in group {
        match member {
            Member::Ours(process) => process.left().await?,
            Member::Java(worker) => worker.kill().await,
        }
    }
    if let Some(feed) = feed {
        feed.stop().await?;
    }
    Ok(requests)
}

/// Waits until this many members share the leases evenly.
pub(crate) async fn share(target: &Target, members: usize) -> Result<()> {
    let begun = Instant::now();
    let mut shared: Option<(BTreeMap<String, String>, Instant)> = None;
    loop {
        let owners = owners(target).await?;
        shared = match shared {
            _ if !is_even(&owners, members) => None,
            Some((before, since)) if before == owners => Some((before, since)),
            _ => Some((owners, Instant::now())),
        };
        if shared
            .as_ref()
            .is_some_and(|(_, since)| since.elapsed() > SETTLED)
        {
            return Ok(());
        }
        if begun.elapsed() > TIMEOUT {
            return Err("the members do not share the leases".into());
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

fn is_even(owners: &BTreeMap<String, String>, members: usize) -> bool {
    let mut shares = BTreeMap::<_, usize>::new();
    for owner in owners.values() {
        *shares.entry(owner).or_default() += 1;
    }
    owners.len() == SHARDS
        && shares.len() == members
        && shares.values().all(|share| *share == SHARDS / members)
}

/// Returns the owner of each lease, without the proxy.
async fn owners(target: &Target) -> Result<BTreeMap<String, String>> {
    let dynamodb = raw::dynamodb(&target.dynamodb_itself);
    let scan = dynamodb.scan().table_name(&target.group);
    let Ok(scanned) = scan.consistent_read(true).send().await else {
        // Before the group is created, there is no table.
        return Ok(BTreeMap::new());
    };
    let text = |row: &std::collections::HashMap<String, _>, name: &str| {
        let value: &aws_sdk_dynamodb::types::AttributeValue = row.get(name)?;
        value.as_s().ok().cloned()
    };
    let owners = scanned.items().iter();
    let owners = owners.filter_map(|row| text(row, "leaseKey").zip(text(row, "leaseOwner")));
    Ok(owners.collect())
}
