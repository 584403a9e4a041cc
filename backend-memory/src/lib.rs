//! The memory backend of millstream: a broker in the process.
//!
//! Partitions, keys, groups, epochs, rebalances, reshards, retention and limits behave as on a real
//! broker, so that tests of an application are meaningful. It is not a channel with the same
//! interface.
//!
//! ```
//! use millstream_core::StreamSpec;
//! use millstream_memory::{Config, Memory};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> millstream_core::Result<()> {
//! let memory = Memory::new(Config::default())?;
//! let client = memory.client();
//! client.streams().create(StreamSpec::new("car-raw-events").partitions(8)).await?;
//! assert_eq!(client.streams().describe("car-raw-events").await?.partitions.len(), 8);
//! # Ok(())
//! # }
//! ```
//!
//! * **Time** is tokio's. Under `tokio::time::pause`, session timeouts, drains and retention take no
//!   real time, and runs on a single-threaded runtime are reproducible. No task runs in the
//!   background.
//! * **Faults** ([`Memory::faults`], [`FaultScript`]) fail, delay and throttle sends, lose
//!   checkpoints, crash and pause members, and revoke partitions from their owners.
//! * **Limits** can be those of Kafka or Kinesis ([`Config::like`]): a test on memory then rejects
//!   what the broker in production rejects. [`Imitation`] lists what is imitated.
//! * **Sharing**: settings with a [name](Config::name) connect to one broker within the process.
//! * **Persistence** is optional ([`Config::persist`]): one file, locked by its broker. An incomplete write,
//!   which was never acknowledged, is removed with a warning when the file is opened. A file
//!   that is damaged anywhere else is `Corrupt`.
//! * **Lag** arrives with records, and once a second for partitions that are paused.
//!
//! | like a broker | not like a broker |
//! |---|---|
//! | Keys are hashed as by Kafka's default partitioner | no network, and no latency unless a fault delays sends |
//! | Members of a group share partitions, drain on a rebalance and are fenced by epochs | rebalances are sticky and take no time of their own |
//! | Splits and merges keep the order of keys; added partitions move keys, as on Kafka | reshards take no time |
//! | Records and progress are stored in one step (exactly-once) | no transaction coordinator that can be unavailable |
//! | Retention, rate limits, session timeouts | one copy, in the memory of this process |

mod broker;
mod checkpoints;
mod clock;
mod config;
mod coordinator;
mod error;
mod faults;
mod ids;
mod journal;
mod log;
mod membership;
mod memory;
mod named;
mod producer;
mod publish;
mod rate_limit;
mod routing;
mod rules;
mod stream;
mod streams;

pub use config::{Config, Imitation, Limits, Retention};
pub use faults::{FaultScript, Faults, Target};
pub use memory::Memory;
