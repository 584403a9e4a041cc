//! The partitions of records without a key, and the routes of those with one.

use std::collections::BTreeSet;
use std::sync::Arc;

use millstream_core::Record;
use tokio::time::{Instant, sleep};

use super::driver_fleet::DriverFleet;
use crate::Harness;
use crate::cases::cases;

cases! {
    c01_records_without_key_are_spread,
    c01_records_of_one_key_have_one_route,
}

const PARTITIONS: usize = 3;

async fn c01_records_without_key_are_spread(harness: Arc<dyn Harness>) {
    let fleet = DriverFleet::new(harness, PARTITIONS).await;
    let producer = fleet.client.producer(fleet.stream.as_str()).open().await;
    let producer = producer.expect("the producer opens");
    let mut used = BTreeSet::new();
    let deadline = Instant::now() + fleet.timing.timeout;
    // One at a time: a driver may use one partition until a batch is full.
    while used.len() < PARTITIONS {
        assert!(
            Instant::now() < deadline,
            "records without a key go to {used:?} only, of {PARTITIONS} partitions"
        );
        let receipt = producer.send(Record::new("payload")).await;
        let place = receipt.expect("there is room").await;
        used.insert(place.expect("the record is stored").partition);
        sleep(fleet.timing.poll_interval).await;
    }
    producer.close().await.expect("the producer closes");
}

async fn c01_records_of_one_key_have_one_route(harness: Arc<dyn Harness>) {
    let fleet = DriverFleet::new(harness, PARTITIONS).await;
    let producer = fleet
        .client
        .driver()
        .open_producer(&fleet.stream, &[])
        .await;
    let producer = producer.expect("the producer opens");
    for key in ["a", "b", "c", "d"] {
        let record = |payload: usize| Record::new(payload.to_string()).key(key);
        let routes = (0..5).map(|payload| producer.route(&record(payload)));
        let routes: BTreeSet<Option<u64>> = routes.collect();
        assert_eq!(
            routes.len(),
            1,
            "the records of key {key:?} have the routes {routes:?}"
        );
    }
    producer.close().await.expect("the producer closes");
}
