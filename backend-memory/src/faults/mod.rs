//! Faults of the broker, for tests: planned faults, scripts, and injection into a live broker.

mod injector;
pub(crate) mod plan;
mod script;

pub use injector::Faults;
pub use script::{FaultScript, Target};
