//! The effects of single failures.

use std::time::Duration;

use futures_util::FutureExt;
use millstream_core::driver::Producer as _;
use millstream_core::{ErrorKind, Record};
use tokio::time::Instant;

use super::fake::{Fake, Script};
use super::reader::{Reader, assert_in_order, read};
use super::{BOTH, call, config, kinds, record, start, tick};
use crate::config::{Aggregation, HeaderPolicy};
use crate::stream::HashKey;

const LONG: Duration = Duration::from_secs(20);

#[tokio::test(start_paused = true)]
async fn a_failing_key_holds_back_itself_alone() {
    let fake = Fake::new(1, 1);
    let producer = start(&fake, config(Aggregation::Off));
    fake.world()
        .keys
        .insert(b"bad".into(), ErrorKind::Unavailable);
    let bad = call(&producer, vec![record("bad", 1)]).await;
    tokio::time::sleep(LONG).await;
    let after = call(&producer, vec![record("bad", 2)]).await;
    let good = producer
        .send((3..50).map(|n| record("good", n)).collect())
        .await;
    assert!(good.iter().all(Result::is_ok));
    fake.world().keys.clear();
    assert_eq!(kinds(&bad.await), [None]);
    assert_eq!(kinds(&after.await), [None]);
    assert_in_order(&read(&fake.world(), Reader::Ours), "bad and good");
}

#[tokio::test(start_paused = true)]
async fn a_slow_request_holds_back_its_keys_alone() {
    let fake = Fake::new(1, 2);
    let [one, other] = keys_of_two_shards();
    for aggregation in BOTH {
        let producer = start(&fake, config(aggregation));
        fake.world().script.push_back(Script::Slow(LONG));
        let slow = call(&producer, vec![record(&one, 1)]).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        let mut after = call(&producer, vec![record(&one, 2)]).await;
        let begun = Instant::now();
        assert_eq!(kinds(&producer.send(vec![record(&other, 3)]).await), [None]);
        assert!(begun.elapsed() < Duration::from_secs(1), "{aggregation:?}");
        assert!(after.as_mut().now_or_never().is_none());
        assert_eq!(kinds(&slow.await), [None]);
        assert_eq!(kinds(&after.await), [None]);
    }
}

#[tokio::test(start_paused = true)]
async fn records_stored_without_a_response_are_stored_twice_and_in_order() {
    for aggregation in BOTH {
        let fake = Fake::new(1, 1);
        let producer = start(&fake, config(aggregation));
        fake.world().script.push_back(Script::StoreAndTimeOut);
        let first = call(&producer, vec![record("k", 1)]).await;
        let second = call(&producer, vec![record("k", 2)]).await;
        assert_eq!(kinds(&first.await), [None]);
        assert_eq!(kinds(&second.await), [None]);
        let seen = read(&fake.world(), Reader::Ours);
        let ones = seen.iter().filter(|seen| seen.number == 1).count();
        assert_eq!(ones, 2, "{aggregation:?}");
        assert_in_order(&seen, "one and two");
    }
}

#[tokio::test(start_paused = true)]
async fn time_is_over_at_the_timeout_and_later_records_go_on() {
    for aggregation in BOTH {
        let fake = Fake::new(1, 1);
        let mut config = config(aggregation);
        config.timeout = Duration::from_secs(5);
        let producer = start(&fake, config);
        let outage = (0..1_000).map(|_| Script::Refuse(ErrorKind::Unavailable));
        fake.world().script.extend(outage);
        let begun = Instant::now();
        let first = call(&producer, vec![record("k", 1)]).await;
        tokio::time::sleep(Duration::from_secs(3)).await;
        let later = call(&producer, vec![record("k", 2)]).await;
        assert_eq!(kinds(&first.await), [Some(ErrorKind::Timeout)]);
        assert!(
            begun.elapsed() < Duration::from_millis(5_100),
            "{:?}",
            begun.elapsed()
        );
        fake.world().script.clear();
        assert_eq!(kinds(&later.await), [None], "{aggregation:?}");
        let seen = read(&fake.world(), Reader::Ours);
        assert!(seen.iter().all(|seen| seen.number == 2));
    }
}

