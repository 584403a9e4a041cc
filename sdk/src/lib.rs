//! A streaming SDK: one producer, one consumer group and one checkpoint abstraction with per-key
//! order, over Apache Kafka, Amazon Kinesis and memory.
//!
//! This is the crate that applications import. It re-exports the core ([`millstream_core`]), has a
//! module for each backend, and reads the choice of the backend from a file or the environment.
//!
//! ```
//! use millstream::{Delivery, Record, Settings, StreamSpec};
//!
//! async fn handle(delivery: Delivery) -> Result<(), std::io::Error> {
//!     println!("{}: {:?}", delivery.position(), delivery.payload());
//!     Ok(()) // settled; an error would be retried, and later records of the key would wait
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> millstream::Result<()> {
//! // Memory, unless MILLSTREAM_BACKEND says otherwise.
//! let client = Settings::from_env("MILLSTREAM")?.connect().await?;
//! client.streams().create(StreamSpec::new("car-raw-events").partitions(8)).await?;
//!
//! let producer = client.producer("car-raw-events").open().await?;
//! let receipt = producer.send(Record::new("50").key("car-123")).await?; // waits for room
//! receipt.await?; // acknowledged by the broker
//! producer.close().await?;
//!
//! let group = client.group("notifications").stream("car-raw-events");
//! # let shutdown = std::future::ready(());
//! # group.run(handle, shutdown).await?;
//! # if false {
//! group.run(handle, millstream::shutdown_signal()).await?;
//! # }
//! # Ok(())
//! # }
//! ```
//!
//! # Overview
//!
//! | I want to | use |
//! |---|---|
//! | choose the backend by a file or the environment | [`Settings`] |
//! | choose it in code | [`memory::Config`], `kafka::Config`, `kinesis::Config` |
//! | use my own backend | [`driver`], [`Client::new`] |
//! | create a stream, add partitions, reshard | [`Streams`], [`StreamSpec`] |
//! | send a record, and know that it is stored | [`Producer::send`], [`Receipt`] |
//! | handle each record with a function | [`ConsumerGroup::run`] |
//! | handle many records at a time | [`ConsumerGroup::run_batches`] |
//! | consume, transform and publish | [`ConsumerGroup::transform_to`] |
//! | pull records in my own loop | [`ConsumerGroup::join`], [`Consumer::next`] |
//! | choose what happens when a handler fails | [`Retry`], [`DeadLetter`], [`ConsumerGroup::on_failure`] |
//! | choose where a new group starts | [`Start`], [`ConsumerGroup::start`] |
//! | see how far a group is behind | [`ConsumerGroup::checkpoints`], [`Lag`] |
//! | move a group back and replay | [`ConsumerGroup::reset`] |
//! | monitor, pause or stop a running consumer | [`ConsumerHandle`] |
//! | stop at SIGTERM and Ctrl-C | [`shutdown_signal`] |
//! | store results and progress atomically | [`ConsumerGroup::transform_to`], [`Delivery::epoch`], [`ConsumerGroup::require`] |
//! | act on an error | [`ErrorKind`], [`Error::kind`] |
//! | test without a broker | [`memory`], with tokio's paused clock |
//!
//! The modules [`producer`], [`consumer`] and [`admin`] group the names by their use. Every name is
//! also at the root: `millstream::Record`.
//!
//! # Cargo features
//!
//! | feature | adds | needs |
//! |---|---|---|
//! | none | memory | Rust 1.85 |
//! | `kafka` | Apache Kafka and Amazon MSK | a C and a C++ compiler, and make |
//! | `kafka-tls` | TLS, SCRAM and OAUTHBEARER | perl |
//! | `msk-iam` | IAM authentication at Amazon MSK | Rust 1.94 |
//! | `kinesis` | Amazon Kinesis Data Streams | Rust 1.94, and a C compiler |
//!
//! Features only add. What each backend promises is in the [core's documentation](millstream_core).

// Not `millstream_core::*`: its hidden parts are for backends.
#[doc(no_inline)]
pub use {admin::*, consumer::*, producer::*};

#[doc(inline)]
pub use millstream_core::{Client, Delivery, Error, ErrorKind, Record, Result, driver};

mod settings;
mod shutdown;

/// Runs the program of the README as a doc test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}

pub use settings::{Settings, SettingsBuilder};
pub use shutdown::{ShutdownSignal, shutdown_signal};

/// Sending records, and their receipts.
pub mod producer {
    #[doc(inline)]
    pub use millstream_core::{
        Headers, IntoKey, Producer, ProducerBuilder, ProducerStats, Receipt, Record, RecordMetadata,
    };
}

/// Consuming records: groups, deliveries, failure policies and checkpoints.
pub mod consumer {
    #[doc(inline)]
    pub use millstream_core::{
        Batch, BatchFailure, Checkpoint, Consumer, ConsumerGroup, ConsumerHandle, ConsumerStats,
        DeadLetter, Delivery, Epoch, Failure, FailureKind, Lag, OldestUnsettled, OnDataLoss,
        OnExhausted, PartitionStats, PendingDelivery, Position, Retry, RunFuture, Start,
    };
}

/// Administration: streams and their partitions, and what a backend guarantees.
pub mod admin {
    #[doc(inline)]
    pub use millstream_core::{
        Guarantee, Guarantees, Partition, PartitionDescription, StreamDescription, StreamSpec,
        Streams,
    };
}

/// The memory backend: partitions, groups, rebalances and faults in one process. Always included.
pub use millstream_memory as memory;

/// The Kafka backend: Apache Kafka and Amazon MSK. Feature `kafka`.
#[cfg(feature = "kafka")]
pub use millstream_kafka as kafka;

/// The Kinesis backend: Amazon Kinesis Data Streams. Feature `kinesis`.
#[cfg(feature = "kinesis")]
pub use millstream_kinesis as kinesis;
