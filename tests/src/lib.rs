//! What every backend of millstream must prove, and the checker of what it did.
//!
//! A backend's author implements [`Harness`], and runs every [`Case`] of [`cases::all`] as a test
//! of its own; the memory backend's target, `tests/tests/memory.rs`, shows how. A case that needs
//! what a backend does not promise is listed there as ignored, by its name, and never passes in
//! silence.
//!
//! [`history`] records what happens in a case, and [`checker`] finds what must not have happened.

pub mod cases;
pub mod checker;
#[cfg(any(feature = "kafka", feature = "kinesis"))]
mod containers;
#[cfg(any(feature = "kafka", feature = "kinesis"))]
mod events;
mod faulty_backend;
pub mod fleet;
mod harness;
pub mod history;
#[cfg(feature = "kafka")]
pub mod kafka;
#[cfg(feature = "kinesis")]
pub mod kinesis;
#[cfg(feature = "simulation")]
pub mod simulation;

pub use cases::Case;
#[cfg(any(feature = "kafka", feature = "kinesis"))]
pub use events::Events;
pub use faulty_backend::FaultyBackend;
pub use harness::{Fault, Harness, Hooks, Need, Timing, eventually, unique_stream};
