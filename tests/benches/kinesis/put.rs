//! Sending keyed records, with every receipt awaited.
//!
//! At the limits of the shards, the job runs for a fixed time, and counts after the first burst:
//! an emulator admits a whole second's worth at once. Afterwards the stream is read, to
//! measure the size of the stored records, and to check that each key is in order.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use millstream_core::{Position, Record, RecordMetadata};
use millstream_kinesis::Aggregation;

use crate::environment::RECEIPTS;
use crate::job::{Measured, PutClient, Target};
use crate::keys::{SHARDS, keys, payload};
use crate::{Result, clock, environment, ours, put_loop, stored};

/// The bytes that a shard accepts per second.
const SHARD_BYTES: usize = 1 << 20;

/// The time that is not counted at the limits.
const UNCOUNTED: Duration = Duration::from_secs(2);
pub(crate) const COUNTED: Duration = Duration::from_secs(30);

/// The number of records that are sent without limits.
const RECORDS: u64 = 300_000;

/// The amount of records to send.
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

/// The acknowledged records, and their times.
#[derive(Debug)]
pub(crate) struct Throughput {
    amount: Amount,
    pub(crate) begun: Instant,
    records: u64,
    /// The records within the counted time.
    counted: u64,
    /// This process's CPU time at the beginning and at the end of the counted time.
    processor: [Option<Duration>; 2],
    /// Millstream's Kinesis records that were acknowledged within the counted time, with their shards.
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
        let mut throughput = Throughput::begin(amount);
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
    // A value is missing if nothing arrived at that time.
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
    fn begin(amount: Amount) -> Self {
        Self {
            amount,
            begun: Instant::now(),
            records: 0,
            counted: 0,
            processor: [None; 2],
            places: Vec::new(),
        }
    }

    /// Returns whether rates are measured. Without limits it is only the CPU time, which a clock for each record would
    /// add to.
    fn is_timed(&self) -> bool {
        matches!(self.amount, Amount::Time(_))
    }

    fn counts(&self) -> bool {
        let since = self.begun.elapsed();
        since >= UNCOUNTED && since < UNCOUNTED + COUNTED
    }

    pub(crate) fn add(&mut self, records: u64) {
        self.records += records;
        if !self.is_timed() {
            return;
        }
        let since = self.begun.elapsed();
        let borders = [UNCOUNTED, UNCOUNTED + COUNTED];
        for (border, processor) in borders.into_iter().zip(&mut self.processor) {
            if since >= border {
                processor.get_or_insert_with(clock::processor);
            }
        }
        if self.counts() {
            self.counted += records;
        }
    }

    fn add_stored(&mut self, metadata: &RecordMetadata) {
        self.add(1);
        if metadata.position.sub() == 0 && self.is_timed() && self.counts() {
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
