//! The brokers in containers behave as other tests require, according to Kafka's own tools.

use conformance::kafka::{Broker, Cluster, Options};

async fn create(broker: &Broker, topic: &str, more: &[&str]) {
    let mut args = vec!["--create", "--topic", topic];
    args.extend(more);
    broker.tool("kafka-topics.sh", &args).await.ok();
}

/// Returns when the record is acknowledged. The tool reports a failure only in its log, and gives
/// up on a partition that has just moved sooner than a program would.
async fn produce(broker: &Broker, topic: &str, record: &str) {
    let produce = format!(
        "echo {record} | /opt/kafka/bin/kafka-console-producer.sh --bootstrap-server \
         localhost:9093 --topic {topic} --message-send-max-retries 100"
    );
    let output = broker.exec(&["bash", "-c", &produce]).await;
    assert!(!output.stderr.contains("ERROR"), "{output:?}");
    output.ok();
}

async fn consume(broker: &Broker, topic: &str, count: usize) -> Vec<String> {
    let count = count.to_string();
    let args = [
        "--topic",
        topic,
        "--from-beginning",
        "--max-messages",
        &count,
    ];
    let read = broker.tool("kafka-console-consumer.sh", &args).await.ok();
    read.lines().map(str::to_owned).collect()
}

#[tokio::test]
async fn a_killed_broker_comes_back_with_its_data_on_its_port() {
    let broker = Options::new().start().await;
    let bootstrap = broker.bootstrap();
    create(&broker, "kept", &[]).await;
    produce(&broker, "kept", "before").await;

    broker.kill().await;
    broker.start().await;

    assert_eq!(broker.bootstrap(), bootstrap);
    produce(&broker, "kept", "after").await;
    assert_eq!(consume(&broker, "kept", 2).await, ["before", "after"]);
}

#[tokio::test]
async fn a_cluster_acknowledges_with_one_broker_gone_and_loses_nothing() {
    let cluster = Cluster::start(|_| Options::new()).await;
    create(cluster.broker(0), "kept", &[]).await;
    produce(cluster.broker(0), "kept", "with all").await;

    cluster.kill(1).await;
    cluster.goes_on_without(1).await;
    produce(cluster.broker(0), "kept", "without one").await;
    cluster.restart(1).await;
    cluster.settled().await;

    cluster.disconnect(2).await;
    cluster.goes_on_without(2).await;
    produce(cluster.broker(0), "kept", "cut off").await;
    cluster.reconnect(2).await;
    cluster.settled().await;

    let kept = consume(cluster.broker(2), "kept", 3).await;
    assert_eq!(kept, ["with all", "without one", "cut off"]);
}
