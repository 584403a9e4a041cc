//! Consume, transform, publish. If the backend supports it, results and progress are stored
//! atomically, so that each result is there exactly once after any crash.
//!
//! `cargo run --example pipeline`

use std::convert::Infallible;

use millstream::{Delivery, Record, Settings};
use millstream_examples::caught_up;

/// Returns any number of records: here none for invalid reports.
async fn clean(delivery: Delivery) -> Result<Option<Record>, Infallible> {
    if delivery.payload().windows(3).any(|part| part == b":-1") {
        return Ok(None);
    }
    Ok(Some(delivery.to_record().header("cleaned-by", "example")))
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let client = Settings::from_env("MILLSTREAM")?.connect().await?;
    millstream_examples::fill(&client, "car-raw-events").await?;
    millstream_examples::create(&client, &["processed-events"]).await?;

    let producer = client.producer("processed-events").open().await?;
    let group = client.group("cleaner").stream("car-raw-events");
    let run = group.transform_to(&producer, clean, caught_up(group.clone()));
    let handle = run.handle();
    run.await?;
    println!("cleaned {} records", handle.stats().settled);
    producer.close().await?;
    Ok(())
}
