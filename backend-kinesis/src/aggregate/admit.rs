//! What a producer does not take, beside what the limits of the stream say.

use millstream::{Error, ErrorKind, Record, Result};

use super::frame::is_carrier;
use super::{keys, tags};
use crate::config::{Aggregation, HeaderPolicy, Producer};

/// Refuses with `Invalid` what would not reach a reader as it is, and, with `headers = "refuse"`,
/// what a bare record cannot carry.
pub(crate) fn admit(record: &Record, config: &Producer) -> Result<()> {
    if record.key.as_deref().is_some_and(keys::is_keyless) {
        return refuse("keys that begin with millstream:-: stand for records without one");
    }
    let mut names = record.headers.iter().map(|(name, _)| name.as_bytes());
    if names.any(|name| name.first() == Some(&tags::RESERVED)) {
        return refuse("header names that begin with U+0000 are reserved");
    }
    if config.aggregation == Aggregation::Off && config.headers == HeaderPolicy::Refuse {
        return admit_bare(record);
    }
    Ok(())
}

fn admit_bare(record: &Record) -> Result<()> {
    if !record.headers.is_empty() {
        return refuse("the record has headers, which producer.headers = \"refuse\" excludes");
    }
    if record.timestamp.is_some() {
        return refuse("the record has a timestamp, which producer.headers = \"refuse\" excludes");
    }
    if is_carrier(&record.payload) {
        let message = "the payload is an aggregate of the KPL, which readers would open; \
                       set producer.headers = \"envelope\"";
        return refuse(message);
    }
    Ok(())
}

fn refuse(message: &'static str) -> Result<()> {
    Err(Error::new(ErrorKind::Invalid, "send", message))
}
