//! Emulators of Amazon Kinesis and DynamoDB in containers, and a proxy in front of both that injects the faults of
//! AWS.
//!
//! No emulator behaves exactly like Kinesis. Tests use two, by different authors and with different gaps, and the
//! proxy adds what neither has: throttling, entries that fail, retention.
//!
//! Everything here panics when the container engine fails, because no test can continue without it.

mod age;
mod certificate;
pub mod consumer_events;
mod harness;
pub mod java;
mod proxy;
mod retention;
mod server;
mod steal;
mod testbed;
mod tls;

pub use harness::{KinesisHarness, Variant};
pub use proxy::{Endpoint, Faults, Polls, Proxy, Read, RequestStats, Sent, Service, Streams};
pub use server::{Emulator, Server};
pub use testbed::Testbed;
pub use tls::Tls;
