#![doc = include_str!("../README.md")]

#[doc(hidden)]
#[macro_use]
pub mod failpoint;

mod admin;
mod checkpoint;
mod client;
mod consumer;
pub mod driver;
mod error;
mod guarantee;
mod headers;
mod naming;
mod partition;
mod position;
mod producer;
mod record;
mod start;
mod sync;
#[doc(hidden)]
pub mod telemetry;

pub use admin::{PartitionDescription, StreamDescription, StreamSpec, Streams};
pub use checkpoint::{Checkpoint, Epoch, Lag};
pub use client::Client;
pub use consumer::{
    Batch, BatchFailure, Consumer, ConsumerGroup, ConsumerHandle, ConsumerStats, DeadLetter,
    Delivery, Failure, FailureKind, OldestUnsettled, OnDataLoss, OnExhausted, PartitionStats,
    PendingDelivery, Retry, RunFuture,
};
pub use error::{Error, ErrorKind, Result};
pub use guarantee::{Guarantee, Guarantees};
pub use headers::Headers;
pub use partition::Partition;
pub use position::Position;
pub use producer::{Producer, ProducerBuilder, ProducerStats, Receipt, RecordMetadata};
pub use record::{IntoKey, Record};
pub use start::Start;
