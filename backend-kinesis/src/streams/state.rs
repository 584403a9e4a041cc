//! Waiting for Kinesis to do what it has agreed to do: looking again, ever less often.

use std::time::Duration;

use aws_sdk_kinesis::types::StreamStatus;
use backon::{BackoffBuilder, ExponentialBuilder};
use millstream::{Error, ErrorKind, Result};
use tokio::time::{Instant, sleep};

use crate::connection::Connection;
use crate::stream;

/// Waits until the stream can be used.
pub(super) async fn until_active(
    connection: &Connection,
    operation: &'static str,
    stream: &str,
) -> Result<()> {
    let look = || async {
        match stream::describe(connection, operation, stream).await {
            Ok(info) => Ok(info.status == StreamStatus::Active),
            // It is agreed, and not yet known to all of Kinesis.
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    };
    until(connection, operation, "it is not active", look)
        .await
        .map_err(|e| e.with_stream(stream))
}

/// Waits until there is no stream of that name.
pub(super) async fn until_gone(
    connection: &Connection,
    operation: &'static str,
    stream: &str,
) -> Result<()> {
    let look = || async {
        match stream::describe(connection, operation, stream).await {
            Ok(_) => Ok(false),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(true),
            Err(error) => Err(error),
        }
    };
    until(connection, operation, "it is still there", look)
        .await
        .map_err(|e| e.with_stream(stream))
}

/// Looks until it is so, for `request_timeout` at most.
pub(super) async fn until<F>(
    connection: &Connection,
    operation: &'static str,
    otherwise: &str,
    mut look: impl FnMut() -> F,
) -> Result<()>
where
    F: Future<Output = Result<bool>>,
{
    let within = connection.config.request_timeout;
    let deadline = Instant::now() + within;
    // What is waited for takes some milliseconds on an emulator, and half a minute on AWS, which
    // answers 20 such questions a second for all of an account.
    let pauses = ExponentialBuilder::new()
        .with_min_delay(Duration::from_millis(20))
        .with_max_delay(Duration::from_secs(1))
        .with_factor(1.5)
        .without_max_times()
        .with_jitter();
    for pause in pauses.build() {
        if look().await? {
            return Ok(());
        }
        if Instant::now() + pause >= deadline {
            break;
        }
        sleep(pause).await;
    }
    let message = format!("{otherwise} after {within:?}: it may be later");
    Err(Error::new(ErrorKind::Timeout, operation, message))
}
