//! Produce: `send` waits for room, and its receipt for the broker's acknowledgement.
//!
//! `cargo run --example produce`

use millstream::{Record, Settings};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let client = Settings::from_env("MILLSTREAM")?.connect().await?;
    millstream_examples::create(&client, &["car-raw-events"]).await?;

    let producer = client.producer("car-raw-events").open().await?;
    let mut receipts = Vec::new();
    for speed in [41, 43, 47] {
        let payload = format!(r#"{{"car":"car-123","speed":{speed}}}"#);
        // Records of one key are stored in the order in which they are sent, whether or not the
        // receipts are awaited in between.
        let record = Record::new(payload)
            .key("car-123")
            .header("source", "example");
        receipts.push(producer.send(record).await?);
    }
    for receipt in receipts {
        let stored = receipt.await?;
        println!("stored in {} at {}", stored.partition, stored.position);
    }
    producer.close().await?;
    Ok(())
}
