//! An exactly-once chain: each record of a full topic is read once, and its result is in another topic
//! once. Results and progress are stored in one transaction.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use millstream_core::{Delivery, Guarantee};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Message as _};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use rdkafka::{Offset, TopicPartitionList};

use crate::consume::all_is_committed;
use crate::environment::{Contents, KEYS, PARTITIONS, runtime};
use crate::job::{Chain, Flush, Measured, Target};
use crate::produce::LINGER_MS;
use crate::{Result, clock, ours, raw};

const RECORDS: usize = 1_500_000;
/// What the chain reads.
pub(crate) const CONTENTS: Contents = Contents {
    records: RECORDS,
    bytes: 512,
};

/// The SDK publishes at this interval by default (`checkpoint_interval`), or when so many records wait
/// (`checkpoint_records`). The loop commits likewise.
const INTERVAL: Duration = Duration::from_millis(100);
const MOST: usize = 10_000;

/// How often the SDK's counters are read for the end of the job.
const LOOK: Duration = Duration::from_millis(5);
/// How long a call to the broker may take, and how long records and results may not come.
const TIMEOUT: Duration = Duration::from_secs(30);

/// When the first record was handled, and when the last result was committed.
#[derive(Default)]
struct Times {
    first: OnceLock<Instant>,
    last: OnceLock<Instant>,
}

pub(crate) fn run(by: Chain, target: &Target) -> Result<Measured> {
    let output = target.output.clone().ok_or("a chain has an output")?;
    let times = Arc::new(Times::default());
    let before = clock::processor();
    let runtime = runtime()?;
    let (at, to, notes) = (target.clone(), output.clone(), times.clone());
    let done = match by {
        Chain::Ours => runtime.spawn(async move { ours(&at, &to, notes).await }),
        Chain::Loop(flush) => runtime.spawn_blocking(move || by_hand(flush, &at, &to, &notes)),
    };
    runtime.block_on(done)??;
    drop(runtime);
    let spent = clock::processor() - before;

    all_is_committed(target, RECORDS)?;
    let markers = all_is_published(target, &output)?;
    let (first, last) = (times.first.get().zip(times.last.get())).ok_or("no record was handled")?;
    let rate = RECORDS as f64 / (*last - *first).as_secs_f64();
    let each = spent.as_nanos() as f64 / RECORDS as f64;
    // A transaction leaves a marker in each partition that it wrote to, here in all.
    let transaction = RECORDS as f64 * f64::from(PARTITIONS) / markers as f64;
    Ok([
        ("rate".into(), rate),
        ("cpu".into(), each),
        ("transaction".into(), transaction),
    ]
    .into())
}

async fn ours(target: &Target, output: &str, times: Arc<Times>) -> Result<()> {
    let client = ours::connect(target).await?;
    let producer = client.producer(output).open().await?;
    let group = client
        .group(target.group.as_str())
        .stream(&*target.topic)
        .require(Guarantee::ExactlyOnce);
    let notes = times.clone();
    let transform = move |delivery: Delivery| {
        notes.first.get_or_init(Instant::now);
        async move { Ok::<_, Infallible>([delivery.to_record()]) }
    };
    let published = producer.clone();
    let ended = async move {
        while published.stats().stored < RECORDS as u64 {
            tokio::time::sleep(LOOK).await;
        }
        times.last.get_or_init(Instant::now);
    };
    group.transform_to(&producer, transform, ended).await?;
    Ok(producer.close().await?)
}

