//! Faults of the broker, for tests: planned faults, scripts, and injection into a live broker.

mod injector;
pub(crate) mod plan;
pub(crate) mod script;

pub use injector::Faults;
pub use script::{FaultScript, Target};
