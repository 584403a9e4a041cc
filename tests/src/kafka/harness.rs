use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use async_trait::async_trait;
use millstream_core::driver::{self, Backend};
use millstream_core::{Client, StreamSpec};
use millstream_kafka::{Config, Kafka, Protocol};

use super::Testbed;
use crate::{Fault, Harness, Hooks, TcpProxy, Timing};

/// The session timeout of members; the broker's own setting for the newer protocol
/// is the same.
const SESSION: Duration = Duration::from_secs(2);

const HEARTBEAT: Duration = Duration::from_millis(200);

/// The harness of one case on a broker. Cases may share a broker: all names, including those of clients, are
/// unique to this harness.
#[derive(Debug)]
pub struct KafkaHarness {
    testbed: Arc<Testbed>,
    /// Belongs to this harness alone, like its faults.
    network: TcpProxy,
    protocol: Protocol,
    names: Names,
    limits: driver::StreamLimits,
    restart: bool,
}

impl KafkaHarness {
    /// Creates a harness on a shared broker, which cannot be restarted.
    ///
    /// # Panics
    /// If the broker cannot be used.
    pub async fn shared(testbed: Arc<Testbed>, protocol: Protocol) -> Self {
        Self::on(testbed, protocol, false).await
    }

    /// Creates a harness on its own broker.
    ///
    /// # Panics
    /// If the broker cannot be used.
    pub async fn alone(testbed: Testbed, protocol: Protocol) -> Self {
        Self::on(Arc::new(testbed), protocol, true).await
    }

    async fn on(testbed: Arc<Testbed>, protocol: Protocol, restart: bool) -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let names = Names {
            case: COUNT.fetch_add(1, Relaxed),
            next: AtomicUsize::new(0),
        };
        let network = testbed.network().sibling();
        let config = config(network.address(UNNAMED), &names, protocol);
        let limits = testbed
            .limits
            .get_or_init(|| limits(config, names.unique("limits")));
        let limits = *limits.await;
        Self {
            testbed,
            network,
            protocol,
            names,
            limits,
            restart,
        }
    }

    fn config(&self, client: &str) -> Config {
        config(self.network.address(client), &self.names, self.protocol)
    }
}

/// Names that no other case uses.
#[derive(Debug)]
struct Names {
    case: usize,
    next: AtomicUsize,
}

impl Names {
    fn unique(&self, prefix: &str) -> String {
        let next = self.next.fetch_add(1, Relaxed);
        format!("{prefix}-{}-{next}", self.case)
    }
}

/// The prefix of the ids of clients.
const CLIENT: &str = "client";

/// The proxy's client for all clients without a name.
const UNNAMED: &str = "";

fn config(broker: SocketAddr, names: &Names, protocol: Protocol) -> Config {
    let mut config = Config::default();
    config.brokers = vec![broker.to_string()];
    config.client_id = names.unique(CLIENT);
    config.consumer.protocol = protocol;
    config.consumer.session_timeout = SESSION;
    config.consumer.heartbeat_interval = Some(HEARTBEAT);
    // Longer than any delay of a case, and shorter than the timeout of a case that keeps failing.
    config.producer.timeout = SESSION * 10;
    config
}

/// Returns the limits of a stream, as the driver reports them.
async fn limits(config: Config, stream: String) -> driver::StreamLimits {
    let kafka = Kafka::connect(config).await.expect("the broker responds");
    let created = kafka
        .streams()
        .create(&StreamSpec::new(stream.as_str()))
        .await;
    created.expect("the stream is created");
    let producer = kafka.open_producer(&stream, &[]).await;
    let producer = producer.expect("the producer opens");
    let limits = producer.limits();
    producer.close().await.expect("the producer closes");
    limits
}

#[async_trait]
impl Harness for KafkaHarness {
    async fn client(&self) -> Client {
        self.named_client(UNNAMED).await
    }

    async fn named_client(&self, name: &str) -> Client {
        let config = self.config(name);
        config.connect().await.expect("the broker responds")
    }

    async fn impatient_client(&self) -> Client {
        let mut config = self.config(UNNAMED);
        config.producer.timeout = SESSION;
        config.connect().await.expect("the broker responds")
    }

    fn unique(&self, prefix: &str) -> String {
        self.names.unique(prefix)
    }

    fn timing(&self) -> Timing {
        Timing {
            session: SESSION,
            handover: Duration::from_millis(1_500),
            timeout: Duration::from_secs(60),
            poll_interval: Duration::from_millis(20),
            timestamps: Duration::from_millis(1),
        }
    }

    fn limits(&self) -> driver::StreamLimits {
        self.limits
    }

    fn hooks(&self) -> Hooks {
        Hooks {
            fail_sends: true,
            // Records are sent in batches of a partition, with all its keys.
            fail_sends_by_key: false,
            time_out_sends: true,
            // A broker delays responses to a client over its quota, but stores its records.
            throttle_sends: false,
            delay_sends: true,
            delay_join: true,
            freeze: true,
            fail_checkpoints: true,
            lose_checkpoints: true,
            refuse_publish_late: true,
            lose_publish_responses: true,
            refuse_large: true,
            steal: true,
            trim: true,
            restart: self.restart,
            network: true,
            // librdkafka (2.12) counts a session of KIP-848 by the broker's clock alone.
            own_session_clock: self.protocol == Protocol::Cooperative,
            paused_clock: false,
            // A producer has an id and numbers its batches.
            idempotent_sends: true,
            reshard_repeats_sends: false,
        }
    }

    fn proxy(&self) -> Option<&TcpProxy> {
        Some(&self.network)
    }

    fn hits(&self, stream_or_group: &str) -> u64 {
        self.testbed.faults().hits(stream_or_group)
    }

    async fn inject(&self, fault: Fault) {
        let faults = self.testbed.faults();
        match fault {
            Fault::FailSends { stream, times, .. } => {
                // A closed connection is the only failure without an error code. librdkafka waits
                // before it reconnects, so one must be enough.
                faults.cut_sends(&stream, times.min(1));
                faults.refuse_sends(&stream, times);
            }
            Fault::TimeOutSends { stream, times } => {
                faults.lose_send_responses(&stream, times.min(1));
                faults.time_out_sends(&stream, times);
            }
            Fault::DelaySends { stream, by } => faults.delay_send_responses(&stream, by),
            // A client that has not joined yet can do nothing except join.
            Fault::DelayJoin {
                member,
                by: duration,
                ..
            }
            | Fault::Freeze {
                member, duration, ..
            } => self.network.of(&member).freeze(duration),
            Fault::FailCheckpoints { group, times } => faults.refuse_commits(&group, times),
            Fault::LoseCheckpoints { group, times } => faults.lose_commits(&group, times),
            Fault::RefusePublishLate { group, after } => faults.refuse_step_late(&group, after),
            Fault::LosePublishResponses { group, times } => {
                faults.lose_step_responses(&group, times);
            }
            Fault::RefuseLarge { stream, limit } => {
                self.testbed.limit_records(&stream, limit).await;
            }
            Fault::Steal { group, partition } => self.testbed.steal(&group, &partition).await,
            Fault::Trim { stream, .. } => self.testbed.trim(&stream).await,
            Fault::Restart => self.testbed.restart().await,
            fault => panic!("{fault:?} is none of the hooks"),
        }
    }
}
