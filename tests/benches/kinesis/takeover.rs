//! The time until a group's other member handles all shards, when one is killed and when one
//! leaves.
//!
//! Two members in processes share four shards, each of which gets a record every 20 ms. One is
//! killed by a signal that no process can catch; another one joins, and when both share the shards
//! again, the older one leaves. Each time is measured from then until the remaining member has handled a
//! record of every shard. The requests to DynamoDB from the kill until then are counted.

use std::time::{Duration, Instant};

use millstream_kinesis::Retrieval;

use crate::environment::BenchStream;
use crate::feed::Feed;
use crate::job::Measured;
use crate::keys::SHARDS;
use crate::process::Process;
use crate::{Result, clock};

/// How long a silent member keeps its leases.
const FAILOVER: Duration = Duration::from_secs(3);
const EVERY: Duration = Duration::from_millis(20);
/// Members share the shards when each has handled records of its half, and no others, for this long.
const SETTLED: Duration = Duration::from_secs(2);
const TIMEOUT: Duration = Duration::from_secs(90);
const POLL_INTERVAL: Duration = Duration::from_millis(20);

pub(crate) async fn run(bench_stream: &BenchStream) -> Result<Measured> {
    let BenchStream { target, proxy, .. } = bench_stream;
    let feed = Feed::start(target, EVERY);
    let join = || Process::join(target, FAILOVER, Retrieval::Polling);
    let mut pair = [join()?, join()?];
    settle(&mut pair).await?;
    let [dies, mut stays] = pair;
    let begun = clock::monotonic();
    dies.kill().await?;
    let before = proxy.stats().to_dynamodb();
    let takeover = has_all(&mut stays, begun).await?;
    let requests = proxy.stats().to_dynamodb() - before;

    let mut pair = [stays, join()?];
    settle(&mut pair).await?;
    let [mut leaves, mut stays] = pair;
    let begun = clock::monotonic();
    leaves.leave();
    let handover = has_all(&mut stays, begun).await?;
    leaves.left().await?;
    stays.left().await?;
    feed.stop().await?;
    let seconds = |time: Duration| time.as_secs_f64();
    Ok([
        ("takeover".into(), seconds(takeover)),
        ("handover".into(), seconds(handover)),
        (
            "requests".into(),
            requests as f64 / SHARDS as f64 / takeover.as_secs_f64() * 60.0,
        ),
    ]
    .into())
}

async fn settle(pair: &mut [Process; 2]) -> Result<()> {
    let begun = (Instant::now(), clock::monotonic());
    loop {
        let since = clock::monotonic().saturating_sub(SETTLED);
        let mut halves = pair.iter().map(|member| member.handled_since(since).len());
        if since > begun.1 && halves.all(|half| half == SHARDS / 2) {
            return Ok(());
        }
        if begun.0.elapsed() > TIMEOUT {
            return Err("the members do not share the shards".into());
        }
        for member in &mut *pair {
            member.is_there()?;
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

/// Returns the time from then until the member has handled a record of every shard.
async fn has_all(member: &mut Process, since: Duration) -> Result<Duration> {
    let begun = Instant::now();
    loop {
        let handled = member.handled_since(since);
        let last = handled.iter().map(|reported| reported.at).max();
        if let Some(last) = last
            && handled.len() == SHARDS
        {
            return Ok(last - since);
        }
        if begun.elapsed() > TIMEOUT {
            return Err(format!("it handles only {handled:?}").into());
        }
        member.is_there()?;
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}
