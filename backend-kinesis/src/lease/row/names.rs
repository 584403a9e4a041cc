//! The names of attributes. Those of the KCL are its wire format; those of millstream have a prefix.

pub(crate) const KEY: &str = "leaseKey";
pub(crate) const COUNTER: &str = "leaseCounter";
pub(crate) const OWNER: &str = "leaseOwner";
pub(crate) const SWITCHES: &str = "ownerSwitchesSinceCheckpoint";
pub(crate) const CHECKPOINT: &str = "checkpoint";
pub(crate) const SUB: &str = "checkpointSubSequenceNumber";
pub(crate) const PENDING: [&str; 3] = [
    "pendingCheckpoint",
    "pendingCheckpointSubSequenceNumber",
    "pendingCheckpointState",
];
pub(crate) const PARENTS: &str = "parentShardId";
pub(crate) const CHILDREN: &str = "childShardIds";
pub(crate) const FIRST_HASH: &str = "startingHashKey";
pub(crate) const LAST_HASH: &str = "endingHashKey";
pub(crate) const CHECKPOINT_OWNER: &str = "checkpointOwner";
pub(crate) const ENTITY: &str = "entityType";
pub(crate) const STREAM_NAME: &str = "streamName";
pub(crate) const SHARD_ID: &str = "shardId";

pub(crate) const EPOCH: &str = "millstreamEpoch";
pub(crate) const TAKER: &str = "millstreamOwner";
pub(crate) const REQUESTER: &str = "millstreamAsker";
pub(crate) const RESCAN: &str = "millstreamLook";
pub(crate) const START: &str = "millstreamStart";
pub(crate) const RESOLVED: &str = "millstreamResolved";
pub(crate) const ITERATOR: &str = "millstreamIterator";
pub(crate) const TIP: &str = "millstreamTip";
pub(crate) const TIP_AFTER: &str = "millstreamTipAfter";
pub(crate) const STREAM: &str = "millstreamStream";
pub(crate) const CREATED: &str = "millstreamCreated";

/// The only entity type of leases; older versions of the KCL write none.
pub(crate) const LEASE: &str = "LEASE";

pub(crate) const TRIM_HORIZON: &str = "TRIM_HORIZON";
pub(crate) const LATEST: &str = "LATEST";
pub(crate) const AT_TIMESTAMP: &str = "AT_TIMESTAMP";
pub(crate) const SHARD_END: &str = "SHARD_END";
