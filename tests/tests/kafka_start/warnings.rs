//! librdkafka logs no warnings at the start of any client with default settings.

use std::fmt::Debug;
use std::future::pending;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use millstream_core::{ConsumerHandle, Delivery, Record, Result, StreamSpec};
use millstream_kafka::{Config, Protocol};
use tokio::task::JoinHandle;
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id};
use tracing::{Event, Metadata, Subscriber};

use crate::shared_broker;

const TIMEOUT: Duration = Duration::from_secs(60);

/// The lines of librdkafka's log that an application sees with log level `INFO`.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<Line>>>);

#[derive(Debug, Clone, Default)]
struct Line {
    facility: String,
    message: String,
}

impl Log {
    /// Returns the messages about settings.
    fn warnings(&self) -> Vec<String> {
        let lines = self.0.lock().unwrap();
        let warnings = lines.iter().filter(|line| line.facility == "CONFWARN");
        warnings.map(|line| line.message.clone()).collect()
    }
}

impl Subscriber for Log {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == "librdkafka" && *metadata.level() <= tracing::Level::INFO
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(LevelFilter::INFO)
    }

    fn event(&self, event: &Event<'_>) {
        let mut line = Line::default();
        event.record(&mut line);
        self.0.lock().unwrap().push(line);
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &tracing::span::Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

impl Visit for Line {
    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "facility" => value.clone_into(&mut self.facility),
            "message" => value.clone_into(&mut self.message),
            _ => {}
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.record_str(field, &format!("{value:?}"));
    }
}

async fn until(what: &str, met: impl Fn() -> bool) {
    let deadline = Instant::now() + TIMEOUT;
    while !met() {
        assert!(Instant::now() < deadline, "waited for: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn ended(member: (ConsumerHandle, JoinHandle<Result<()>>)) {
    member.0.shutdown();
    member.1.await.unwrap().unwrap();
}

/// Uses each kind of client once: administration, producer, member, and exactly-once pipeline.
async fn use_all(config: Config, name: &str) {
    let client = config.connect().await.unwrap();
    let (source, sink) = (format!("{name}-source"), format!("{name}-sink"));
    for stream in [&source, &sink] {
        let spec = StreamSpec::new(stream.as_str());
        client.streams().create(spec).await.unwrap();
    }
    let producer = client.producer(source.as_str()).open().await.unwrap();
    let receipt = producer.send(Record::new("x").key("k")).await.unwrap();
    receipt.await.unwrap();
    let to_sink = client.producer(sink.as_str()).open().await.unwrap();
    let pipeline = client.group(format!("{name}-pipeline")).stream(&*source);
    let pass_on = |delivery: Delivery| async move { Ok::<_, String>([delivery.to_record()]) };
    let pipeline = pipeline.transform_to(&to_sink, pass_on, pending());
    let pipeline = (pipeline.handle(), tokio::spawn(pipeline));
    let reader = client.group(format!("{name}-reader")).stream(&*sink);
    let reader = reader.run(|_: Delivery| async { Ok::<(), String>(()) }, pending());
    let reader = (reader.handle(), tokio::spawn(reader));
    until("the result is read", || reader.0.stats().settled == 1).await;
    ended(pipeline).await;
    ended(reader).await;
    client
        .group(format!("{name}-reader"))
        .checkpoints()
        .await
        .unwrap();
    to_sink.close().await.unwrap();
    producer.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn no_client_warns_of_default_settings() {
    let log = Log::default();
    tracing::subscriber::set_global_default(log.clone()).unwrap();
    let mut config = Config::default();
    config.brokers = vec![shared_broker().await];
    for (protocol, name) in [
        (Protocol::Cooperative, "cooperative"),
        (Protocol::Consumer, "consumer"),
    ] {
        config.consumer.protocol = protocol;
        use_all(config.clone(), name).await;
    }
    assert_eq!(log.warnings(), [""; 0]);

    // The log would contain a warning if there were one: for a setting that librdkafka no longer uses.
    let unused = "socket.blocking.max.ms";
    config.librdkafka.insert(unused.into(), "1000".into());
    use_all(config, "unused").await;
    until("a warning is logged", || !log.warnings().is_empty()).await;
    let warnings = log.warnings();
    assert!(
        warnings.iter().all(|line| line.contains(unused)),
        "{warnings:?}"
    );
}
