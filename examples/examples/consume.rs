//! Consume with your own loop: pull deliveries and settle each.
//!
//! `cargo run --example consume`

use millstream::Settings;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let client = Settings::from_env("MILLSTREAM")?.connect().await?;
    millstream_examples::fill(&client, "car-raw-events").await?;

    let group = client.group("analytics").stream("car-raw-events");
    let mut consumer = group.join().await?;
    for _ in 0..30 {
        let Some(delivery) = consumer.next().await? else {
            break; // this member was shut down by its handle
        };
        let text = String::from_utf8_lossy(delivery.payload());
        println!("{} {} {text}", delivery.partition(), delivery.position());
        // Settled: the checkpoint may pass it. A delivery that is dropped instead is delivered again.
        delivery.ack();
    }
    // Drains, checkpoints, and releases the partitions to the other members.
    consumer.close().await?;

    for checkpoint in group.checkpoints().await? {
        let left = checkpoint.lag.records.unwrap_or_default();
        println!("{}: {left} records left", checkpoint.partition);
    }
    Ok(())
}
