use bytes::Bytes;

use crate::stream::HashKey;

/// What says to which shard a record goes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Address<'a> {
    pub(crate) partition_key: &'a Bytes,
    /// What finds the shard instead of the partition key's hash.
    pub(crate) explicit_hash_key: Option<HashKey>,
}

impl<'a> From<&'a Bytes> for Address<'a> {
    fn from(partition_key: &'a Bytes) -> Self {
        Self {
            partition_key,
            explicit_hash_key: None,
        }
    }
}
