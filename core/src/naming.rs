//! Checks names before any request to a broker.

use crate::driver::Backend;
use crate::{Error, ErrorKind, Result, StreamSpec};

/// Kafka's limit.
const STREAM_LONGEST: usize = 249;
/// The limit for groups of a backend that has no rule of its own.
const GROUP_LONGEST: usize = 255;
/// More partitions are a mistake: a whole Kafka cluster should have fewer.
const MOST_PARTITIONS: usize = 100_000;

/// Checks the name of a stream that exists, by the rule of its backend.
pub(crate) fn stream(backend: &dyn Backend, operation: &'static str, name: &str) -> Result<()> {
    let checked = backend.check_stream_name(name);
    checked.map_err(|rule| invalid_name(operation, "stream", name, &rule))
}

/// Checks the name of a stream to create, which must be usable on every backend.
pub(crate) fn new_stream(operation: &'static str, name: &str) -> Result<()> {
    check_stream_name(name).map_err(|rule| invalid_name(operation, "stream", name, &rule))
}

/// Checks the name of a stream for a backend that has no rule of its own: 1 to 249 of `A-Z a-z 0-9 . _ -`, but not `.` or
/// `..`.
///
/// # Errors
/// The rule, as [`Backend::check_stream_name`] returns it.
pub fn check_stream_name(name: &str) -> Result<(), String> {
    match name {
        "." | ".." => Err(rule(STREAM_LONGEST)),
        name => check(name, STREAM_LONGEST),
    }
}

pub(crate) fn invalid_group(operation: &'static str, name: &str, rule: &str) -> Error {
    invalid_name(operation, "group", name, rule)
}

/// Checks the name of a group for a backend that has no rule of its own: 1 to 255 of `A-Z a-z 0-9 . _ -`.
///
/// # Errors
/// The rule, as [`Backend::check_group_name`] returns it.
pub fn check_group_name(name: &str) -> Result<(), String> {
    check(name, GROUP_LONGEST)
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

fn check(name: &str, longest: usize) -> Result<(), String> {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    if (1..=longest).contains(&name.len()) && name.bytes().all(is_allowed) {
        return Ok(());
    }
    Err(rule(longest))
}

fn rule(longest: usize) -> String {
    format!("use 1 to {longest} of A-Z a-z 0-9 . _ -")
}

fn invalid_name(operation: &'static str, what: &str, name: &str, rule: &str) -> Error {
    let message = format!("{what} name {name:?} cannot be used, {rule}");
    Error::new(ErrorKind::Invalid, operation, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_streams_are_plain_by_default() {
        let longest = "s".repeat(STREAM_LONGEST);
        for name in ["s", "Car-raw.events_1", &longest] {
            assert_eq!(check_stream_name(name), Ok(()), "{name}");
        }
        let too_long = "s".repeat(STREAM_LONGEST + 1);
        let arn = "arn:aws:kinesis:eu-west-1:123456789012:stream/s";
        for name in ["", ".", "..", "a b", "a/b", arn, &too_long] {
            assert!(check_stream_name(name).is_err(), "{name}");
        }
    }

    #[test]
    fn names_of_groups_are_plain_by_default() {
        let longest = "g".repeat(GROUP_LONGEST);
        for name in ["g", "Team-a.analytics_2", &longest] {
            assert_eq!(check_group_name(name), Ok(()), "{name}");
        }
        let too_long = "g".repeat(GROUP_LONGEST + 1);
        for name in ["", "a b", "a/b", "gr\u{fc}ppe", &too_long] {
            assert!(check_group_name(name).is_err(), "{name}");
        }
    }
}
