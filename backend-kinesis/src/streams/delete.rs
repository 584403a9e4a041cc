//! Deleting a stream.

use std::sync::atomic::{AtomicBool, Ordering};

use millstream_core::{ErrorKind, Result};

use super::state;
use crate::connection::Connection;
use crate::stream::address;

const DELETE: &str = "delete stream";

/// Deletes a stream with its records and consumers, and waits until it is gone.
pub(super) async fn delete(connection: &Connection, stream: &str) -> Result<()> {
    let unanswered = AtomicBool::new(false);
    let call = || async {
        let (name, arn) = address(stream);
        let delete = connection.kinesis.delete_stream();
        let delete = delete.set_stream_name(name).set_stream_arn(arn);
        // Otherwise a consumer of enhanced fan-out keeps the stream.
        let delete = delete.enforce_consumer_deletion(true);
        let Err(error) = delete.send().await else {
            return Ok(());
        };
        let error = connection.error(DELETE, error).with_stream(stream);
        match error.kind() {
            ErrorKind::NotFound if unanswered.load(Ordering::Relaxed) => return Ok(()),
            ErrorKind::Timeout | ErrorKind::Unavailable => {
                unanswered.store(true, Ordering::Relaxed);
            }
            _ => {}
        }
        Err(error)
    };
    connection.retry(DELETE, call).await?;
    state::until_gone(connection, DELETE, stream).await
}
