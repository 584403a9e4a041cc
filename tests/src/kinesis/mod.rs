//! Emulators of Amazon Kinesis and of DynamoDB in containers, and a proxy before both that does to
//! their clients what AWS does on a bad day.
//!
//! No emulator is Kinesis. Two of them stand in for it here, by different authors and with different
//! gaps, and the proxy adds what neither has: throttling, entries that fail, retention.
//!
//! Everything here panics when the engine does not do what is asked: there is no test to continue with.

mod age;
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
pub use proxy::{Faults, Proxy, Read, RequestStats, Sent, Service};
pub use server::{Emulator, Server};
pub use testbed::Testbed;
pub use tls::Tls;
