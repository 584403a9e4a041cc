//! Handlers may fill the runtime's pool of blocking threads.

use std::sync::mpsc;
use std::time::Duration;

use millstream_core::{Delivery, Record, Start, StreamSpec};
use millstream_kafka::Config;
use tokio::sync::oneshot;

use crate::shared_broker;

/// The timeout of everything that must happen.
const TIMEOUT: Duration = Duration::from_secs(30);

#[test]
fn a_pipeline_needs_no_thread_of_the_runtime() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .max_blocking_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let (release, released) = mpsc::channel::<()>();
    let bootstrap = runtime.block_on(shared_broker());
    // Like a handler's own long-running job.
    runtime.spawn_blocking(move || released.recv());
    let read = async move {
        let mut config = Config::default();
        config.brokers = vec![bootstrap];
        let client = config.connect().await.unwrap();
        for name in ["pool-from", "pool-to"] {
            let spec = StreamSpec::new(name).partitions(1);
            client.streams().create(spec).await.unwrap();
        }
        let producer = client.producer("pool-from").open().await.unwrap();
        producer
            .send(Record::new("x"))
            .await
            .unwrap()
            .await
            .unwrap();
        producer.close().await.unwrap();

        let to = client.producer("pool-to").open().await.unwrap();
        let group = client.group("pool").stream("pool-from");
        let (stop, stopped) = oneshot::channel::<()>();
        let transform =
            |delivery: Delivery| async move { Ok::<_, std::io::Error>(vec![delivery.to_record()]) };
        let running = group
            .start(Start::Earliest)
            .transform_to(&to, transform, async move { _ = stopped.await });
        let running = tokio::spawn(running);
        let reader = client.group("pool-reader").stream("pool-to");
        let mut reader = reader.start(Start::Earliest).join().await.unwrap();
        let read = tokio::time::timeout(TIMEOUT, reader.next()).await;
        let read = read.expect("the result is readable").unwrap().unwrap();
        stop.send(()).unwrap();
        let closed = tokio::time::timeout(TIMEOUT, running).await;
        closed.expect("it closes").unwrap().unwrap();
        let checkpoints = client.group("pool").checkpoints().await.unwrap();
        assert_eq!(checkpoints[0].lag.records, Some(0), "{checkpoints:?}");
        read.payload().clone()
    };
    let read = runtime.block_on(async { tokio::time::timeout(3 * TIMEOUT, read).await });
    assert_eq!(read.expect("nothing waits for the pool"), "x");
    release.send(()).unwrap();
}
