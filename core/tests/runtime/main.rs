//! The runtime against a driver that the tests write.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod consumer;
mod desk;
mod fake;
mod leaving;
mod publishing;
mod pull;
mod telemetry;
