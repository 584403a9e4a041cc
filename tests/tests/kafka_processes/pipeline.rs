//! A pipeline whose process is killed repeatedly.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use conformance::fleet::Fleet;
use conformance::history::{Event, id_of};
use conformance::unique_stream;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::{ClientConfig, Message, Offset, TopicPartitionList};

use crate::fixture::{Fixture, begun};
use crate::member_config::MemberConfig;
use crate::process::Process;

const KILLS: usize = 50;
/// The maximum average duration of a kill and the recovery. The next member with the name aborts the
/// open transaction; the broker by itself would do so after 10 s, and some seconds more.
const EACH: Duration = Duration::from_secs(6);
const PARTITIONS: usize = 6;
const SINK_PARTITIONS: usize = 3;
const KEYS: usize = 24;
const PAUSE: Duration = Duration::from_millis(10);

/// Each result is stored once, and each key's results are in order, whenever the process was killed.
pub(crate) async fn kills(fixture: Arc<Fixture>) {
    let fleet = fixture.fleet(PARTITIONS).await;
    let sink = unique_stream(&*fixture, SINK_PARTITIONS).await;
    let background_load = fleet.test_producer().await.send_in_background(KEYS, PAUSE);
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let since = Instant::now();
    for kill in 1..=KILLS {
        let mut member_config = member_config(&fixture, &fleet, &sink, &format!("chain-{kill}"));
        // Steps are short and many, so that many kills happen during one.
        member_config.checkpoint_records = Some(random.u64(1..40));
        member_config.takes = Duration::from_millis(random.u64(0..3));
        let enough = random.usize(1..60);
        let process = wait_for_handling(&fleet, &member_config, enough).await;
        // A moment that does not depend on the pipeline.
        tokio::time::sleep(Duration::from_micros(random.u64(0..200_000))).await;
        process.kill().await;
    }
    let took = since.elapsed();
    let member_config = member_config(&fixture, &fleet, &sink, "chain-last");
    let last = wait_for_handling(&fleet, &member_config, 1).await;
    background_load.stop().await;
    fleet.caught_up().await;
    last.close().await;
    let results = read_committed(&fixture, &sink);
    println!("{KILLS} kills in {took:?}, {} results", results.len());
    assert_each_once(&fleet, &results);
    assert!(took < EACH * KILLS as u32, "the pipeline stood still");
}

/// Starts a pipeline, and waits until it has begun with this many records.
async fn wait_for_handling(fleet: &Fleet, member_config: &MemberConfig, enough: usize) -> Process {
    let process = Process::start(member_config, &fleet.history);
    fleet
        .until("the pipeline continues", || {
            begun(fleet, &member_config.member) >= enough
        })
        .await;
    process
}

fn member_config(fixture: &Fixture, fleet: &Fleet, sink: &str, member: &str) -> MemberConfig {
    let mut member_config = fixture.member_config(fleet, member);
    // The next member with the name takes the place of the previous one at once.
    member_config.config.consumer.instance_id = Some("chain".to_owned());
    member_config.sink = Some(sink.to_owned());
    member_config
}

/// Returns all records that another client reads from the sink, by partition and in order.
fn read_committed(fixture: &Fixture, sink: &str) -> Vec<(Option<Vec<u8>>, u64)> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", fixture.config().brokers.join(","))
        .set("group.id", "none")
        .set("isolation.level", "read_committed")
        .set("enable.partition.eof", "true")
        .create()
        .expect("a consumer");
    let mut all = TopicPartitionList::new();
    for partition in 0..SINK_PARTITIONS {
        let partition = i32::try_from(partition).expect("few");
        let added = all.add_partition_offset(sink, partition, Offset::Beginning);
        added.expect("an offset");
    }
    consumer.assign(&all).expect("partitions of the sink");
    let mut results = Vec::new();
    let mut open = SINK_PARTITIONS;
    while open > 0 {
        let next = consumer.poll(Duration::from_secs(30));
        match next.expect("a record, or the end, within 30 s") {
            Ok(record) => {
                let id = record.payload().and_then(|payload| {
                    let payload = bytes::Bytes::copy_from_slice(payload);
                    id_of(&payload)
                });
                let id = id.expect("the payload of the source");
                results.push((record.key().map(<[u8]>::to_vec), id));
            }
            Err(KafkaError::PartitionEOF(_)) => open -= 1,
            Err(error) => panic!("the sink cannot be read: {error}"),
        }
    }
    results
}

fn assert_each_once(fleet: &Fleet, results: &[(Option<Vec<u8>>, u64)]) {
    let mut sent = BTreeSet::new();
    fleet.history.each(|event| {
        if let Event::Acknowledged { id, .. } = event {
            sent.insert(*id);
        }
    });
    let mut times: BTreeMap<u64, usize> = BTreeMap::new();
    let mut last: BTreeMap<&Option<Vec<u8>>, u64> = BTreeMap::new();
    let mut out_of_order = Vec::new();
    for (key, id) in results {
        *times.entry(*id).or_default() += 1;
        // Ids grow with the order of sending.
        if last.insert(key, *id).is_some_and(|before| before >= *id) {
            out_of_order.push(*id);
        }
    }
    let lost: Vec<_> = sent.iter().filter(|id| !times.contains_key(id)).collect();
    let twice: Vec<_> = times.iter().filter(|(_, times)| **times > 1).collect();
    assert!(
        lost.is_empty() && twice.is_empty() && out_of_order.is_empty(),
        "lost {lost:?}, more than once {twice:?}, out of order {out_of_order:?}"
    );
    assert_eq!(results.len(), sent.len(), "there are results of nothing");
}
