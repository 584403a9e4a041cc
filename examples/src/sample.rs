use millstream::{Client, ErrorKind, Record, Result, StreamSpec};

/// Creates each of `streams` with four partitions, unless it exists.
///
/// # Errors
/// The broker's.
pub async fn create(client: &Client, streams: &[&str]) -> Result<()> {
    for stream in streams {
        let spec = StreamSpec::new(*stream).partitions(4);
        match client.streams().create(spec).await {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            created => created?,
        }
    }
    Ok(())
}

/// Creates `stream` and sends ten reports of each of three cars, keyed by car:
/// `{"car":"car-1","speed":40}`. One of them is invalid: `car-2` reports a speed of -1 once.
///
/// # Errors
/// The broker's.
pub async fn fill(client: &Client, stream: &str) -> Result<()> {
    create(client, &[stream]).await?;
    let producer = client.producer(stream).open().await?;
    for report in 0..10 {
        for car in ["car-1", "car-2", "car-3"] {
            let speed = match (car, report) {
                ("car-2", 4) => -1,
                _ => 40 + report,
            };
            let payload = format!(r#"{{"car":"{car}","speed":{speed}}}"#);
            // `close` reports a failure whose receipt was dropped.
            drop(producer.send(Record::new(payload).key(car)).await?);
        }
    }
    producer.close().await
}
