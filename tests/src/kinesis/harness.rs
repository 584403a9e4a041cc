use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use async_trait::async_trait;
use millstream_core::driver::{self, Backend};
use millstream_core::{Client, StreamSpec};
use millstream_kinesis::{Aggregation, Config, Credentials, Kinesis, Retrieval};

use super::{Emulator, Endpoint, Testbed};
use crate::{Fault, Harness, Hooks, TcpProxy, Timing};

/// The session timeout of members.
const SESSION: Duration = Duration::from_secs(3);

/// The resolution of ferrokinesis: it keeps arrival times in whole seconds.
const TIMESTAMPS: Duration = Duration::from_secs(1);

/// The largest key that ferrokinesis stores.
const FERROKINESIS_KEY_BYTES: usize = 256;

/// How the backend is set up.
#[derive(Debug, Clone, Copy, Default)]
pub struct Variant {
    /// How records are sent.
    pub aggregation: Aggregation,
    /// How records are fetched.
    pub retrieval: Retrieval,
    /// How the services are reached.
    pub endpoint: Endpoint,
}

/// The harness of one case on a testbed. Cases may share a testbed: all names, including those of clients, are
/// unique to this harness.
#[derive(Debug)]
pub struct KinesisHarness {
    testbed: Arc<Testbed>,
    /// Belongs to this harness alone, like its faults.
    network: TcpProxy,
    variant: Variant,
    names: Names,
    limits: driver::StreamLimits,
    restart: bool,
}

impl KinesisHarness {
    /// Creates a harness on a shared testbed, which cannot be restarted.
    ///
    /// # Panics
    /// If the testbed cannot be used.
    pub async fn shared(testbed: Arc<Testbed>, variant: Variant) -> Self {
        Self::on(testbed, variant, false).await
    }

    /// Creates a harness on its own persistent testbed.
    ///
    /// # Panics
    /// If the testbed cannot be used.
    pub async fn alone(testbed: Testbed, variant: Variant) -> Self {
        Self::on(Arc::new(testbed), variant, true).await
    }

    /// Returns the testbed, for faults that no case of the suite needs.
    pub fn testbed(&self) -> &Testbed {
        &self.testbed
    }

    /// Returns the prefix of all client names. A member's client name ends with a dot and the member's name.
    pub fn clients(&self) -> String {
        self.names.begins(CLIENT)
    }

    /// Connects a client whose settings differ from those of the cases.
    ///
    /// # Panics
    /// If the emulator does not respond.
    pub async fn client_with(&self, name: &str, change: impl FnOnce(&mut Config)) -> Client {
        let mut config = self.config(name);
        change(&mut config);
        config.connect().await.expect("the emulator responds")
    }

    /// Returns how many entries of requests must fail for this number of sends. An aggregate is one entry for many
    /// records, and the last remaining one meets all remaining faults: no more than its retries within its timeout.
    fn entries(&self, sends: u32) -> u32 {
        match (self.variant.aggregation, sends) {
            (Aggregation::Off, _) | (_, u32::MAX) => sends,
            _ => sends.div_ceil(4),
        }
    }

    fn config(&self, client: &str) -> Config {
        config(
            &self.testbed,
            self.network.address(client),
            &self.names,
            self.variant,
        )
    }

    async fn on(testbed: Arc<Testbed>, variant: Variant, restart: bool) -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let names = Names {
            case: COUNT.fetch_add(1, Relaxed),
            next: AtomicUsize::new(0),
        };
        let network = testbed.network(variant.endpoint).sibling();
        let config = config(&testbed, network.address(UNNAMED), &names, variant);
        let limits = testbed
            .limits
            .get_or_init(|| limits(config, names.unique("limits")));
        let mut limits = *limits.await;
        if testbed.emulator() == Emulator::Ferrokinesis {
            // It counts bytes where AWS and kinesis-mock count characters.
            limits.key_bytes = limits.key_bytes.min(FERROKINESIS_KEY_BYTES);
        }
        Self {
            testbed,
            network,
            variant,
            names,
            limits,
            restart,
        }
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
        format!("{}{next}", self.begins(prefix))
    }

    /// Returns the beginning of the names with this prefix.
    fn begins(&self, prefix: &str) -> String {
        format!("{prefix}-{}-", self.case)
    }
}

/// The prefix of the ids of clients.
const CLIENT: &str = "client";

/// The proxy's client for all clients without a name.
const UNNAMED: &str = "";

