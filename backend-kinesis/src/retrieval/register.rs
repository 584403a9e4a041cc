//! Registers a consumer for enhanced fan-out.

use std::sync::Arc;
use std::time::Duration;

use aws_sdk_kinesis::error::ProvideErrorMetadata;
use aws_sdk_kinesis::types::ConsumerStatus;
use millstream_core::telemetry::{Causes, event};
use millstream_core::{Error, ErrorKind, Result};
use tokio::time::{Instant, sleep};

use super::Way;
use crate::connection::Connection;

const JOIN: &str = "join";

/// The time between two polls of a consumer that is being created. DescribeStreamConsumer is limited to 20 calls
/// per second for all that register with the stream.
const BETWEEN: Duration = Duration::from_millis(500);

/// Registers `name` as a consumer of the stream, if it is not yet one, and waits until it may subscribe.
/// If that is rejected and `fan_out_fallback` is set, returns polling.
pub(crate) async fn register(
    connection: &Connection,
    stream: &str,
    arn: &str,
    name: &str,
) -> Result<Way> {
    let registration = Registration {
        connection,
        stream,
        arn,
        name,
    };
    match registration.make().await {
        Ok(consumer) => Ok(Way::FanOut(consumer)),
        Err(error)
            if connection.config.consumer.fan_out_fallback
                && matches!(error.kind(), ErrorKind::Denied | ErrorKind::Throttled) =>
        {
            event!(
                warn, "millstream.kinesis.fan_out.refused",
                stream, consumer = name, error = %Causes(&error),
                "enhanced fan-out is refused, and the stream is polled instead"
            );
            Ok(Way::Polling)
        }
        Err(error) => Err(error.with_stream(stream)),
    }
}

struct Registration<'a> {
    connection: &'a Connection,
    stream: &'a str,
    arn: &'a str,
    name: &'a str,
}

impl Registration<'_> {
    async fn make(&self) -> Result<Arc<str>> {
        let within = self.connection.config.request_timeout;
        let deadline = Instant::now() + within;
        while Instant::now() < deadline {
            match self.look().await? {
                Some((consumer, ConsumerStatus::Active)) => return Ok(consumer),
                Some(_) => sleep(BETWEEN).await,
                None => self.ask_for().await?,
            }
        }
        let message = format!(
            "consumer {} of stream {} is not active after {within:?}: it may be later",
            self.name, self.stream
        );
        Err(Error::new(ErrorKind::Timeout, JOIN, message))
    }

    async fn look(&self) -> Result<Option<(Arc<str>, ConsumerStatus)>> {
        let call = || async {
            let ask = self.connection.kinesis.describe_stream_consumer();
            let ask = ask.stream_arn(self.arn).consumer_name(self.name);
            ask.send().await.map_err(|e| self.connection.error(JOIN, e))
        };
        let answer = match self.connection.ask(JOIN, call).await {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            answer => answer?,
        };
        let found = answer.consumer_description;
        Ok(found.map(|found| (found.consumer_arn.into(), found.consumer_status)))
    }

    async fn ask_for(&self) -> Result<()> {
        let call = || async {
            let ask = self.connection.kinesis.register_stream_consumer();
            let ask = ask.stream_arn(self.arn).consumer_name(self.name);
            match ask.send().await {
                Ok(_) => Ok(()),
                // Another member was faster.
                Err(error) if error.code() == Some("ResourceInUseException") => Ok(()),
                Err(error) => Err(self.connection.error(JOIN, error)),
            }
        };
        self.connection.ask(JOIN, call).await
    }
}
