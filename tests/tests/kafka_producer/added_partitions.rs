//! Partitions that are added under a running producer.

use std::time::{Duration, Instant};

use millstream_core::Record;

use crate::raw_client::{connect, create, shared_broker};

/// Twice the documented time, because the machine may be slow.
const TIMEOUT: Duration = Duration::from_secs(20);

#[tokio::test]
async fn added_partitions_are_used_soon() {
    let bootstrap = shared_broker().await;
    create(&bootstrap, "grown", 1, &[]).await;
    let client = connect(&bootstrap).await;
    let producer = client.producer("grown").open().await.unwrap();
    producer
        .send(Record::new("x"))
        .await
        .unwrap()
        .await
        .unwrap();
    client.streams().add_partitions("grown", 3).await.unwrap();
    let begun = Instant::now();
    for number in 0.. {
        let record = Record::new("x").key(number.to_string());
        let stored = producer.send(record).await.unwrap().await.unwrap();
        if stored.partition.id() != "0" {
            break;
        }
        let waited = begun.elapsed();
        assert!(waited < TIMEOUT, "they are not used after {waited:?}");
    }
    println!("after {:?}", begun.elapsed());
    producer.close().await.unwrap();
}
