//! Waits until Kinesis has done what it has accepted: polls less and less often.

use std::time::Duration;

use aws_sdk_kinesis::types::StreamStatus;
use backon::{BackoffBuilder, ExponentialBuilder};
use millstream_core::{ErrorKind, Result};
use tokio::time::sleep;

use crate::connection::Connection;
use crate::stream;

/// The maximum time between two polls.
const LONGEST: Duration = Duration::from_secs(1);

/// Waits until the stream is active.
pub(super) async fn until_active(
    connection: &Connection,
    operation: &'static str,
    stream: &str,
) -> Result<()> {
    let check = || async {
        match stream::describe(connection, operation, stream).await {
            Ok(info) => Ok(info.status == StreamStatus::Active),
            // The request is accepted, but not yet known to all of Kinesis.
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    };
    until(check).await
}

/// Waits until there is no stream of that name.
pub(super) async fn until_gone(
    connection: &Connection,
    operation: &'static str,
    stream: &str,
) -> Result<()> {
    let check = || async {
        match stream::describe(connection, operation, stream).await {
            Ok(_) => Ok(false),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(true),
            Err(error) => Err(error),
        }
    };
    until(check).await
}

/// Polls until the condition holds.
pub(super) async fn until<F>(mut check: impl FnMut() -> F) -> Result<()>
where
    F: Future<Output = Result<bool>>,
{
    // The change takes some milliseconds on an emulator, and half a minute on AWS, which
    // allows 20 such requests per second for a whole account.
    let mut pauses = ExponentialBuilder::new()
        .with_min_delay(Duration::from_millis(20))
        .with_max_delay(LONGEST)
        .with_factor(1.5)
        .without_max_times()
        .with_jitter()
        .build();
    while !check().await? {
        sleep(pauses.next().unwrap_or(LONGEST)).await;
    }
    Ok(())
}
