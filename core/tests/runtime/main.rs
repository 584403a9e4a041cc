//! The runtime against a driver that the tests write.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod batch_failures;
mod batch_log;
mod batches;
mod bounds;
mod consumer;
mod dead_letters;
mod desk;
mod failures;
mod fairness;
mod fake;
mod late_retries;
mod leaving;
mod letters;
mod live;
mod log_lines;
mod moving_partition;
mod panics;
mod pipeline_interleavings;
mod publishing;
mod pull;
mod pull_interleavings;
mod refusals;
mod requirements;
mod stalls;
mod telemetry;
