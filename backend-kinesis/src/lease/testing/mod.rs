//! What tests of leases stand on.

pub(crate) mod contract;
pub(crate) mod memory;
pub(crate) mod rig;
pub(crate) mod source;
