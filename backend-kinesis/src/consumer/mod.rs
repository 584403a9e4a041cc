//! Members of a group, and its stored progress.

mod checkpoints;
mod group;
pub(crate) mod lag;
mod membership;
mod shard_source;
mod table;

pub(crate) use checkpoints::Checkpoints;
pub(crate) use group::Group;
