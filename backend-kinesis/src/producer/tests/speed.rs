//! Throughput and delays, in paused time.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use millstream_core::driver::Producer as _;
use millstream_core::{ErrorKind, Record};
use tokio::time::Instant;

use super::fake::{Fake, Limit, Script};
use super::{BOTH, Call, call, config, start};
use crate::config::{Aggregation, Producer as Config};
use crate::producer::Producer;

/// Sends `calls` of 100 records of `bytes`, at most 50 at once, of many keys.
async fn flood(fake: &Fake, config: Config, calls: u64, bytes: usize) -> Duration {
    let calls = (0..calls).map(|number| {
        let record = |n: u64| Record::new(vec![b'x'; bytes]).key(format!("k{}", n % 5_000));
        (number * 100..number * 100 + 100).map(record).collect()
    });
    send_all(fake, config, calls, 50).await
}

/// Sends these calls, as many at once.
async fn send_all(
    fake: &Fake,
    config: Config,
    calls: impl Iterator<Item = Vec<Record>>,
    at_once: usize,
) -> Duration {
    let producer = start(fake, config);
    let begun = Instant::now();
    let mut under_way = FuturesUnordered::<Call>::new();
    for records in calls {
        under_way.push(call(&producer, records).await);
        if under_way.len() >= at_once {
            let results = under_way.next().await.unwrap();
            assert!(results.iter().all(Result::is_ok));
        }
    }
    while let Some(results) = under_way.next().await {
        assert!(results.iter().all(Result::is_ok));
    }
    let took = begun.elapsed();
    producer.close().await.unwrap();
    took
}

#[tokio::test(start_paused = true)]
async fn the_limit_of_records_is_reached_and_hardly_met() {
    let fake = Fake::new(1, 1);
    fake.world().limit = Limit::Buckets;
    let took = flood(&fake, config(Aggregation::Off), 100, 10).await;
    let world = fake.world();
    let rate = 10_000.0 / took.as_secs_f64();
    assert!((950.0..1_050.0).contains(&rate), "{rate} a second");
    assert!(world.throttled < 100, "{} were throttled", world.throttled);
    assert!(
        world.requests.len() < 1_200,
        "{} requests",
        world.requests.len()
    );
}

