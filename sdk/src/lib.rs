#![doc = include_str!("../README.md")]

mod checkpoint;
mod client;
mod delivery;
pub mod driver;
mod error;
mod group;
mod guarantee;
mod headers;
mod lock;
mod naming;
mod partition;
#[doc(hidden)]
pub mod planted;
mod position;
mod producer;
mod record;
mod retry;
mod runtime;
mod start;
mod streams;
mod telemetry;

pub use checkpoint::{Checkpoint, Epoch, Lag};
pub use client::Client;
pub use delivery::Delivery;
pub use error::{Error, ErrorKind, Result};
pub use group::{
    BatchFailure, Consumer, ConsumerGroup, ConsumerStats, Control, OnTrim, PartitionStats, Run,
    Unsettled,
};
pub use guarantee::{Guarantee, Guarantees};
pub use headers::Headers;
pub use partition::Partition;
pub use position::Position;
pub use producer::{Placed, Producer, ProducerBuilder, ProducerStats, Receipt};
pub use record::Record;
pub use retry::{DeadLetter, Exhausted, Retry};
pub use start::Start;
pub use streams::{PartitionDescription, StreamDescription, StreamSpec, Streams};
