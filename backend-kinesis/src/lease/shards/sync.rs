//! Creates the leases that a stream needs.

use std::time::{Duration, SystemTime};

use futures_util::{StreamExt, TryStreamExt, stream as futures};
use millstream_core::telemetry::event;
use millstream_core::{Error, ErrorKind, Result, Start};
use tokio::time::sleep;

use super::{Known, Plan, initial, missing, tile};
use crate::lease::key::Stream;
use crate::lease::row::{Begin, NewRow, Row};
use crate::lease::source::ShardSource;
use crate::lease::store::{Item, LeaseStore};
use crate::stream::Shard;

/// How many initial leases are created at once. Each takes up to two requests.
const AT_ONCE: usize = 16;

/// How often shards are listed that do not fit together, which happens while a stream is resharded.
const TRIES: usize = 3;
const PAUSE: Duration = Duration::from_secs(1);

/// The listed shards, and the leases that were created.
#[derive(Debug)]
pub(crate) struct Created {
    pub(crate) shards: Vec<Shard>,
    pub(crate) rows: Vec<Row>,
}

/// Creates the initial leases of a group in a stream, or the missing ones. Concurrent calls create the
/// same leases.
pub(crate) async fn sync(
    store: &dyn LeaseStore,
    source: &dyn ShardSource,
    stream: &Stream,
    known: &Known,
    start: Start,
) -> Result<Created> {
    let start = effective_start(start);
    let shards = whole(source, &stream.name).await?;
    let plans = match known.is_empty() {
        true => initial(&shards, start),
        false => missing(&shards, known, start),
    };
    // Initial leases are of shards of which none descends from another. Missing ones are created in order: the parents
    // first.
    let at_once = if known.is_empty() { AT_ONCE } else { 1 };
    let created = plans.into_iter().map(async |plan| {
        let item = begin(source, stream, plan).await?.item(stream);
        Ok(store.create(item.clone()).await?.then_some(item))
    });
    let created = futures::iter(created).buffered(at_once);
    let created: Vec<Option<Item>> = created.try_collect().await?;
    let rows: Vec<_> = created.iter().flatten().flat_map(Row::read).collect();
    event!(
        debug, "millstream.kinesis.shards.synced",
        stream = %stream.name, shards = shards.len(), created = rows.len(),
        "the leases of the stream were looked through"
    );
    Ok(Created { shards, rows })
}

/// Returns the effective start: a time in the future is the tip.
pub(crate) fn effective_start(start: Start) -> Start {
    match start {
        Start::At(time) if time > SystemTime::now() => Start::Latest,
        start => start,
    }
}

/// Returns a lease with its start position.
pub(crate) async fn begin(source: &dyn ShardSource, stream: &Stream, plan: Plan) -> Result<NewRow> {
    let begin = match plan.begin {
        Start::Earliest => Begin::TrimHorizon,
        Start::Latest => Begin::Latest(source.latest(&stream.name, &plan.shard.id).await?),
        Start::At(time) => Begin::At {
            time,
            resolved: Some(SystemTime::now()),
        },
        _ => {
            let message = "this start is not one that Kinesis knows";
            return Err(Error::new(ErrorKind::Unsupported, "join", message));
        }
    };
    Ok(NewRow {
        shard: plan.shard,
        begin,
    })
}

/// Lists the shards until the open ones cover each hash key once.
async fn whole(source: &dyn ShardSource, stream: &str) -> Result<Vec<Shard>> {
    let mut attempts = 0;
    loop {
        let shards = source.shards(stream).await?;
        let open = shards.iter().filter(|shard| shard.open);
        if tile(open.map(|shard| shard.range)) {
            return Ok(shards);
        }
        attempts += 1;
        if attempts == TRIES {
            let message = "the open shards that Kinesis lists have not each hash key once";
            let error = Error::new(ErrorKind::Unavailable, "list shards", message);
            return Err(error.with_stream(stream));
        }
        sleep(PAUSE).await;
    }
}
