//! The parts of a stream: its shards, and the hashes that route keys to them.

mod hash;
mod list;
mod origin;

pub(crate) use hash::{HashKey, HashRange};
pub(crate) use list::{Shard, StreamInfo, describe, shards};
