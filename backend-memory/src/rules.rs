//! The limits of a stream: the configured ones, or those of the imitated broker.

use bytes::Bytes;
use millstream_core::driver::StreamLimits;
use millstream_core::{Guarantees, Record};

use crate::config::{Config, Imitation};
use crate::error::BrokerError;

mod kafka;
mod kinesis;

/// The limits of the broker, resolved from its settings.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StreamRules {
    like: Option<Imitation>,
    record_bytes: usize,
    key_bytes: usize,
}

impl StreamRules {
    pub(crate) fn new(config: &Config) -> Self {
        let (record_bytes, key_bytes) = match config.like {
            None => (1 << 20, 256),
            Some(Imitation::Kafka) => {
                let record = config.limits.record_bytes.unwrap_or(kafka::RECORD_BYTES);
                (kafka::RECORD_BYTES, record)
            }
            Some(Imitation::Kinesis) => (kinesis::RECORD_BYTES, kinesis::KEY_BYTES),
        };
        Self {
            like: config.like,
            record_bytes: config.limits.record_bytes.unwrap_or(record_bytes),
            key_bytes: config.limits.key_bytes.unwrap_or(key_bytes),
        }
    }

    /// Returns the limits that the runtime checks, and those for its batches.
    pub(crate) fn limits(&self) -> StreamLimits {
        let (batch_records, batch_bytes) = match self.like {
            None => (10_000, 16 << 20),
            Some(Imitation::Kafka) => (1_000, 1 << 20),
            Some(Imitation::Kinesis) => (100, 5 << 20),
        };
        let is_kinesis = self.like == Some(Imitation::Kinesis);
        StreamLimits {
            record_bytes: self.record_bytes,
            key_bytes: self.key_bytes,
            key_chars: is_kinesis.then_some(kinesis::KEY_CHARS),
            empty_key: !is_kinesis,
            text_key: is_kinesis,
            batch_records,
            batch_bytes,
        }
    }

    pub(crate) fn guarantees(&self, durable: bool) -> Guarantees {
        Guarantees {
            durable,
            exactly_once: self.like != Some(Imitation::Kinesis),
            ordered_reshard: self.like != Some(Imitation::Kafka),
            add_partitions: self.like != Some(Imitation::Kinesis),
            key_order: true,
        }
    }

    /// Checks a record of [`size`](Record::size) bytes.
    #[inline]
    pub(crate) fn check(&self, record: &Record, size: usize) -> Result<(), BrokerError> {
        let key = record.key.as_ref().map_or(0, Bytes::len);
        if key > self.key_bytes {
            return Err(BrokerError::KeyTooLong {
                size: key,
                limit: self.key_bytes,
            });
        }
        let size = match self.like {
            None => size,
            Some(Imitation::Kafka) => {
                kafka::check(record)?;
                kafka::size(record)
            }
            Some(Imitation::Kinesis) => {
                kinesis::check(record)?;
                kinesis::size(record)
            }
        };
        if size > self.record_bytes {
            return Err(BrokerError::RecordTooLarge {
                size,
                limit: self.record_bytes,
            });
        }
        Ok(())
    }

    /// Checks the name of a new stream. The core rejects names that no backend accepts.
    pub(crate) fn check_stream_name(&self, name: &str) -> Result<(), BrokerError> {
        match self.like {
            Some(Imitation::Kinesis) if name.len() > kinesis::STREAM_NAME_BYTES => {
                let (length, limit) = (name.len(), kinesis::STREAM_NAME_BYTES);
                let reason = format!("the name has {length} bytes, use 1 to {limit}");
                Err(BrokerError::NotAccepted(reason.into()))
            }
            _ => Ok(()),
        }
    }

    pub(crate) fn check_split_and_merge(&self) -> Result<(), BrokerError> {
        match self.like {
            Some(Imitation::Kafka) => Err(BrokerError::Unsupported(
                "Kafka cannot split or merge partitions, add some instead",
            )),
            _ => Ok(()),
        }
    }

    pub(crate) fn check_add_partitions(&self) -> Result<(), BrokerError> {
        match self.like {
            Some(Imitation::Kinesis) => Err(BrokerError::Unsupported(
                "Kinesis cannot add partitions, split some instead",
            )),
            _ => Ok(()),
        }
    }

    pub(crate) fn check_publish(&self) -> Result<(), BrokerError> {
        match self.like {
            Some(Imitation::Kinesis) => Err(BrokerError::Unsupported(
                "Kinesis cannot store records and progress in one step",
            )),
            _ => Ok(()),
        }
    }
}
