//! Code that the small programs share: streams with records, and a shutdown for programs that end by
//! themselves or at a signal.
//!
//! Nothing here names a backend: `millstream::Settings` reads it from the environment.

mod caught_up;
mod sample;

pub use caught_up::caught_up;
pub use sample::{create, fill};
