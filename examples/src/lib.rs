//! What the small programs share: streams with something in them, and a shutdown for programs that
//! end by themselves.
//!
//! Nothing here names a backend. `millstream::Settings` reads from the environment which one to use.

mod caught_up;
mod sample;

pub use caught_up::caught_up;
pub use sample::{create, fill};
