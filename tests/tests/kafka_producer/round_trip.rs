//! Records are returned byte for byte, from the partition that Java's partitioner chooses.

use std::time::{Duration, UNIX_EPOCH};

use millstream_core::{Headers, Record};

use crate::raw_client::{create, open, read, send_all, send_and_wait, shared_broker};

/// Returns random bytes of all values, and of all lengths from 0.
fn random_bytes(random: &mut fastrand::Rng, longest: usize) -> Vec<u8> {
    let length = random.usize(..=longest);
    std::iter::repeat_with(|| random.u8(..))
        .take(length)
        .collect()
}

fn any_record(random: &mut fastrand::Rng) -> Record {
    let mut record = match random.u8(..8) {
        0 => Record::tombstone(random_bytes(random, 3)),
        _ => Record::new(random_bytes(random, 40)),
    };
    if random.bool() {
        record = record.key(random_bytes(random, 3));
    }
    if random.bool() {
        let millis = random.u64(1_600_000_000_000..1_700_000_000_000);
        record = record.timestamp(UNIX_EPOCH + Duration::from_millis(millis));
    }
    let names = ["a", "a", "b", "traceparent", "\u{fc}\u{1f697}"];
    let mut headers = Headers::new();
    for _ in 0..random.usize(..5) {
        let name = names[random.usize(..names.len())];
        match random.u8(..4) {
            0 => headers.push_null(name),
            _ => headers.push(name, random_bytes(random, 5)),
        }
    }
    record.headers = headers;
    record
}

#[tokio::test]
async fn every_part_of_a_record_is_kept() {
    const RECORDS: usize = 5_000;
    let bootstrap = shared_broker().await;
    create(&bootstrap, "kept", 3, &[]).await;
    let producer = open(&bootstrap, "kept").await;
    let seed = fastrand::u64(..);
    let mut random = fastrand::Rng::with_seed(seed);
    let records: Vec<_> = (0..RECORDS).map(|_| any_record(&mut random)).collect();
    let begun = std::time::SystemTime::now() - Duration::from_secs(1);

    let metadata = send_all(&producer, records.clone()).await.await;
    producer.close().await.unwrap();

    let stored = read(&bootstrap, "kept").await;
    assert_eq!(stored.values().map(Vec::len).sum::<usize>(), RECORDS);
    for (record, metadata) in records.iter().zip(metadata) {
        let metadata = metadata.unwrap();
        let partition: i32 = metadata.partition.id().parse().unwrap();
        let offset = metadata.position.offset().unwrap() as usize;
        let seen = &stored[&partition][offset];
        assert_eq!(seen.offset, offset as i64);
        assert_eq!(seen.key.as_deref(), record.key.as_deref(), "seed {seed}");
        assert_eq!(
            seen.payload.as_deref(),
            record.payload.as_deref(),
            "seed {seed}"
        );
        let headers: Vec<_> = record.headers.iter().collect();
        let headers: Vec<_> = headers
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value.map(|value| value.to_vec())))
            .collect();
        assert_eq!(seen.headers, headers, "seed {seed}");
        let at = UNIX_EPOCH + Duration::from_millis(seen.timestamp as u64);
        match record.timestamp {
            Some(stamp) => assert_eq!(at, stamp, "seed {seed}"),
            None => assert!(begun < at && at < begun + Duration::from_secs(120)),
        }
    }
}

/// The hashes are the known results of Kafka's own tests (`UtilsTest.testMurmur2`), and of Java's
/// function for the empty key.
#[tokio::test]
async fn a_key_goes_where_javas_producer_sends_it() {
    const PARTITIONS: i32 = 97;
    let hashes: [(&str, i32); 7] = [
        ("21", -973_932_308),
        ("foobar", -790_332_482),
        ("a-little-bit-long-string", -985_981_536),
        ("a-little-bit-longer-string", -1_486_304_829),
        (
            "lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8",
            -58_897_971,
        ),
        ("abc", 479_470_107),
        ("", 275_646_681),
    ];
    let bootstrap = shared_broker().await;
    create(&bootstrap, "hashed", PARTITIONS, &[]).await;
    let producer = open(&bootstrap, "hashed").await;
    for (key, hash) in hashes {
        let metadata = send_and_wait(&producer, Record::new("").key(key))
            .await
            .unwrap();
        let expected = (hash & i32::MAX) % PARTITIONS;
        assert_eq!(metadata.partition.id(), expected.to_string(), "{key:?}");
    }
}

/// Without a key there is no order, and the load is distributed.
#[tokio::test]
async fn records_without_a_key_are_spread() {
    let bootstrap = shared_broker().await;
    create(&bootstrap, "spread", 4, &[]).await;
    let producer = open(&bootstrap, "spread").await;
    let mut met = std::collections::BTreeSet::new();
    // Each of them is sent alone, so each chooses again: the chance of missing one in 200 is below 1e-24.
    for _ in 0..200 {
        let metadata = send_and_wait(&producer, Record::new("x")).await.unwrap();
        met.insert(metadata.partition.id().to_owned());
        if met.len() == 4 {
            return;
        }
    }
    panic!("only {met:?} were met");
}
