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
//!   checkpoints, crash and pause members, and steal partitions.
//! * **Persistence** is optional ([`Config::persist`]).

mod broker;
mod checkpoints;
mod clock;
mod commit;
mod config;
mod coordinator;
mod error;
mod faults;
mod fetch;
mod ids;
mod join;
mod journal;
mod log;
mod membership;
mod memory;
mod producer;
mod publish;
mod rate_limit;
mod routing;
mod stream;
mod streams;

pub use config::{Config, Limits, Retention};
pub use faults::{FaultScript, Faults, Target};
pub use memory::Memory;
