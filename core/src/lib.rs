#![doc = include_str!("../README.md")]

mod batch_failure;
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

pub use batch_failure::BatchFailure;
pub use checkpoint::{Checkpoint, Epoch, Lag};
pub use client::Client;
pub use delivery::Delivery;
pub use error::{Error, ErrorKind, Result};
pub use group::{Consumer, ConsumerGroup, Control, Run, Unsettled};
pub use guarantee::{Guarantee, Guarantees};
pub use headers::Headers;
pub use partition::Partition;
pub use position::Position;
pub use producer::{Placed, Producer, ProducerBuilder, ProducerStats, Receipt};
pub use record::Record;
pub use retry::{DeadLetter, Exhausted, Retry};
pub use runtime::options::OnTrim;
pub use runtime::stats::{ConsumerStats, PartitionStats};
pub use start::Start;
pub use streams::{PartitionDescription, StreamDescription, StreamSpec, Streams};
