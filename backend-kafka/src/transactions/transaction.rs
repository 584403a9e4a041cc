//! What is stored together.

use std::sync::Arc;

use millstream_core::Record;
use rdkafka::TopicPartitionList;
use rdkafka::consumer::ConsumerGroupMetadata;

use crate::producer::size_limits::SizeLimits;

/// Records of one stream, and the progress that they stand for.
pub(crate) struct Transaction {
    pub(crate) stream: Arc<str>,
    /// How large a batch of the stream may be.
    pub(crate) limits: SizeLimits,
    pub(crate) records: Vec<Record>,
    pub(crate) offsets: TopicPartitionList,
    /// The identity of the member before its ownership was checked.
    pub(crate) member: ConsumerGroupMetadata,
}