fn config(testbed: &Testbed, services: SocketAddr, names: &Names, variant: Variant) -> Config {
    let mut config = Config::default();
    let [id, secret] = Testbed::CREDENTIALS;
    config.region = Some(Testbed::REGION.into());
    config.credentials = Some(Credentials {
        access_key_id: id.into(),
        secret_access_key: secret.to_owned().into(),
        session_token: None,
    });
    config.endpoint = Some(match variant.endpoint {
        Endpoint::Plain => format!("http://{services}"),
        Endpoint::AwsLike { .. } => format!("https://{services}"),
    });
    config.ca_file = Some(testbed.certificate().to_owned());
    config.dynamodb_endpoint = config.endpoint.clone();
    config.client_id = names.unique(CLIENT);
    config.consumer.retrieval = variant.retrieval;
    config.consumer.session_timeout = SESSION;
    config.consumer.poll_interval = Duration::from_millis(200);
    config.leases.scan_interval = Some(Duration::from_millis(250));
    config.leases.audit_interval = SESSION;
    config.producer.aggregation = variant.aggregation;
    // Longer than any delay of a case, and shorter than the timeout of a case that keeps failing.
    config.producer.timeout = SESSION * 10;
    config
}

/// Returns the limits of a stream, as the driver reports them.
async fn limits(config: Config, stream: String) -> driver::StreamLimits {
    let kinesis = Kinesis::connect(config)
        .await
        .expect("the emulator responds");
    let created = kinesis
        .streams()
        .create(&StreamSpec::new(stream.as_str()))
        .await;
    created.expect("the stream is created");
    let producer = kinesis.open_producer(&stream, &[]).await;
    let producer = producer.expect("the producer opens");
    let limits = producer.limits();
    producer.close().await.expect("the producer closes");
    limits
}

#[async_trait]
impl Harness for KinesisHarness {
    async fn client(&self) -> Client {
        self.named_client(UNNAMED).await
    }

    async fn named_client(&self, name: &str) -> Client {
        let config = self.config(name);
        config.connect().await.expect("the emulator responds")
    }

    async fn impatient_client(&self) -> Client {
        let mut config = self.config(UNNAMED);
        config.producer.timeout = SESSION;
        config.connect().await.expect("the emulator responds")
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
            timestamps: TIMESTAMPS,
        }
    }

    fn limits(&self) -> driver::StreamLimits {
        self.limits
    }

    fn hooks(&self) -> Hooks {
        Hooks {
            fail_sends: true,
            // A record of an aggregate fails with all others in it.
            fail_sends_by_key: self.variant.aggregation == Aggregation::Off,
            time_out_sends: true,
            throttle_sends: true,
            delay_sends: true,
            delay_join: true,
            freeze: true,
            fail_checkpoints: true,
            // DynamoDB acknowledges a write when it is stored. If one were lost, the next write
            // to its lease would fail, because each is conditioned on the one before.
            lose_checkpoints: false,
            // No step stores records and progress together.
            refuse_publish_late: false,
            lose_publish_responses: false,
            refuse_large: false,
            steal: true,
            trim: true,
            restart: self.restart,
            // These cases test the driver, whichever emulator is used, and kinesis-mock is already slow.
            network: self.testbed.emulator() == Emulator::Ferrokinesis,
            own_session_clock: true,
            paused_clock: false,
            // Kinesis does not recognize a record that it has stored.
            idempotent_sends: false,
            // A misrouted aggregate, some of whose records belong to another shard, is sent again.
            reshard_repeats_sends: self.variant.aggregation == Aggregation::Kpl,
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
            Fault::FailSends { stream, key, times } => {
                if key.is_none() {
                    // A closed connection is the failure with the least information.
                    faults.cut_sends(&stream, times.min(1));
                }
                let key = key.filter(|_| self.hooks().fail_sends_by_key);
                faults.fail_records(&stream, key.as_deref(), self.entries(times));
            }
            Fault::TimeOutSends { stream, times } => {
                faults.lose_send_responses(&stream, times.min(1));
                faults.fail_stored_sends(&stream, times);
            }
            Fault::ThrottleSends { stream, times } => {
                faults.throttle_sends(&stream, times.min(1));
                faults.throttle_records(&stream, self.entries(times));
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
            Fault::FailCheckpoints { group, times } => {
                // One is stored, and its response is lost.
                faults.lose_checkpoint_responses(&group, times.min(1));
                faults.refuse_checkpoints(&group, times);
            }
            Fault::Steal { group, partition } => self.testbed.steal(&group, &partition).await,
            Fault::Trim { group, stream } => {
                self.testbed.trim(&stream).await;
                self.testbed.age(&group).await;
            }
            Fault::Restart => self.testbed.restart().await,
            fault => panic!("{fault:?} is none of the hooks"),
        }
    }
}
