//! A member's questions to the cluster.

use std::collections::HashMap;
use std::sync::Arc;

use millstream_core::Error;

use super::progress::Progress;
use crate::consumer::types::TopicPartition;
use crate::native::topic_ids::TopicId;

/// A question to the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Question {
    /// The stored progress of partitions that are being assigned. Retried until there is a result.
    Progress(Vec<TopicPartition>),
    /// Whether others have stored progress where this member would. Retried until there is a result.
    Unstored(Vec<TopicPartition>),
    /// The oldest and the next offset of a partition. Retried until there is a result.
    Bounds(TopicPartition),
    /// The next offsets of partitions. Not retried: the question is asked again later.
    Ends(Vec<TopicPartition>),
    /// Whether a topic still exists. Retried until it is found, or is certainly gone.
    Topic(Arc<str>),
}

/// A result from the cluster.
#[derive(Debug)]
pub(crate) enum Finding {
    Progress {
        progress: Vec<(TopicPartition, Option<Progress>)>,
        /// The known ids of their topics.
        topic_ids: TopicIds,
    },
    /// The partitions without a stored offset.
    Unstored(Vec<TopicPartition>),
    Bounds {
        partition: TopicPartition,
        low: i64,
        high: i64,
        /// The id of its topic, if it is known.
        topic_id: Option<TopicId>,
    },
    /// The current ids of topics.
    TopicIds(TopicIds),
    Ends(Vec<(TopicPartition, i64)>),
    /// The topic is gone.
    NoTopic(Arc<str>),
    /// The requested resets.
    Resets(Vec<(TopicPartition, Reset)>),
    /// Retries cannot produce a result.
    Failed(Error),
}

/// The ids of topics, by name.
pub(crate) type TopicIds = HashMap<Arc<str>, TopicId>;

/// A request to move a group in a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Reset {
    /// A number that grows with each reset of the group.
    pub(crate) id: u64,
    pub(crate) offset: i64,
}
