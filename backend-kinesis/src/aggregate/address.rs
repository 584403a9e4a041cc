use bytes::Bytes;

use crate::stream::HashKey;

/// Decides the shard of a record.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Address<'a> {
    pub(crate) partition_key: &'a Bytes,
    /// Selects the shard in place of the partition key's hash.
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
