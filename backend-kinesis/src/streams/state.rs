//! Waiting for Kinesis to do what it has agreed to do: looking again, ever less often.

use std::time::Duration;

use aws_sdk_kinesis::types::StreamStatus;
use backon::{BackoffBuilder, ExponentialBuilder};
use millstream_core::{ErrorKind, Result};
use tokio::time::sleep;

use crate::connection::Connection;
use crate::stream;

/// The longest time between two looks.
const LONGEST: Duration = Duration::from_secs(1);

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
    until(look).await
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
    until(look).await
}

/// Looks until it is so.
pub(super) async fn until<F>(mut look: impl FnMut() -> F) -> Result<()>
where
    F: Future<Output = Result<bool>>,
{
    // What is waited for takes some milliseconds on an emulator, and half a minute on AWS, which
    // answers 20 such questions a second for all of an account.
    let mut pauses = ExponentialBuilder::new()
        .with_min_delay(Duration::from_millis(20))
        .with_max_delay(LONGEST)
        .with_factor(1.5)
        .without_max_times()
        .with_jitter()
        .build();
    while !look().await? {
        sleep(pauses.next().unwrap_or(LONGEST)).await;
    }
    Ok(())
}