#[tokio::test(start_paused = true)]
async fn the_limit_of_bytes_is_reached_and_hardly_met() {
    for aggregation in BOTH {
        let fake = Fake::new(1, 1);
        fake.world().limit = Limit::Buckets;
        let took = flood(&fake, config(aggregation), 100, 2_000).await;
        let world = fake.world();
        let stored: usize = world.stored[0].iter().map(|(_, entry)| entry.size()).sum();
        let rate = stored as f64 / took.as_secs_f64();
        assert!(
            (996_000.0..1_100_000.0).contains(&rate),
            "{aggregation:?}: {rate} a second"
        );
        let entries: usize = world.requests.iter().sum();
        assert!(
            world.throttled * 100 <= entries,
            "{} of {entries} were throttled",
            world.throttled
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_limit_by_the_second_is_nearly_reached() {
    let fake = Fake::new(1, 1);
    fake.world().limit = Limit::Seconds;
    let took = flood(&fake, config(Aggregation::Kpl), 12_000, 100).await;
    let world = fake.world();
    let stored: usize = world.stored[0].iter().map(|(_, entry)| entry.size()).sum();
    // A second has room for 20 aggregates, and not for 21.
    let rate = stored as f64 / took.as_secs_f64();
    let share = rate / 1_048_576.0;

    assert!((0.95..0.98).contains(&share), "{share} of the limit");
    let entries: usize = world.requests.iter().sum();
    let throttled = world.throttled;
    assert!(
        throttled * 100 < entries,
        "{throttled} of {entries} were throttled"
    );
}

/// Sends aggregates with this many bytes to each shard, always with a backlog. Returns the bytes that each stores in a
/// second, as a share of the limit.
async fn share_with_backlog(fake: &Fake, megabytes: usize) -> f64 {
    let shards = fake.world().shards.len();
    let record = Record::new(vec![b'x'; 2_000]);
    let calls = (0..5 * megabytes * shards).map(|_| vec![record.clone(); 100]);
    let took = send_all(fake, config(Aggregation::Kpl), calls, 6 * shards).await;
    let world = fake.world();
    let stored = world.stored.iter().flatten();
    let stored: usize = stored.map(|(_, entry)| entry.size()).sum();
    stored as f64 / took.as_secs_f64() / shards as f64 / 1_048_576.0
}

#[tokio::test(start_paused = true)]
async fn a_distant_region_takes_nothing_from_the_limit_of_bytes() {
    for millis in [100, 180] {
        for shards in [1, 4, 40] {
            let fake = Fake::new(1, shards);
            fake.world().late = Duration::from_millis(millis);
            let share = share_with_backlog(&fake, 4).await;
            assert!(
                (0.8..1.0).contains(&share),
                "{share} of the limit of each of {shards} shards at {millis} ms"
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_distant_region_that_counts_by_the_second_is_hardly_met() {
    // The delays of what was throttled are random.
    fastrand::seed(1);
    for millis in [100, 180] {
        let fake = Fake::new(1, 4);
        fake.world().limit = Limit::Seconds;
        fake.world().late = Duration::from_millis(millis);
        let share = share_with_backlog(&fake, 24).await;
        assert!(share > 0.8, "{share} of the limit at {millis} ms");
        let world = fake.world();
        let entries: usize = world.requests.iter().sum();
        let throttled = world.throttled;
        assert!(
            throttled * 20 < entries,
            "{throttled} of {entries} were throttled at {millis} ms"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn shards_do_not_wait_for_each_others_bytes() {
    let fake = Fake::new(1, 16);
    {
        let mut world = fake.world();
        world.late = Duration::from_millis(100);
        world.late_per_byte = Duration::from_nanos(500);
    }
    let share = share_with_backlog(&fake, 8).await;
    assert!(share > 0.8, "{share} of the limit at 2 MB/s a connection");
}

#[tokio::test(start_paused = true)]
async fn what_a_shard_never_takes_at_once_is_sent_in_parts() {
    let fake = Fake::new(1, 1);
    fake.world().limit = Limit::Buckets;
    fake.world().late = Duration::from_millis(400);
    // No aggregate for 400 ms fits the 200 kB of the bucket. All records are stored, faster than 51,200 bytes at a time.
    let share = share_with_backlog(&fake, 4).await;
    assert!(share > 0.2, "{share} of the limit");
}

/// Starts a producer whose aggregates have become large, since it had a backlog at 180 ms.
async fn start_with_large_aggregates(fake: &Fake, config: Config) -> Arc<Producer> {
    fake.world().late = Duration::from_millis(180);
    let producer = start(fake, config);
    let calls = FuturesUnordered::<Call>::new();
    for _ in 0..8 {
        let records = vec![Record::new(vec![b'x'; 2_000]); 100];
        calls.push(call(&producer, records).await);
    }
    calls.collect::<Vec<_>>().await;
    let world = fake.world();
    let largest = world.stored[0].iter().map(|(_, entry)| entry.size()).max();
    assert!(largest > Some(150_000), "the largest has {largest:?} bytes");
    producer
}

#[tokio::test(start_paused = true)]
async fn large_aggregates_make_no_record_wait() {
    let fake = Fake::new(1, 1);
    let mut config = config(Aggregation::Kpl);
    config.linger = Duration::from_millis(500);
    let producer = start_with_large_aggregates(&fake, config).await;
    for (records, least, most) in [(1, 680, 710), (30, 180, 210)] {
        let begun = Instant::now();
        let records = vec![Record::new(vec![b'x'; 2_000]); records];
        let count = records.len();
        producer.send(records).await;
        let took = begun.elapsed().as_millis();
        assert!((least..most).contains(&took), "{count} took {took} ms");
    }
}

#[tokio::test(start_paused = true)]
async fn requests_that_time_out_make_aggregates_small() {
    let fake = Fake::new(1, 1);
    let producer = start_with_large_aggregates(&fake, config(Aggregation::Kpl)).await;
    let before = fake.world().stored[0].len();
    let timeouts = (0..7).map(|_| Script::Refuse(ErrorKind::Timeout));
    fake.world().script.extend(timeouts);
    let records = vec![Record::new(vec![b'x'; 2_000]); 100];
    let results = producer.send(records).await;
    assert!(results.iter().all(Result::is_ok), "all are stored");
    let first = fake.world().stored[0][before].1.size();
    assert!(first <= 64 << 10, "the first aggregate has {first} bytes");
}

#[tokio::test(start_paused = true)]
async fn what_others_leave_is_found() {
    let fake = Fake::new(1, 1);
    fake.world().limit = Limit::Buckets;
    let short = flood(&fake, config(Aggregation::Off), 100, 10);
    let long = flood(&fake, config(Aggregation::Off), 600, 10);
    let (short, long) = tokio::join!(short, long);
    // When the other producer has ended, the rest takes little longer than it does alone.
    let alone = Duration::from_secs(60) - short / 2;
    assert!(
        long < (short + alone).mul_f64(1.35),
        "{long:?} after {short:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_share_of_the_limit_is_kept() {
    let fake = Fake::new(1, 1);
    let mut config = config(Aggregation::Off);
    config.rate = 0.5.try_into().unwrap();
    let took = flood(&fake, config, 50, 10).await;
    let rate = 5_000.0 / took.as_secs_f64();
    assert!((475.0..525.0).contains(&rate), "{rate} a second");
}

#[tokio::test(start_paused = true)]
async fn two_producers_share_what_there_is() {
    let fake = Fake::new(1, 1);
    fake.world().limit = Limit::Buckets;
    let one = flood(&fake, config(Aggregation::Off), 100, 10);
    let other = flood(&fake, config(Aggregation::Off), 100, 10);
    let (one, other) = tokio::join!(one, other);
    let rate = 20_000.0 / one.max(other).as_secs_f64();
    assert!(rate > 850.0, "{rate} a second");
    let throttled = fake.world().throttled;
    assert!(throttled < 2_000, "{throttled} were throttled");
}

#[tokio::test(start_paused = true)]
async fn a_record_waits_for_others_as_long_as_linger_says() {
    for aggregation in BOTH {
        let fake = Fake::new(1, 1);
        let mut config = config(aggregation);
        config.linger = Duration::from_millis(500);
        let producer = start(&fake, config);
        let begun = Instant::now();
        let calls = FuturesUnordered::<Call>::new();
        for number in 0..4 {
            calls.push(
                call(
                    &producer,
                    vec![super::record(&format!("k{number}"), number)],
                )
                .await,
            );
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        calls.collect::<Vec<_>>().await;
        let took = begun.elapsed();
        assert!((500..530).contains(&took.as_millis()), "{took:?}");
        assert_eq!(fake.world().requests.len(), 1, "{aggregation:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn enough_for_a_request_does_not_wait() {
    let fake = Fake::new(1, 16);
    let mut config = config(Aggregation::Off);
    config.linger = Duration::from_secs(60);
    let producer = start(&fake, config);
    let records = |call: u64| (0..100).map(move |n| super::record(&format!("k{call}-{n}"), n));
    let begun = Instant::now();
    let calls = FuturesUnordered::<Call>::new();
    for number in 0..5 {
        calls.push(call(&producer, records(number).collect()).await);
    }
    calls.collect::<Vec<_>>().await;
    assert!(begun.elapsed() < Duration::from_secs(1));
    assert_eq!(fake.world().requests, [500]);
}

#[tokio::test(start_paused = true)]
async fn a_full_aggregate_does_not_wait() {
    let fake = Fake::new(1, 1);
    let mut config = config(Aggregation::Kpl);
    config.linger = Duration::from_secs(60);
    config.aggregate_bytes = 10_000;
    let producer = start(&fake, config);
    let records = (0..11).map(|n| Record::new(vec![b'1'; 1_000]).key(format!("k{n}")));
    let mut calls = call(&producer, records.collect()).await;
    let late = tokio::time::timeout(Duration::from_secs(1), &mut calls).await;
    assert!(late.is_err(), "the rest of it waits for company");
    assert_eq!(fake.world().requests, [1]);
    calls.await;
}
