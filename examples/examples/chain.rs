//! A chain: consume, transform, publish. A delivery is settled when the broker has what was made of
//! it.
//!
//! `cargo run --example chain`

use std::convert::Infallible;

use millstream::{Delivery, Record};
use millstream_examples::caught_up;

/// Answers with any number of records: here none for reports that make no sense.
async fn clean(delivery: Delivery) -> Result<Option<Record>, Infallible> {
    if delivery.payload().windows(3).any(|part| part == b":-1") {
        return Ok(None);
    }
    Ok(Some(delivery.to_record().header("cleaned-by", "example")))
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let client = millstream_examples::connect().await?;
    millstream_examples::fill(&client, "car-raw-events").await?;
    millstream_examples::create(&client, &["processed-events"]).await?;

    let producer = client.producer("processed-events").open().await?;
    let group = client.group("cleaner").stream("car-raw-events");
    group
        .run_to(&producer, clean, caught_up(group.clone()))
        .await?;
    println!("published {} records", producer.stats().stored);
    producer.close().await?;
    Ok(())
}
