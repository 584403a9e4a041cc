//! How an application tests its own logic: with the memory backend and tokio's paused clock. An hour of
//! the application's time takes no real time.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use millstream::{Client, Delivery, Record, StreamSpec};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep};

/// The application, which takes a minute for each report.
async fn repair(done: Arc<Mutex<Vec<String>>>, delivery: Delivery) -> Result<(), std::io::Error> {
    sleep(Duration::from_secs(60)).await;
    let text = String::from_utf8_lossy(delivery.payload()).into_owned();
    done.lock().unwrap().push(text);
    Ok(())
}

async fn client_with(reports: &[(&str, &str)]) -> millstream::Result<Client> {
    let client = millstream::memory::Config::default().connect().await?;
    let spec = StreamSpec::new("reports").partitions(4);
    client.streams().create(spec).await?;
    let producer = client.producer("reports").open().await?;
    for (car, text) in reports {
        let record = Record::new((*text).to_owned()).key((*car).to_owned());
        producer.send(record).await?.await?;
    }
    producer.close().await?;
    Ok(client)
}

#[tokio::test(start_paused = true)]
async fn one_car_is_repaired_in_order_and_cars_at_the_same_time() -> millstream::Result<()> {
    let reports = [("a", "a1"), ("b", "b1"), ("a", "a2"), ("a", "a3")];
    let client = client_with(&reports).await?;
    let begun = Instant::now();

    let done = Arc::new(Mutex::new(Vec::new()));
    let (stop, stopped) = oneshot::channel::<()>();
    let handler = {
        let done = done.clone();
        move |delivery| repair(done.clone(), delivery)
    };
    let group = client.group("workshop").stream("reports");
    let member = tokio::spawn(group.run(handler, async {
        let _ = stopped.await;
    }));

    while done.lock().unwrap().len() < reports.len() {
        assert!(
            begun.elapsed() < Duration::from_secs(3_600),
            "it takes too long"
        );
        sleep(Duration::from_secs(1)).await;
    }
    let took = begun.elapsed().as_secs();
    assert!(
        (180..200).contains(&took),
        "three minutes for three repairs of `a`, not {took} s"
    );
    let done: Vec<_> = done.lock().unwrap().clone();
    let of_a: Vec<_> = done.iter().filter(|text| text.starts_with('a')).collect();
    assert_eq!(of_a, ["a1", "a2", "a3"]);

    let _ = stop.send(());
    member.await.unwrap()?;
    let checkpoints = client.group("workshop").checkpoints().await?;
    assert!(
        checkpoints
            .iter()
            .all(|checkpoint| checkpoint.lag.records == Some(0))
    );
    Ok(())
}
