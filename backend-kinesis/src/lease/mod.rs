//! The leases of shards.
