//! Sending keyed records, with every receipt awaited.
//!
//! At the limits of the shards, everything goes for a time, and counts from when the first burst is
//! over: an emulator lets a whole second's worth pass at once. Afterwards the stream is read, to
//! see how large what was stored is, and that each key is in order.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use millstream_core::{Position, Record, RecordMetadata};
use millstream_kinesis::Aggregation;

use crate::environment::RECEIPTS;
use crate::job::{Measured, PutClient, Target};
use crate::keys::{SHARDS, keys, payload};
use crate::{Result, clock, environment, ours, put_loop, stored};

/// What a shard takes each second.
const SHARD_BYTES: usize = 1 << 20;

/// At the limits, this is not counted.
const UNCOUNTED: Duration = Duration::from_secs(2);
pub(crate) const COUNTED: Duration = Duration::from_secs(30);

/// Without limits, so many are sent.
const RECORDS: u64 = 300_000;

/// How much is sent.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Amount {
    Records(u64),
    Time(Duration),
}

impl Amount {
    pub(crate) fn is_sent(self, records: u64, begun: Instant) -> bool {
        match self {
            Self::Records(all) => records == all,
            Self::Time(all) => begun.elapsed() >= all,
        }
    }
}

/// What was acknowledged, and when.
#[derive(Debug)]
pub(crate) struct Throughput {
    pub(crate) begun: Instant,
    records: u64,
    /// Those of the time that counts.
    counted: u64,
    /// This process's processor time when that time began and when it was over.
    processor: [Option<Duration>; 2],
    /// The Kinesis records of ours that were acknowledged while it counted, with their shards.
    places: Vec<(String, Position)>,
}

pub(crate) fn run(by: PutClient, limited: bool, target: &Target) -> Result<Measured> {
    let amount = match limited {
        true => Amount::Time(UNCOUNTED + COUNTED),
        false => Amount::Records(RECORDS),
    };
    let before = clock::processor();
    let runtime = environment::runtime()?;
    let at = target.clone();
    let put = runtime.spawn(async move {
        let mut throughput = Throughput::begin();
        match by {
            PutClient::Kpl => ours(&at, Aggregation::Kpl, limited, amount, &mut throughput).await?,
            PutClient::Off => ours(&at, Aggregation::Off, limited, amount, &mut throughput).await?,
            PutClient::Loop => put_loop::run(&at, amount, &mut throughput).await?,
        }
        Result::<_>::Ok(throughput)
    });
    let throughput = runtime.block_on(put)??;
    drop(runtime);
    let spent = clock::processor() - before;
    if !limited {
        let each = spent.as_nanos() as f64 / throughput.records as f64;
        return Ok([("cpu".into(), each)].into());
    }

    let rate = throughput.counted as f64 / COUNTED.as_secs_f64();
    // Nothing may have come when it was over.
    let [began, ended] = throughput
        .processor
        .map(|at| at.unwrap_or_else(clock::processor));
    let each = (ended - began).as_nanos() as f64 / throughput.counted as f64;
    let mut measured = Measured::from([("rate".into(), rate), ("cpu".into(), each)]);
    if by != PutClient::Loop {
        let stored = environment::runtime()?.block_on(stored::read(target))?;
        stored.is_in_order(&keys(), throughput.records)?;
        let bytes = stored.bytes_of(&throughput.places)?;
        let limit = (SHARDS * SHARD_BYTES) as f64 * COUNTED.as_secs_f64();
        measured.insert("share".into(), bytes as f64 / limit);
    }
    Ok(measured)
}

impl Throughput {
    fn begin() -> Self {
        Self {
            begun: Instant::now(),
            records: 0,
            counted: 0,
            processor: [None; 2],
            places: Vec::new(),
        }
    }

    fn counts(&self) -> bool {
        let since = self.begun.elapsed();
        since >= UNCOUNTED && since < UNCOUNTED + COUNTED
    }

    pub(crate) fn add(&mut self, records: u64) {
        let since = self.begun.elapsed();
        let borders = [UNCOUNTED, UNCOUNTED + COUNTED];
        for (border, processor) in borders.into_iter().zip(&mut self.processor) {
            if since >= border {
                processor.get_or_insert_with(clock::processor);
            }
        }
        self.records += records;
        if self.counts() {
            self.counted += records;
        }
    }

    fn add_stored(&mut self, metadata: &RecordMetadata) {
        self.add(1);
        if metadata.position.sub() == 0 && self.counts() {
            let shard = metadata.partition.id().to_owned();
            self.places.push((shard, metadata.position));
        }
    }
}

async fn ours(
    target: &Target,
    aggregation: Aggregation,
    limited: bool,
    amount: Amount,
    throughput: &mut Throughput,
) -> Result<()> {
    let mut config = ours::config(target);
    config.producer.aggregation = aggregation;
    if !limited {
        config.producer.rate = 10.0.try_into()?;
    }
    let client = config.connect().await?;
    let producer = client.producer(target.stream.as_str()).open().await?;
    let keys = keys().into_iter().map(bytes::Bytes::from);
    let keys = keys.collect::<Vec<_>>();
    let mut keys = keys.iter().cycle();
    let mut receipts = VecDeque::with_capacity(RECEIPTS);
    throughput.begun = Instant::now();
    let mut sent = 0;
    while let Some(key) = keys.next()
        && !amount.is_sent(sent, throughput.begun)
    {
        if receipts.len() == RECEIPTS
            && let Some(oldest) = receipts.pop_front()
        {
            throughput.add_stored(&oldest.await?);
        }
        let record = Record::new(payload(sent)).key(key.clone());
        receipts.push_back(producer.send(record).await?);
        sent += 1;
    }
    for receipt in receipts {
        throughput.add_stored(&receipt.await?);
    }
    Ok(producer.close().await?)
}
