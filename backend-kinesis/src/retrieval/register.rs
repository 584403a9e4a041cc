//! Registers a consumer for enhanced fan-out.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_kinesis::error::ProvideErrorMetadata;
use aws_sdk_kinesis::types::ConsumerStatus;
use millstream_core::{Error, ErrorKind, Result};
use tokio::time::{Instant, sleep};

use super::RetrievalMode;
use super::stream_consumer::{Attempts, Registrar, StreamConsumer};
use crate::connection::Connection;

const JOIN: &str = "join";

/// The time between two polls of a consumer that is being created. DescribeStreamConsumer is limited to 20 calls
/// per second for all that register with the stream.
const BETWEEN: Duration = Duration::from_millis(500);

/// Registers `name` as a consumer of the stream, if it is not yet one, and waits until it may subscribe.
/// If that is refused and `fan_out_fallback` is set, its readers poll until it is not.
pub(crate) async fn register(
    connection: &Arc<Connection>,
    stream: &str,
    arn: &str,
    name: &str,
) -> Result<RetrievalMode> {
    let registration = Registration {
        connection: connection.clone(),
        stream: stream.to_owned(),
        arn: arn.to_owned(),
        name: name.to_owned(),
    };
    let fallback = connection.config.consumer.fan_out_fallback;
    let consumer = StreamConsumer::register(stream, name, fallback, registration).await?;
    Ok(RetrievalMode::FanOut(Arc::new(consumer)))
}

#[derive(Debug)]
struct Registration {
    connection: Arc<Connection>,
    stream: String,
    arn: String,
    name: String,
}

#[async_trait]
impl Registrar for Registration {
    async fn register(&self, attempts: Attempts) -> Result<Arc<str>> {
        let within = self.connection.config.request_timeout;
        let deadline = Instant::now() + within;
        while Instant::now() < deadline {
            match self.look(attempts).await? {
                Some((consumer, ConsumerStatus::Active)) => return Ok(consumer),
                Some(_) => sleep(BETWEEN).await,
                None => self.ask_for(attempts).await?,
            }
        }
        let message = format!(
            "consumer {} of stream {} is not active after {within:?}: it may be later",
            self.name, self.stream
        );
        Err(Error::new(ErrorKind::Timeout, JOIN, message))
    }
}

impl Registration {
    async fn look(&self, attempts: Attempts) -> Result<Option<(Arc<str>, ConsumerStatus)>> {
        let call = || async {
            let ask = self.connection.kinesis.describe_stream_consumer();
            let ask = ask.stream_arn(&self.arn).consumer_name(&self.name);
            ask.send().await.map_err(|e| self.connection.error(JOIN, e))
        };
        let answer = match self.ask(attempts, call).await {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            answer => answer?,
        };
        let found = answer.consumer_description;
        Ok(found.map(|found| (found.consumer_arn.into(), found.consumer_status)))
    }

    async fn ask_for(&self, attempts: Attempts) -> Result<()> {
        let call = || async {
            let ask = self.connection.kinesis.register_stream_consumer();
            let ask = ask.stream_arn(&self.arn).consumer_name(&self.name);
            match ask.send().await {
                Ok(_) => Ok(()),
                // Another member was faster.
                Err(error) if error.code() == Some("ResourceInUseException") => Ok(()),
                Err(error) => Err(self.connection.error(JOIN, error)),
            }
        };
        self.ask(attempts, call).await
    }

    async fn ask<T, F>(&self, attempts: Attempts, mut call: impl FnMut() -> F) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        match attempts {
            Attempts::Many => self.connection.retry(JOIN, call).await,
            Attempts::One => call().await,
        }
    }
}