#[tokio::test(start_paused = true)]
async fn the_timeout_ends_a_record_whose_request_has_no_response() {
    for aggregation in BOTH {
        let fake = Fake::new(1, 1);
        let mut config = config(aggregation);
        config.timeout = Duration::from_secs(1);
        let producer = start(&fake, config);
        fake.world()
            .script
            .push_back(Script::Slow(Duration::from_millis(1_500)));
        let begun = Instant::now();
        let slow = call(&producer, vec![record("k", 1)]).await;
        tokio::time::sleep(Duration::from_millis(800)).await;
        let later = call(&producer, vec![record("k", 2)]).await;
        assert_eq!(kinds(&slow.await), [Some(ErrorKind::Timeout)]);
        assert!(begun.elapsed() < Duration::from_millis(1_100));
        assert_eq!(kinds(&later.await), [None], "{aggregation:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_final_error_is_returned_at_once_and_fails_later_records_of_its_key_in_the_call() {
    for kind in [ErrorKind::Denied, ErrorKind::Invalid, ErrorKind::NotFound] {
        let fake = Fake::new(1, 1);
        let producer = start(&fake, config(Aggregation::Off));
        fake.world().keys.insert(b"bad".into(), kind);
        let keys = ["good", "bad", "good", "bad", "other"];
        let records = keys.iter().zip(1..).map(|(key, n)| record(key, n));
        let results = producer.send(records.collect()).await;
        let behind = Some(ErrorKind::Unavailable);
        assert_eq!(kinds(&results), [None, Some(kind), None, behind, None]);
        fake.world().keys.clear();
        assert_eq!(kinds(&producer.send(vec![record("bad", 9)]).await), [None]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_rejected_request_fails_only_the_entry_at_fault() {
    for aggregation in BOTH {
        let fake = Fake::new(1, 3);
        fake.world().too_large = 2_000;
        let mut config = config(aggregation);
        config.aggregate_bytes = 1_500;
        let producer = start(&fake, config);
        let record = |n: u64| {
            let width = if n == 7 { 3_000 } else { 100 };
            Record::new(format!("{n:>width$}")).key(format!("k{}", n % 8))
        };
        let results = producer.send((0..24).map(record).collect()).await;
        for (kind, number) in kinds(&results).into_iter().zip(0..) {
            let expected = match number {
                7 => Some(ErrorKind::Invalid),
                15 | 23 => Some(ErrorKind::Unavailable),
                _ => None,
            };
            assert_eq!(kind, expected, "{aggregation:?}, {number}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn records_that_cannot_be_sent_are_rejected_by_kind() {
    let fake = Fake::new(1, 1);
    let producer = start(&fake, config(Aggregation::Off));
    let long = "x".repeat((1 << 20) - 2);
    let records = vec![
        Record::new(long.clone()).key("kk"),
        Record::new(long.clone()).key("h").header("", ""),
        record("h", 1),
        Record::new(long).header("n", "v"),
        record("millstream:-:7", 2),
        Record::new("3").key("r").header("\0n", "v"),
        record("k", 4),
    ];
    let results = producer.send(records.clone()).await;
    let expected = [
        None,
        Some(ErrorKind::TooLarge),
        Some(ErrorKind::Unavailable),
        Some(ErrorKind::TooLarge),
        Some(ErrorKind::Invalid),
        Some(ErrorKind::Invalid),
        None,
    ];
    assert_eq!(kinds(&results), expected);
    for (result, record) in results.into_iter().zip(records) {
        if let Err(rejected) = result {
            assert_eq!(*rejected.record, record);
            assert_eq!(rejected.error.stream(), Some("s"), "{:?}", rejected.error);
        }
    }
    let mut config = config(Aggregation::Off);
    config.headers = HeaderPolicy::Refuse;
    let producer = start(&fake, config);
    let results = producer
        .send(vec![record("k", 1).header("a", "b"), record("l", 2)])
        .await;
    assert_eq!(kinds(&results), [Some(ErrorKind::Invalid), None]);
}

#[tokio::test(start_paused = true)]
async fn a_dropped_call_leaves_nothing_behind() {
    for aggregation in BOTH {
        let fake = Fake::new(1, 1);
        let producer = start(&fake, config(aggregation));
        fake.world().script.push_back(Script::Slow(LONG));
        let first = call(&producer, vec![record("k", 1)]).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
        let dropped = call(&producer, vec![record("k", 2)]).await;
        drop((first, dropped));
        assert_eq!(kinds(&producer.send(vec![record("k", 3)]).await), [None]);
        let seen = read(&fake.world(), Reader::Ours);
        assert!(seen.iter().all(|seen| seen.number != 2), "{aggregation:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_task_ends_with_its_producer() {
    for closes in [true, false] {
        let fake = Fake::new(1, 1);
        let producer = start(&fake, config(Aggregation::Off));
        fake.world()
            .script
            .push_back(Script::Slow(Duration::from_secs(3_600)));
        drop(call(&producer, vec![record("k", 1)]).await);
        tokio::time::sleep(Duration::from_millis(100)).await;
        if closes {
            producer.close().await.unwrap();
        }
        drop(producer);
        let tasks = tokio::runtime::Handle::current();
        while tasks.metrics().num_alive_tasks() > 0 {
            tick().await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_misrouted_aggregate_is_sent_again_to_the_shards_of_its_records() {
    let fake = Fake::new(1, 1);
    let producer = start(&fake, config(Aggregation::Kpl));
    let records = || {
        (0..30)
            .map(|n| record(&format!("k{}", n % 10), n))
            .collect()
    };
    fake.world().split();
    let begun = Instant::now();
    let results = producer.send(records()).await;
    assert!(results.iter().all(Result::is_ok));
    assert!(
        begun.elapsed() < Duration::from_secs(2),
        "{:?}",
        begun.elapsed()
    );
    let world = fake.world();
    let seen = read(&world, Reader::Kcl);
    for number in 0..30 {
        assert!(seen.iter().any(|seen| seen.number == number), "{number}");
    }
    assert_eq!(world.listings, 1);
    assert_eq!(
        world.requests.len(),
        2,
        "one astray, and one for both halves"
    );
}

#[tokio::test(start_paused = true)]
async fn an_aggregate_in_a_merged_shard_is_sent_once() {
    let fake = Fake::new(1, 2);
    let producer = start(&fake, config(Aggregation::Kpl));
    fake.world().merge();
    let records = (0..30)
        .map(|n| record(&format!("k{}", n % 10), n))
        .collect();
    let results = producer.send(records).await;
    assert!(results.iter().all(Result::is_ok));
    let seen = read(&fake.world(), Reader::Kcl);
    assert_eq!(seen.len(), 30);
    for result in results {
        assert_eq!(result.unwrap().partition.id(), "shardId-000000000002");
    }
}

#[tokio::test(start_paused = true)]
async fn records_without_a_key_go_to_all_shards() {
    for aggregation in BOTH {
        let fake = Fake::new(1, 4);
        let producer = start(&fake, config(aggregation));
        let records = (0..40).map(|n: u64| Record::new(n.to_string())).collect();
        let results = producer.send(records).await;
        let mut count = [0; 4];
        for result in results {
            let id = result.unwrap().partition.id().to_owned();
            count[id.trim_start_matches("shardId-").parse::<usize>().unwrap()] += 1;
        }
        assert_eq!(count, [10; 4], "{aggregation:?}");
    }
}

fn keys_of_two_shards() -> [String; 2] {
    let key = |is_low| {
        let mut keys = (0..).map(|n| format!("k{n}"));
        let is_right = |key: &String| (HashKey::of(key.as_bytes()).0 < u128::MAX / 2) == is_low;
        keys.find(is_right).unwrap()
    };
    [key(true), key(false)]
}
