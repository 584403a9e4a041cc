//! The memory backend of millstream: a real broker in the process.
//!
//! Partitions, keys, groups, epochs, rebalance, reshard, retention and limits behave as those of a
//! broker do, so that an application's tests tell the truth. It is not a channel with the same
//! interface.
//!
//! * **Time** is tokio's: under `tokio::time::pause` session time-outs, drains and retention take
//!   no real time, and a run on a single-threaded runtime is the same each time. There are no tasks
//!   in the background.
//! * **Faults** ([`Memory::faults`], [`FaultScript`]) fail, delay and throttle sends, lose
//!   checkpoints, crash and pause members, and steal partitions.
//! * **Persistence** is an option ([`Config::persist`]).
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

mod assignment;
mod broker;
mod checkpoints;
mod clock;
mod config;
mod faults;
mod group;
mod ids;
mod journal;
mod log;
mod member;
mod membership;
mod memory;
mod pending;
mod producer;
mod publication;
mod rate;
mod refusal;
mod routing;
mod script;
mod session;
mod stream;
mod streams;

pub use config::{Config, Limits, Retention};
pub use faults::Faults;
pub use memory::Memory;
pub use script::{FaultScript, Target};
