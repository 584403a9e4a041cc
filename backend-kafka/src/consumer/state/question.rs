//! What a member asks the cluster.

use std::collections::HashMap;
use std::sync::Arc;

use millstream_core::Error;

use super::progress::Progress;
use crate::consumer::types::TopicPartition;
use crate::native::topic_ids::TopicId;

/// A question to the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Question {
    /// The stored progress of partitions that are being assigned. Asked until it is answered.
    Progress(Vec<TopicPartition>),
    /// Whether others have stored progress where this member would. Asked until it is answered.
    Unstored(Vec<TopicPartition>),
    /// The oldest and the next offset of a partition. Asked until it is answered.
    Bounds(TopicPartition),
    /// The next offsets of partitions. Asked once: it will be asked again.
    Ends(Vec<TopicPartition>),
    /// Whether a topic is still there. Asked until it is there, or is certainly gone.
    Topic(Arc<str>),
}

/// What became known.
#[derive(Debug)]
pub(crate) enum Finding {
    Progress {
        progress: Vec<(TopicPartition, Option<Progress>)>,
        /// The ids of their topics, as far as they are known.
        topic_ids: TopicIds,
    },
    /// The partitions of which nothing is stored.
    Unstored(Vec<TopicPartition>),
    Bounds {
        partition: TopicPartition,
        low: i64,
        high: i64,
        /// The id of its topic, if it is known.
        topic_id: Option<TopicId>,
    },
    /// The ids that topics have now.
    TopicIds(TopicIds),
    Ends(Vec<(TopicPartition, i64)>),
    /// The topic is gone.
    NoTopic(Arc<str>),
    /// Resets that were requested.
    Resets(Vec<(TopicPartition, Reset)>),
    /// No waiting will answer it.
    Failed(Error),
}

/// The ids of topics, by name.
pub(crate) type TopicIds = HashMap<Arc<str>, TopicId>;

/// A request to move a group in a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Reset {
    /// Grows with each reset of the group.
    pub(crate) id: u64,
    pub(crate) offset: i64,
}
