//! A sink that applies each record once: each SQLite transaction contains the results of a batch and the
//! progress after it.
//!
//! `cargo run --features sqlite --example sink`, or `.. -- cars.sqlite` for a file that the next run
//! continues

use std::sync::Arc;

use millstream::{BatchFailure, Delivery, Settings};
use millstream_examples::{caught_up, fill};
use tokio::task::spawn_blocking;

mod sink;
use sink::Sink;

const REPORTS: &str = "car-raw-events";

async fn apply(sink: Arc<Sink>, batch: Vec<Delivery>) -> Result<(), BatchFailure> {
    // SQLite blocks.
    spawn_blocking(move || sink.apply(&batch)).await??;
    Ok(())
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let client = Settings::from_env("MILLSTREAM")?.connect().await?;
    fill(&client, REPORTS).await?;

    let path = std::env::args().nth(1);
    let sink = Arc::new(Sink::open(path.as_deref().unwrap_or(":memory:"))?);
    let handler = {
        let sink = sink.clone();
        move |batch| apply(sink.clone(), batch)
    };
    let group = client.group("sink").stream(REPORTS);
    let done = caught_up(group.clone());
    group.run_batches(100, handler, done).await?;

    for (car, reports) in sink.reports()? {
        println!("{car}: {reports} reports");
    }
    Ok(())
}
