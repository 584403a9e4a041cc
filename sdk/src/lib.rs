//! A streaming SDK: one producer, one consumer group and one checkpoint abstraction with per-key
//! order, over Apache Kafka, Amazon Kinesis and memory.
//!
//! This is the crate that applications import. It re-exports the core ([`millstream_core`]) and a
//! module for each backend.

pub use millstream_core::*;

/// The embedded backend: partitions, groups, rebalances and faults in one process.
pub use millstream_memory as memory;

/// Apache Kafka and Amazon MSK.
#[cfg(feature = "kafka")]
pub use millstream_kafka as kafka;

/// Amazon Kinesis Data Streams.
#[cfg(feature = "kinesis")]
pub use millstream_kinesis as kinesis;
