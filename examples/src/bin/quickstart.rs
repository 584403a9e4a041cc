//! The program of the README: sends three records and handles them, until a signal.

use millstream::{Delivery, Record, Settings, StreamSpec, shutdown_signal};

async fn handle(delivery: Delivery) -> Result<(), std::io::Error> {
    println!("{}: {:?}", delivery.position(), delivery.payload());
    Ok(()) // an error or a panic is retried, and later records of the key wait
}

#[tokio::main]
async fn main() -> millstream::Result<()> {
    let client = Settings::from_env("MILLSTREAM")?.connect().await?; // memory by default
    let spec = StreamSpec::new("car-raw-events").partitions(8);
    client.streams().create(spec).await?;

    let producer = client.producer("car-raw-events").open().await?;
    for speed in ["50", "80", "130"] {
        let receipt = producer.send(Record::new(speed).key("car-123")).await?;
        receipt.await?; // stored; records of one key keep the order of `send`
    }
    producer.close().await?;

    let group = client.group("notifications").stream("car-raw-events");
    group.run(handle, shutdown_signal()).await // until SIGTERM or Ctrl-C, then drains
}
