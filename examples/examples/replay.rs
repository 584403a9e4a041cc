//! Replay: move a group back, so that it handles the records again. This also works while its members
//! run.
//!
//! `cargo run --example replay`

use std::convert::Infallible;

use millstream::{Client, Delivery, Settings, Start};
use millstream_examples::caught_up;

async fn handle(_: Delivery) -> Result<(), Infallible> {
    Ok(())
}

/// Handles all records that are stored, and returns their number.
async fn handle_all(client: &Client) -> anyhow::Result<u64> {
    let group = client.group("replay").stream("car-raw-events");
    let run = group.run(handle, caught_up(group.clone()));
    let handle = run.handle();
    run.await?;
    Ok(handle.stats().settled)
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let client = Settings::from_env("MILLSTREAM")?.connect().await?;
    millstream_examples::fill(&client, "car-raw-events").await?;

    println!("first: {} records", handle_all(&client).await?);
    println!("again: {} records", handle_all(&client).await?);

    let group = client.group("replay");
    group.reset("car-raw-events", Start::Earliest).await?;
    println!("after the reset: {} records", handle_all(&client).await?);
    Ok(())
}
