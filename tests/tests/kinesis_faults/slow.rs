//! Networks that need longer for a request than it may make no progress.

use std::time::Duration;

use conformance::Harness;
use conformance::fleet::TestProducer;
use tokio::time::Instant;

use crate::fixture::Fixture;

/// Records that fill two responses of 10 MiB, of almost 1 MiB each.
const LARGE: (usize, usize) = (14, 900_000);

/// A response of this rate takes 12 s.
const DOWN: u32 = 800_000;

/// Records that fill three requests of 5 MiB.
const SMALL: (usize, usize) = (600, 20_000);

/// A request at this rate takes 7 s alone, and they share it.
const UP: u32 = 1_000_000;

pub(crate) async fn responses_arrive(fixture: Fixture) {
    let (count, size) = LARGE;
    let mut producer = fixture.fleet.test_producer().await;
    for _ in 0..count {
        producer.send_padded(Some("key"), size).await;
    }
    producer.close().await;
    let network = fixture.harness.proxy().expect("all clients use a proxy");
    network.port("a");
    network.of("a").limit_rate(DOWN);
    let begun = Instant::now();
    let a = fixture.member("a").await;
    fixture.fleet.settled().await;
    let (took, least) = (
        begun.elapsed(),
        (count * size) as f64 * 4.0 / 3.0 / f64::from(DOWN),
    );
    assert!(
        took >= Duration::from_secs_f64(least),
        "the network was not slow: {took:?}"
    );
    assert!(
        took <= Duration::from_secs_f64(2.0 * least),
        "{took:?}, {least} s would do"
    );
    network.of("a").heal();
    fixture.fleet.check().await;
    a.close().await;
}

pub(crate) async fn requests_arrive(fixture: Fixture) {
    let (count, size) = SMALL;
    let client = fixture.harness.named_client("slow").await;
    let network = fixture.harness.proxy().expect("all clients use a proxy");
    let (stream, history) = (&fixture.fleet.stream, &fixture.fleet.history);
    network.of("slow").limit_rate(UP);
    let mut producer = TestProducer::open(&client, stream, history, 1).await;
    let begun = Instant::now();
    for number in 0..count {
        let key = format!("key-{}", number % 50);
        producer.send_padded(Some(&key), size).await;
    }
    assert_eq!(producer.receipts().await.len(), count);
    let (took, least) = (
        begun.elapsed(),
        (count * size) as f64 * 4.0 / 3.0 / f64::from(UP),
    );
    assert!(
        took >= Duration::from_secs_f64(least),
        "the network was not slow: {took:?}"
    );
    assert!(
        took <= Duration::from_secs_f64(1.5 * least),
        "{took:?}, {least} s would do"
    );
    network.of("slow").heal();
    producer.close().await;
    let a = fixture.member("a").await;
    let summary = fixture.fleet.check().await;
    assert_eq!(summary.duplicates, 0, "no request was sent twice");
    a.close().await;
}
