//! The content of a transaction.

use std::sync::Arc;

use millstream_core::Record;
use rdkafka::TopicPartitionList;
use rdkafka::consumer::ConsumerGroupMetadata;

use crate::producer::size_limits::SizeLimits;

/// Records of one stream, and the progress that is stored with them.
pub(crate) struct Transaction {
    pub(crate) stream: Arc<str>,
    /// The size limits of the stream.
    pub(crate) limits: SizeLimits,
    pub(crate) records: Vec<Record>,
    pub(crate) offsets: TopicPartitionList,
    /// The identity of the member, read before its ownership was checked.
    pub(crate) member: ConsumerGroupMetadata,
}
