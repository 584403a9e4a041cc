//! Random failures at random times: no record is lost or stored twice, and every key keeps its order.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::fake::{Fake, LIMITS};
use crate::driver::{Pipelining, StreamLimits};
use crate::{ErrorKind, Record};

/// One record: its key, how its attempts fail, and how long to wait before it is sent.
type Step = (Option<u8>, Vec<ErrorKind>, u64);

fn step() -> impl Strategy<Value = Step> {
    use ErrorKind::{Denied, Throttled, Timeout, Unavailable};
    let key = prop_oneof![1 => Just(None), 6 => (0..5u8).prop_map(Some)];
    let failures = prop_oneof![
        4 => Just(Vec::new()),
        1 => vec(select(vec![Throttled, Unavailable, Timeout, Denied]), 1..4),
    ];
    (key, failures, prop_oneof![5 => Just(0), 1 => 1..40u64])
}

proptest! {
    #[test]
    fn keys_keep_their_order_and_nothing_is_lost(
        steps in vec(step(), 1..60),
        calls in 1..4usize,
        batch_records in 1..8usize,
        latency in 0..20u64,
        room in 1..30usize,
    ) {
        let limits = StreamLimits { batch_records, ..LIMITS };
        let latency = Duration::from_millis(latency);
        let fake = Fake::with(Pipelining::ByKey { calls }, limits, latency);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(run(&fake, steps, room));
    }

    /// Whether calls are held up or not, and whenever that changes.
    #[test]
    fn keys_keep_their_order_in_divided_batches(
        steps in vec((step(), 0..400u64), 1..60),
        latency in prop_oneof![0..20u64, 400..800u64],
        room in 1..30usize,
    ) {
        let fake = Fake::with_routes(Duration::from_millis(latency));
        let steps = steps.into_iter().map(|((key, _, short), long)| (key, Vec::new(), short * long));
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(run(&fake, steps.collect(), room));
    }
}

async fn run(fake: &Fake, steps: Vec<Step>, room: usize) {
    let builder = fake.builder().in_flight_records(room);
    let producer = builder.open().await.unwrap();
    let mut receipts = Vec::new();
    for (number, (key, failures, wait)) in steps.iter().enumerate() {
        tokio::time::sleep(Duration::from_millis(*wait)).await;
        let name = number.to_string();
        fake.fail(&name, failures.iter().copied());
        let mut record = Record::new(name);
        record.key = key.map(|key| vec![b'k', key].into());
        receipts.push((number, *key, producer.send(record).await.unwrap()));
    }
    let mut stored: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for (number, key, receipt) in receipts {
        match receipt.await {
            Ok(metadata) => stored
                .entry(key)
                .or_default()
                .push((number, metadata.position)),
            Err(error) => {
                let failures = &steps[number].1;
                let refused = failures.iter().position(|kind| *kind == ErrorKind::Denied);
                let before = &failures[..refused.expect("only a refusal is final")];
                let kind = match before.contains(&ErrorKind::Timeout) {
                    true => ErrorKind::Timeout,
                    false => ErrorKind::Denied,
                };
                assert_eq!(error.kind(), kind);
            }
        }
    }
    producer.close().await.unwrap();

    for (key, records) in &stored {
        let in_order = records.is_sorted_by(|(_, one), (_, two)| one < two);
        assert!(key.is_none() || in_order, "{key:?}: {records:?}");
    }
    let completed: usize = stored.values().map(Vec::len).sum();
    assert_eq!(
        fake.stored().len(),
        completed,
        "stored is what was completed so"
    );
    let stats = producer.stats();
    assert_eq!(stats.stored + stats.failed, steps.len() as u64);
    assert_eq!((stats.in_flight, stats.in_flight_bytes), (0, 0));
}
