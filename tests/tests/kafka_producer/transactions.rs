//! Exactly-once pipelines whose results are large or many.

use std::time::{Duration, Instant};

use conformance::kafka::Options;
use millstream_core::{Client, Delivery, Record, Start};

use crate::raw_client::{config, connect, create, open, read, send_all, shared_broker};

/// How long results may take to become readable.
const TIMEOUT: Duration = Duration::from_secs(120);

/// Sends this number of records, creates `each` results of every record in a pipeline from `from` to `to`,
/// and waits until all are readable.
async fn run(
    client: Client,
    bootstrap: &str,
    (from, to): (&'static str, &'static str),
    records: usize,
    each: impl Fn() -> Vec<Record> + Send + Sync + 'static,
) {
    let count = records * each().len();
    let producer = open(bootstrap, from).await;
    let records = (0..records).map(|number| Record::new(number.to_string()));
    for receipt in send_all(&producer, records).await.await {
        receipt.unwrap();
    }
    let to_producer = client.producer(to).open().await.unwrap();
    let group = client.group(format!("{from}-group")).stream(from);
    let group = group
        .start(Start::Earliest)
        .checkpoint_interval(Duration::from_secs(1));
    let transform = move |_: Delivery| {
        let results = each();
        async move { Ok::<_, std::io::Error>(results) }
    };
    let running = group.transform_to(&to_producer, transform, std::future::pending());
    let running = tokio::spawn(running);
    let begun = Instant::now();
    loop {
        assert!(!running.is_finished(), "the pipeline ended");
        let readable: usize = read(bootstrap, to).await.values().map(Vec::len).sum();
        if readable >= count {
            assert_eq!(readable, count, "each result is there once");
            break;
        }
        let waited = begun.elapsed();
        assert!(waited < TIMEOUT, "{readable} of {count} are readable");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    running.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_result_as_large_as_its_topic_takes_is_published() {
    let bootstrap = shared_broker().await;
    create(&bootstrap, "large-from", 1, &[]).await;
    let settings = [("max.message.bytes", "3000000")];
    create(&bootstrap, "large-to", 1, &settings).await;
    let client = connect(&bootstrap).await;
    let each = || vec![Record::new(vec![1; 2_000_000])];
    run(client, &bootstrap, ("large-from", "large-to"), 1, each).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_results_are_published_to_a_topic_of_small_batches() {
    let bootstrap = shared_broker().await;
    create(&bootstrap, "small-from", 1, &[]).await;
    let settings = [("max.message.bytes", "100000")];
    create(&bootstrap, "small-to", 1, &settings).await;
    let client = connect(&bootstrap).await;
    let each = || vec![Record::new(vec![1; 1_000]).key("k"); 500];
    run(client, &bootstrap, ("small-from", "small-to"), 1, each).await;
}

/// They cannot all be published within the timeout of one transaction.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn results_are_published_under_a_quota() {
    let broker = Options::new().start().await;
    let bootstrap = broker.bootstrap();
    create(&bootstrap, "quota-from", 1, &[]).await;
    create(&bootstrap, "quota-to", 1, &[]).await;
    let args = [
        "--alter",
        "--add-config",
        "producer_byte_rate=1048576",
        "--entity-type",
        "clients",
        "--entity-name",
        "throttled",
    ];
    broker.tool("kafka-configs.sh", &args).await.ok();
    let mut config = config(&bootstrap);
    config.client_id = "throttled".into();
    let client = config.connect().await.unwrap();
    let each = || vec![Record::new(vec![1; 100_000]).key("k"); 10];
    run(client, &bootstrap, ("quota-from", "quota-to"), 20, each).await;
}
