//! The base of lease tests.

pub(crate) mod contract;
pub(crate) mod memory;
pub(crate) mod rig;
pub(crate) mod source;
