//! Checks of names, before any request to a broker.

use crate::{Error, ErrorKind, Result, StreamSpec};

/// Kafka's limit. The Kinesis driver checks its own, 128.
const STREAM_LONGEST: usize = 249;
const GROUP_LONGEST: usize = 255;
/// More partitions are a mistake: a whole Kafka cluster is advised to have fewer.
const MOST_PARTITIONS: usize = 100_000;

pub(crate) fn stream(operation: &'static str, name: &str) -> Result<()> {
    if name == "." || name == ".." {
        return Err(invalid_name(operation, "stream", name, STREAM_LONGEST));
    }
    check(operation, "stream", name, STREAM_LONGEST)
}

pub(crate) fn group(operation: &'static str, name: &str) -> Result<()> {
    check(operation, "group", name, GROUP_LONGEST)
}

pub(crate) fn partitions(spec: &StreamSpec) -> Result<()> {
    if (1..=MOST_PARTITIONS).contains(&spec.partitions) {
        return Ok(());
    }
    let message = format!(
        "{} partitions requested, use 1 to {MOST_PARTITIONS}",
        spec.partitions
    );
    Err(Error::new(ErrorKind::Invalid, "create stream", message).with_stream(&*spec.name))
}

fn check(operation: &'static str, what: &str, name: &str, longest: usize) -> Result<()> {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    if (1..=longest).contains(&name.len()) && name.bytes().all(is_allowed) {
        return Ok(());
    }
    Err(invalid_name(operation, what, name, longest))
}

fn invalid_name(operation: &'static str, what: &str, name: &str, longest: usize) -> Error {
    let message =
        format!("{what} name {name:?} cannot be used, use 1 to {longest} of A-Z a-z 0-9 . _ -");
    Error::new(ErrorKind::Invalid, operation, message)
}
