//! The order of keys under all faults at once.

use std::time::Duration;

use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use millstream_core::Record;
use millstream_core::driver::Producer as _;

use super::fake::{Fake, Faults};
use super::reader::{Reader, assert_in_order, assert_placed, read};
use super::{BOTH, HASH_KEY, call, config, start};
use crate::config::Aggregation;
use crate::stream::HashKey;

struct Plan {
    seed: u64,
    faults: Faults,
    reshards: bool,
    lags: bool,
}

/// Runs random calls of few keys, many at once, some keys with explicit hash keys; then checks the records that readers
/// see.
async fn run(aggregation: Aggregation, plan: Plan) {
    let what = format!("{aggregation:?}, seed {}", plan.seed);
    let fake = Fake::new(plan.seed, 3);
    fake.world().faults = plan.faults;
    let mut random = fastrand::Rng::with_seed(plan.seed ^ 0xabcd);
    let mut config = config(aggregation);
    config.timeout = Duration::from_secs(3_600);
    config.linger = Duration::from_millis(random.u64(0..10));
    config.requests = random.usize(1..8);
    config.aggregate_bytes = random.usize(1_024..4_096);
    // Aggregates with waiting records grow with the rate: at a low one, they stay as small as the settings say.
    config.rate = [0.2, 1.0][random.usize(0..2)].try_into().unwrap();
    let most = config.requests;
    let producer = start(&fake, config);
    let mut under_way = FuturesUnordered::new();
    let mut returned = Vec::new();
    let mut number = 0;
    for _ in 0..60 {
        let first = number + 1;
        let records = (0..random.usize(1..40)).map(|_| {
            number += 1;
            // Wide enough that aggregates are sometimes full.
            let record = Record::new(format!("{number:>w$}", w = random.usize(1..200)));
            let record = match random.u32(0..10) {
                0 => record.header("name", "value"),
                _ => record,
            };
            let (record, hash) = match random.u32(0..20) {
                0 => (record, random.bool().then(|| random.u128(..))),
                key => {
                    let hash = HashKey::of(format!("of {key}"));
                    let record = record.key(format!("key-{key}"));
                    (record, (key % 3 == 0).then_some(hash.0))
                }
            };
            match hash {
                Some(hash) => record.header(HASH_KEY, hash.to_string()),
                None => record,
            }
        });
        let call = call(&producer, records.collect()).await;
        under_way.push(call.map(move |results| (first, results)));
        let pause = Duration::from_millis(random.u64(0..30));
        let slept = tokio::time::sleep(pause);
        tokio::pin!(slept);
        loop {
            tokio::select! {
                () = &mut slept => break,
                Some(results) = under_way.next() => returned.push(results),
            }
        }
        if plan.reshards && random.u32(0..6) == 0 {
            let mut world = fake.world();
            if plan.lags && random.bool() {
                world.old_list = Some(world.shards.clone());
            }
            match random.bool() {
                true => world.split(),
                false => world.merge(),
            }
        }
    }
    returned.extend(under_way.collect::<Vec<_>>().await);
    producer.close().await.unwrap();

    let world = fake.world();
    assert!(world.most_under_way <= most, "{what}");
    let (ours, kcl) = (read(&world, Reader::Ours), read(&world, Reader::Kcl));
    assert_in_order(&ours, &what);
    assert_in_order(&kcl, &what);
    let mut stored = 0;
    for (first, results) in &returned {
        for (result, number) in results.iter().zip(*first..) {
            let placed = result.as_ref().unwrap_or_else(|e| panic!("{what}: {e:?}"));
            stored += 1;
            assert_placed(&kcl, number, placed, &what);
            assert_placed(&ours, number, placed, &what);
        }
    }
    assert_eq!(stored, number, "{what}");
    for number in 1..=number {
        assert!(
            kcl.iter().any(|seen| seen.number == number),
            "{what}: {number} is missing"
        );
    }
}

fn seeds(plan: impl Fn(u64) -> Plan) {
    for seed in 0..40 {
        for aggregation in BOTH {
            fastrand::seed(seed);
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_time()
                .start_paused(true)
                .build();
            runtime.unwrap().block_on(run(aggregation, plan(seed)));
        }
    }
}

const HARD: Faults = Faults {
    lost_before: 10,
    lost_after: 10,
    throttled: 5,
    internal: 5,
    longest: Duration::from_millis(40),
};

#[test]
fn without_faults() {
    seeds(|seed| Plan {
        seed,
        faults: Faults {
            longest: Duration::from_millis(20),
            ..Faults::default()
        },
        reshards: false,
        lags: false,
    });
}

#[test]
fn with_entries_and_requests_that_fail() {
    seeds(|seed| Plan {
        seed,
        faults: HARD,
        reshards: false,
        lags: false,
    });
}

#[test]
fn while_shards_split_and_merge() {
    seeds(|seed| Plan {
        seed,
        faults: Faults {
            longest: Duration::from_millis(20),
            ..Faults::default()
        },
        reshards: true,
        lags: false,
    });
}

#[test]
fn with_all_of_it_and_lists_of_old() {
    seeds(|seed| Plan {
        seed,
        faults: HARD,
        reshards: true,
        lags: true,
    });
}

#[tokio::test(start_paused = true)]
async fn results_name_where_the_records_are_stored() {
    for aggregation in BOTH {
        let fake = Fake::new(1, 3);
        let producer = start(&fake, config(aggregation));
        let records =
            |call| (0..50).map(move |n| super::record(&format!("k{}", n % 7), call * 50 + n));
        for number in 0..4 {
            let results = producer.send(records(number).collect()).await;
            let seen = read(&fake.world(), Reader::Kcl);
            for (result, number) in results.iter().zip(number * 50..) {
                assert_placed(&seen, number, result.as_ref().unwrap(), "one of 200");
            }
        }
    }
}
