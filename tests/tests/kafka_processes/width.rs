//! A stream with many partitions.

use std::sync::Arc;
use std::time::Instant;

use crate::fixture::{Fixture, owners};

/// A group of two reads all of a thousand partitions.
pub(crate) async fn thousand(fixture: Arc<Fixture>) {
    const PARTITIONS: usize = 1_000;
    let fleet = fixture.fleet(PARTITIONS).await;
    // Enough keys for each partition to have some: the chance that one has none is one in 22,000.
    let mut test_producer = fleet.test_producer().await;
    test_producer.send(10 * PARTITIONS, 1).await;
    let since = Instant::now();
    let members = ["a", "b"].map(|name| fixture.start(&fleet, name));
    fleet.settled().await;
    let took = since.elapsed();
    test_producer.send(10 * PARTITIONS, 1).await;
    test_producer.close().await;
    let summary = fleet.check().await;
    println!("a thousand partitions: all read after {took:?}: {summary:?}");
    let owners = owners(&fleet);
    for member in &members {
        let own = owners.iter().filter(|last| last.by.member == member.member);
        let own = own.count();
        assert!(own >= PARTITIONS / 3, "{} has {own}", member.member);
    }
    for member in members {
        member.close().await;
    }
}
