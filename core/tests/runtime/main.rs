//! The runtime against a driver that the tests write.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod batches;
mod bounds;
mod consumer;
mod desk;
mod failures;
mod fairness;
mod fake;
mod leaving;
mod letters;
mod live;
mod log_lines;
mod moving_partition;
mod pipeline_interleavings;
mod publishing;
mod pull;
mod pull_interleavings;
mod refusals;
mod stalls;
mod telemetry;
