//! The driver. It holds one connection, and opens everything else from it.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use millstream_core::{Error, ErrorKind, Guarantee, Guarantees, Result, driver};
use rdkafka::consumer::{BaseConsumer, Consumer as _};

use crate::cluster::Streams;
use crate::config::Config;
use crate::connection::context::Context;
use crate::connection::{Connection, LastError};
use crate::group::Checkpoints;
use crate::login::token::TokenSource;
use crate::{consumer, producer};

const LONGEST_GROUP_NAME: usize = 30_000;

/// A connection to a Kafka cluster. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Kafka {
    connection: Arc<Connection>,
}

impl Kafka {
    /// Connects like [`Config::connect`], and returns the driver itself.
    ///
    /// # Errors
    /// As [`Config::connect`].
    ///
    /// # Cancel safety
    /// As [`Config::connect`].
    pub async fn connect(config: Config) -> Result<Self> {
        Self::open(config, None).await
    }

    /// Connects with tokens that the program creates itself, for `mechanism = "oauthbearer"` of
    /// [`Sasl`](crate::Sasl).
    ///
    /// ```no_run
    /// use std::time::{Duration, SystemTime};
    /// use millstream_kafka::{Config, Kafka, Sasl, Tls, Token, TokenSource};
    ///
    /// #[derive(Debug)]
    /// struct Company;
    ///
    /// impl TokenSource for Company {
    ///     fn token(&self) -> Result<Token, Box<dyn std::error::Error + Send + Sync>> {
    ///         let jwt = std::fs::read_to_string("/var/run/secrets/kafka-token")?;
    ///         Ok(Token::new(jwt.trim(), SystemTime::now() + Duration::from_secs(600)))
    ///     }
    /// }
    ///
    /// # async fn connect() -> millstream_core::Result<()> {
    /// let mut config = Config::default();
    /// config.security.tls = Some(Tls::default());
    /// config.security.sasl = Some(Sasl::Oauthbearer {});
    /// let kafka = Kafka::connect_with(config, Company).await?;
    /// let client = millstream_core::Client::new(kafka);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Config::connect`]. Also `Unauthenticated` if no token can be obtained, and `Invalid` if
    /// the settings name another mechanism.
    ///
    /// # Cancel safety
    /// As [`Config::connect`].
    pub async fn connect_with(config: Config, tokens: impl TokenSource) -> Result<Self> {
        Self::open(config, Some(Arc::new(tokens))).await
    }

    async fn open(config: Config, tokens: Option<Arc<dyn TokenSource>>) -> Result<Self> {
        let connection = Connection::open(config, tokens)?;
        let timeout = connection.config.request_timeout;
        let is_reached = connection
            .request_client
            .ask("connect", move |client| Ok(is_reached(client, timeout)))
            .await?;
        if !is_reached {
            let brokers = connection.config.brokers.join(", ");
            let (kind, heard) = match connection.request_client.last_error() {
                Some(LastError { kind, reason, .. }) => (kind, format!(": {reason}")),
                None => (ErrorKind::Unavailable, String::new()),
            };
            let message = format!("no broker of {brokers} answered within {timeout:?}{heard}");
            return Err(Error::new(kind, "connect", message));
        }
        connection.on_logged_in();
        Ok(Self {
            connection: Arc::new(connection),
        })
    }
}

/// Waits until a broker has sent the cluster id to the client. Returns whether one has.
///
/// Waits in short intervals: librdkafka (2.12) checks whether it has the id, and then waits for the next change, so it
/// misses an id that arrives in between (`rd_kafka_clusterid`).
fn is_reached(client: &BaseConsumer<Context>, timeout: Duration) -> bool {
    const TURN: Duration = Duration::from_millis(20);
    let deadline = Instant::now() + timeout;
    loop {
        let turn = Instant::now() + TURN;
        if client.client().fetch_cluster_id(TURN).is_some() {
            return true;
        }
        if turn >= deadline {
            return false;
        }
        // If the broker names no cluster, the call returns early, so this sleeps for the rest of the turn.
        thread::sleep(turn.saturating_duration_since(Instant::now()));
    }
}

#[async_trait]
impl driver::Backend for Kafka {
    fn name(&self) -> &'static str {
        "kafka"
    }

    fn guarantees(&self) -> Guarantees {
        Guarantees {
            durable: true,
            exactly_once: true,
            ordered_reshard: false,
            add_partitions: true,
            key_order: true,
        }
    }

    fn check_stream_name(&self, name: &str) -> Result<(), String> {
        driver::check_stream_name(name)
    }

    /// Every stream keeps what is promised.
    async fn open_producer(
        &self,
        stream: &str,
        _required: &[Guarantee],
    ) -> Result<Arc<dyn driver::Producer>> {
        producer::open(&self.connection, stream).await
    }

    /// Checks the name of a group. Groups are shared with other clients, and Kafka accepts any text. But librdkafka
    /// uses C strings, and the names of transactions and of the auxiliary group are longer than the group's, of which
    /// Kafka stores 32,767 bytes.
    fn check_group_name(&self, name: &str) -> Result<(), String> {
        match (1..=LONGEST_GROUP_NAME).contains(&name.len()) && !name.contains('\0') {
            true => Ok(()),
            false => Err(format!(
                "use 1 to {LONGEST_GROUP_NAME} bytes without a NUL byte"
            )),
        }
    }

    fn consumer_group(&self, group: &str) -> Arc<dyn driver::ConsumerGroup> {
        Arc::new(consumer::Group::new(&self.connection, group))
    }

    fn checkpoints(&self, group: &str) -> Arc<dyn driver::Checkpoints> {
        Arc::new(Checkpoints::new(&self.connection, group))
    }

    fn streams(&self) -> Arc<dyn driver::Streams> {
        Arc::new(Streams::new(&self.connection))
    }
}

#[cfg(test)]
mod tests {
    use futures_util::future::join_all;
    use rdkafka::mocking::MockCluster;

    use super::*;

    /// Each call waits for the response with the cluster id. That response rarely arrives just before the wait.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn no_connect_misses_the_answer() {
        const ROUNDS: usize = 40;
        const AT_ONCE: usize = 32;
        let mock = MockCluster::new(1).unwrap();
        let config = Config {
            brokers: vec![mock.bootstrap_servers()],
            request_timeout: Duration::from_secs(10),
            ..Config::default()
        };
        for _ in 0..ROUNDS {
            let begun = Instant::now();
            let connects = (0..AT_ONCE).map(|_| Kafka::connect(config.clone()));
            for connected in join_all(connects).await {
                connected.unwrap();
            }
            // A call that misses the response succeeds only when its time is over.
            let took = begun.elapsed();
            assert!(took < config.request_timeout, "{took:?}");
        }
    }

    #[tokio::test]
    async fn groups_have_the_names_that_kafka_takes() {
        let mock = MockCluster::new(1).unwrap();
        let config = Config {
            brokers: vec![mock.bootstrap_servers()],
            ..Config::default()
        };
        let kafka = Kafka::connect(config).await.unwrap();
        let check = |name: &str| driver::Backend::check_group_name(&kafka, name);
        for name in ["g", "a b", "a/b", "gr\u{fc}ppe", &"g".repeat(30_000)] {
            assert_eq!(check(name), Ok(()), "{name}");
        }
        for name in ["", "a\0b", &"g".repeat(30_001)] {
            assert!(check(name).is_err(), "{name}");
        }
    }
}
