//! Creating a stream.

use std::sync::atomic::{AtomicBool, Ordering};

use aws_sdk_kinesis::error::ProvideErrorMetadata;
use aws_sdk_kinesis::types::{self, StreamModeDetails};
use millstream_core::{Error, ErrorKind, Result, StreamSpec};

use super::state;
use crate::config::StreamMode;
use crate::connection::Connection;
use crate::stream;

const CREATE: &str = "create stream";

/// Creates a stream according to the settings, and waits until it is active.
pub(super) async fn create(connection: &Connection, spec: &StreamSpec) -> Result<()> {
    let name = &*spec.name;
    let invalid = |message| Error::new(ErrorKind::Invalid, CREATE, message).with_stream(name);
    if name.len() > stream::NAME_LONGEST {
        let (bytes, most) = (name.len(), stream::NAME_LONGEST);
        return Err(invalid(format!("a name of {bytes} bytes: use 1 to {most}")));
    }
    let shards = i32::try_from(spec.partitions).map_err(|_| {
        invalid(format!(
            "{} shards are more than Kinesis takes",
            spec.partitions
        ))
    })?;
    // So that a repeated request whose response was lost is not mistaken for another caller's.
    match stream::describe(connection, CREATE, name).await {
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(error),
        Ok(_) => return Err(already_exists(name)),
    }
    let settings = &connection.config.streams;
    let (mode, shards) = match settings.mode {
        StreamMode::Provisioned => (types::StreamMode::Provisioned, Some(shards)),
        StreamMode::OnDemand => (types::StreamMode::OnDemand, None),
    };
    let mode = StreamModeDetails::builder().stream_mode(mode).build();
    let mode = mode.map_err(|e| invalid(e.to_string()))?;
    let tags = settings.tags.clone().into_iter().collect();
    let tags = Some(tags).filter(|_| !settings.tags.is_empty());
    let unanswered = AtomicBool::new(false);
    let call = || async {
        let create = connection.kinesis.create_stream().stream_name(name);
        let create = create
            .set_shard_count(shards)
            .stream_mode_details(mode.clone())
            .set_tags(tags.clone());
        let Err(error) = create.send().await else {
            return Ok(());
        };
        if error.code() == Some("ResourceInUseException") {
            return match unanswered.load(Ordering::Relaxed) {
                true => Ok(()),
                false => Err(already_exists(name).with_source(error)),
            };
        }
        let error = connection.error(CREATE, error).with_stream(name);
        if error.is_retryable() && error.kind() != ErrorKind::Throttled {
            unanswered.store(true, Ordering::Relaxed);
        }
        Err(error)
    };
    connection.retry(CREATE, call).await?;
    state::until_active(connection, CREATE, name).await
}

fn already_exists(stream: &str) -> Error {
    let message = "there is a stream of that name";
    Error::new(ErrorKind::AlreadyExists, CREATE, message).with_stream(stream)
}
