//! The driver: one connection, from which everything else is opened.

use std::sync::Arc;

use async_trait::async_trait;
use millstream_core::{Error, ErrorKind, Guarantees, Result, driver};
use rdkafka::consumer::Consumer as _;

use crate::cluster::Streams;
use crate::config::Config;
use crate::connection::{Connection, LastError};
use crate::group::Checkpoints;
use crate::login::token::TokenSource;
use crate::{consumer, producer};

/// A connection to a Kafka cluster. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Kafka {
    connection: Arc<Connection>,
}

impl Kafka {
    /// Connects, as [`Config::connect`] does, and hands the driver itself back.
    ///
    /// # Errors
    /// As [`Config::connect`].
    ///
    /// # Cancellation
    /// As [`Config::connect`].
    pub async fn connect(config: Config) -> Result<Self> {
        Self::open(config, None).await
    }

    /// Connects with tokens that the program makes itself, for `mechanism = "oauthbearer"` of
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
    /// As [`Config::connect`]; `Unauthenticated` also if there is no token to be had, and `Invalid` if
    /// the settings name another mechanism.
    ///
    /// # Cancellation
    /// As [`Config::connect`].
    pub async fn connect_with(config: Config, tokens: impl TokenSource) -> Result<Self> {
        Self::open(config, Some(Arc::new(tokens))).await
    }

    async fn open(config: Config, tokens: Option<Arc<dyn TokenSource>>) -> Result<Self> {
        let connection = Connection::open(config, tokens)?;
        let timeout = connection.config.request_timeout;
        let cluster = connection
            .request_client
            .ask("connect", move |client| {
                Ok(client.client().fetch_cluster_id(timeout))
            })
            .await?;
        if cluster.is_none() {
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
        }
    }

    async fn open_producer(&self, stream: &str) -> Result<Arc<dyn driver::Producer>> {
        producer::open(&self.connection, stream).await
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
