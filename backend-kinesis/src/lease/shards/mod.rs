//! Shard sync: the leases that a stream's shards need, when a group is created, and when some are missing.

mod known;
mod plan;
mod ranges;
mod sync;

pub(crate) use known::known;
pub(crate) use plan::{Known, Plan, descendants_of, initial, missing};
pub(crate) use ranges::{first_hole, tile};
pub(crate) use sync::{Created, begin, effective_start, sync};

#[cfg(test)]
mod tests;
