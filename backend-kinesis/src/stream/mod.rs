//! The parts of a stream: its address, its shards, and the hashes that route keys to them.

mod address;
mod hash;
mod list;
mod origin;

pub(crate) use address::{Arn, NAME_LONGEST, address, arn, check_name};
pub(crate) use hash::{HashKey, HashRange};
pub(crate) use list::{Shard, StreamInfo, describe, shards};
