use conformance::kafka::{Cluster, Options};
use millstream_core::StreamSpec;
use rdkafka::consumer::{BaseConsumer, Consumer as _};

use crate::{config, connect, raw_client};

/// Returns the number of partitions of a topic in the metadata of a client's only known broker, and the number
/// of those with a leader.
fn shown(bootstrap: &str, topic: &str) -> (usize, usize) {
    let consumer: BaseConsumer = raw_client::settings(bootstrap)
        .create()
        .expect("they are right");
    let metadata = consumer.fetch_metadata(Some(topic), raw_client::TIMEOUT);
    let metadata = metadata.expect("the broker responds");
    let found = metadata.topics().iter().find(|found| found.name() == topic);
    let partitions = found.expect("it was asked for").partitions();
    let led = partitions.iter().filter(|p| p.leader() >= 0).count();
    (partitions.len(), led)
}

/// A client that sends a request to any broker right after a change must not get the old state.
#[tokio::test]
async fn every_broker_shows_a_change_when_it_is_answered() {
    let cluster = Cluster::start(|_| Options::new()).await;
    let streams = connect(config(&cluster.bootstrap())).await.streams();
    let each = |topic: &str| {
        let brokers = 0..Cluster::SIZE;
        let shown = brokers.map(|n| shown(&cluster.broker(n).bootstrap(), topic));
        shown.collect::<Vec<_>>()
    };
    for turn in 0..10 {
        let name = format!("shown-{turn}");
        let spec = StreamSpec::new(&*name).partitions(6);
        streams.create(spec).await.expect("it is new");
        assert_eq!(each(&name), [(6, 6); 3]);
        let added = streams.add_partitions(&name, 9).await;
        added.expect("they are more");
        assert_eq!(each(&name), [(9, 9); 3]);
        streams.delete(&name).await.expect("it is there");
        assert_eq!(each(&name), [(0, 0); 3]);
    }

    // The client does not wait for a broker that is gone.
    cluster.kill(2).await;
    let mut config = config(&cluster.broker(0).bootstrap());
    config.topics.replication_factor = Some(2);
    let streams = connect(config).await.streams();
    let spec = StreamSpec::new("without-one").partitions(6);
    streams.create(spec).await.expect("two brokers continue");
    for n in 0..2 {
        let bootstrap = cluster.broker(n).bootstrap();
        assert_eq!(shown(&bootstrap, "without-one"), (6, 6));
    }
}
