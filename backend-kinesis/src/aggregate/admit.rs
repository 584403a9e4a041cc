//! Records that a producer rejects, in addition to those beyond the limits of the stream.

use millstream_core::{Error, ErrorKind, Record, Result};

use super::frame::is_aggregate;
use super::{keys, tags};
use crate::config::{Aggregation, HeaderPolicy, Producer};

/// Rejects with `Invalid` a record that would not reach a reader unchanged, and, with `headers = "refuse"`,
/// one that a bare record cannot represent.
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
        let message = "the record has headers, which producer.headers = \"refuse\" excludes; \
                       set producer.headers = \"envelope\"";
        return refuse(message);
    }
    if record.timestamp.is_some() {
        return refuse("the record has a timestamp, which producer.headers = \"refuse\" excludes");
    }
    let Some(payload) = &record.payload else {
        return refuse("the record is a tombstone, which producer.headers = \"refuse\" excludes");
    };
    if is_aggregate(payload) {
        let message = "the payload is an aggregate of the KPL, which readers would open; \
                       set producer.headers = \"envelope\"";
        return refuse(message);
    }
    Ok(())
}

fn refuse(message: &'static str) -> Result<()> {
    Err(Error::new(ErrorKind::Invalid, "send", message))
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;
    use crate::aggregate::Entry;

    fn config(aggregation: Aggregation, headers: HeaderPolicy) -> Producer {
        Producer {
            aggregation,
            headers,
            ..Producer::default()
        }
    }

    #[track_caller]
    fn assert_invalid(result: Result<()>) {
        assert_eq!(result.unwrap_err().kind(), ErrorKind::Invalid);
    }

    #[test]
    fn names_of_our_own_are_refused_everywhere() {
        for aggregation in [Aggregation::Off, Aggregation::Kpl] {
            let config = config(aggregation, HeaderPolicy::Envelope);
            let record = Record::new("payload");
            assert_invalid(admit(&record.clone().key("millstream:-:1"), &config));
            assert_invalid(admit(&record.clone().header("\0timestamp", "1"), &config));
            let second = record.clone().header("a", "b").header("\0", "1");
            assert_invalid(admit(&second, &config));
            let good = record.key("millstream").header("name\0", "value");
            admit(&good.timestamp(UNIX_EPOCH), &config).unwrap();
        }
    }

    #[test]
    fn what_needs_an_aggregate_is_refused_on_request() {
        let record = Record::new("payload");
        let headers = record.clone().header("name", "value");
        let refused = admit(&headers, &config(Aggregation::Off, HeaderPolicy::Refuse));
        let message = refused.unwrap_err().message().to_owned();
        assert!(
            message.contains("set producer.headers = \"envelope\""),
            "a group with dead letters says this at its join: {message}"
        );
        let aggregate = Entry::of(&"key".into(), &headers).data;
        let wide = [
            headers,
            record.clone().timestamp(UNIX_EPOCH),
            Record::tombstone("key"),
            Record::new(aggregate),
        ];
        let refuse = config(Aggregation::Off, HeaderPolicy::Refuse);
        admit(&record.key("key"), &refuse).unwrap();
        for record in wide {
            assert_invalid(admit(&record, &refuse));
            for config in [
                config(Aggregation::Off, HeaderPolicy::Envelope),
                // If all records are in aggregates anyway, nothing is rejected.
                config(Aggregation::Kpl, HeaderPolicy::Refuse),
            ] {
                admit(&record, &config).unwrap();
            }
        }
    }
}
