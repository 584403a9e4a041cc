//! What tests of leases stand on.

pub(crate) mod memory;
