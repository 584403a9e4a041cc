//! Fetching the records of one shard.
