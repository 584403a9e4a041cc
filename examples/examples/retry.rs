//! A handler that fails: its record is retried, and sent to the dead letter stream when its attempts
//! are used up. Its key waits, other keys continue.
//!
//! `cargo run --example retry`

use std::time::Duration;

use anyhow::bail;
use millstream::{DeadLetter, Delivery, Retry, Settings};
use millstream_examples::caught_up;

const DEAD: &str = "car-raw-events.dead";

async fn handle(delivery: Delivery) -> anyhow::Result<()> {
    let text = String::from_utf8_lossy(delivery.payload());
    if text.contains(":-1") {
        println!("attempt {} fails for {text}", delivery.attempt());
        bail!("a negative speed makes no sense");
    }
    Ok(())
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let client = Settings::from_env("MILLSTREAM")?.connect().await?;
    millstream_examples::fill(&client, "car-raw-events").await?;
    millstream_examples::create(&client, &[DEAD]).await?;

    let retry = Retry::exponential()
        .delays(Duration::from_millis(50), Duration::from_secs(1))
        .attempts(3)
        .then(DeadLetter::stream(DEAD));
    let group = client
        .group("notifications")
        .stream("car-raw-events")
        .on_failure(retry);
    let run = group.run(handle, caught_up(group.clone()));
    let handle = run.handle();
    run.await?;
    println!("settled {} records", handle.stats().settled);
    if handle.stats().dead_lettered == 0 {
        return Ok(()); // stopped by a signal before that
    }

    let mut dead_letters = client.group("on-call").stream(DEAD).join().await?;
    if let Some(letter) = dead_letters.next().await? {
        println!("dead letter: {}", String::from_utf8_lossy(letter.payload()));
        for (name, value) in letter.headers() {
            let value = value.map_or("null".into(), |value| String::from_utf8_lossy(value));
            println!("  {name}: {value}");
        }
        letter.ack();
    }
    dead_letters.close().await?;
    Ok(())
}