/// The loop is a thread of its own, for calls about transactions block.
fn by_hand(flush: Flush, target: &Target, output: &str, times: &Times) -> Result<()> {
    let mut config = raw::tuned_consumer(target);
    config.set("enable.auto.commit", "false");
    config.set("enable.auto.offset.store", "false");
    config.set("isolation.level", "read_committed");
    let consumer: BaseConsumer = config.create()?;
    consumer.subscribe(&[&target.topic])?;
    let mut config = raw::producer(target, LINGER_MS);
    config.set("transactional.id", format!("{}.loop", target.group));
    let producer: BaseProducer = config.create()?;
    producer.init_transactions(TIMEOUT)?;

    let mut published = 0;
    while published < RECORDS {
        let record = next(&consumer, Instant::now() + TIMEOUT)?.ok_or("no record comes")?;
        times.first.get_or_init(Instant::now);
        producer.begin_transaction()?;
        send_on(&producer, output, &record)?;
        published += 1;
        let due = Instant::now() + INTERVAL;
        for _ in 1..MOST {
            let Some(record) = next(&consumer, due)? else {
                break;
            };
            send_on(&producer, output, &record)?;
            published += 1;
        }
        let member = consumer.group_metadata().ok_or("it is no member")?;
        producer.send_offsets_to_transaction(&consumer.position()?, &member, TIMEOUT)?;
        if flush == Flush::ByPolling {
            wait_until_stored(&producer)?;
        }
        producer.commit_transaction(TIMEOUT)?;
    }
    times.last.get_or_init(Instant::now);
    Ok(())
}

fn next(consumer: &BaseConsumer, until: Instant) -> Result<Option<BorrowedMessage<'_>>> {
    loop {
        let left = until.saturating_duration_since(Instant::now());
        match consumer.poll(left) {
            Some(record) => return Ok(Some(record?)),
            None if left.is_zero() => return Ok(None),
            // A rebalance ends a poll early.
            None => {}
        }
    }
}

/// A failed delivery fails the commit, so none is looked at.
fn send_on(producer: &BaseProducer, output: &str, record: &BorrowedMessage<'_>) -> Result<()> {
    let mut result = BaseRecord::<[u8], [u8]>::to(output);
    result.key = record.key();
    result.payload = record.payload();
    result.timestamp = record.timestamp().to_millis();
    if let Some(headers) = record.headers() {
        result = result.headers(headers.detach());
    }
    producer.send(result).map_err(|(error, _)| error)?;
    Ok(())
}

fn wait_until_stored(producer: &BaseProducer) -> Result<()> {
    let deadline = Instant::now() + TIMEOUT;
    while let Err(error) = producer.flush(Duration::ZERO) {
        let waits = error.rdkafka_error_code() == Some(RDKafkaErrorCode::OperationTimedOut);
        if !waits || Instant::now() > deadline {
            return Err(error.into());
        }
        producer.poll(Duration::from_millis(1));
    }
    Ok(())
}

/// A figure counts only if readers of committed records see one result of each record. Returns how many
/// markers of transactions are among the results.
fn all_is_published(target: &Target, output: &str) -> Result<i64> {
    let mut config = raw::consumer(target);
    config.set("enable.auto.commit", "false");
    config.set("enable.partition.eof", "true");
    config.set("isolation.level", "read_committed");
    let reader: BaseConsumer = config.create()?;
    let mut partitions = TopicPartitionList::new();
    for partition in 0..PARTITIONS {
        partitions.add_partition_offset(output, partition, Offset::Beginning)?;
    }
    reader.assign(&partitions)?;

    let mut count = 0;
    let mut of_keys = BTreeMap::<Vec<u8>, usize>::new();
    let mut ended = BTreeSet::new();
    let deadline = Instant::now() + TIMEOUT;
    // The markers of the last transaction may come after the response to its commit.
    while count < RECORDS || ended.len() < PARTITIONS as usize {
        if Instant::now() > deadline {
            return Err(format!("{count} results of {RECORDS} records can be read").into());
        }
        match reader.poll(Duration::from_millis(100)) {
            None => {}
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                ended.insert(partition);
            }
            Some(Err(error)) => return Err(error.into()),
            Some(Ok(result)) => {
                ended.remove(&result.partition());
                count += 1;
                let key = result.key().ok_or("a result without its key")?;
                match of_keys.get_mut(key) {
                    Some(results) => *results += 1,
                    None => _ = of_keys.insert(key.to_vec(), 1),
                }
            }
        }
    }
    let each = RECORDS / KEYS;
    if of_keys.len() != KEYS || of_keys.values().any(|results| *results != each) {
        return Err(format!("{count} results of {RECORDS} records, not {each} of each key").into());
    }
    let mut stored = 0;
    for partition in 0..PARTITIONS {
        stored += reader.fetch_watermarks(output, partition, TIMEOUT)?.1;
    }
    Ok(stored - RECORDS as i64)
}
