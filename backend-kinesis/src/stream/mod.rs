//! What a stream is made of: its shards, and the hashes that lead keys to them.

mod hash;
mod list;

pub(crate) use hash::{HashKey, HashRange};
pub(crate) use list::{Shard, StreamInfo, describe, shards};
