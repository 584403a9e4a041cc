//! Restarts partitions at another position with the same member.
//!
//! **Resets.** See [`reset`](crate::group::reset) for how they are requested.
//!
//! **Topics that are deleted and recreated** while a member reads them. librdkafka (2.12) continues at
//! the old offset in the new topic (`rd_kafka_topic_metadata_update`), so the first records of the new topic
//! would be skipped. The ids of topics distinguish the two. The ids are requested at each assignment and every few
//! seconds after that, and the id of the topic that was read is stored with each offset.
//! So an offset that is stored under the new topic before the change is noticed is known to be of the old topic,
//! also to the next owner.
//!
//! In both cases the runtime drains the partition, the new position is stored, and a new epoch begins there.

use std::collections::BTreeMap;
use std::time::Instant;

use millstream_core::telemetry::event;

use super::assigned::{RestartPoint, Stage};
use super::assignment::{Assignment, Owned};
use super::question::{Reset, TopicIds};
use crate::consumer::types::TopicPartition;
use crate::native::topic_ids::TopicId;

/// The partitions that restart.
#[derive(Debug, Default)]
pub(crate) struct Restarts {
    /// The partitions that the runtime must drain first.
    pub(crate) draining: Owned,
    /// Whether a position must be stored now.
    pub(crate) is_to_be_stored: bool,
}

/// Starts to drain partitions whose group was reset. Each then continues from the new position.
pub(crate) fn on_resets(
    resets: Vec<(TopicPartition, Reset)>,
    assignment: &mut Assignment,
    until: Instant,
) -> Restarts {
    let mut restarts = Restarts::default();
    for ((topic, partition), reset) in resets {
        let Some(index) = assignment.find(&topic, partition) else {
            continue;
        };
        let it = assignment.get_mut(index);
        if it.reset >= Some(reset.id) {
            continue;
        }
        let at = RestartPoint {
            offset: reset.offset,
            reset: Some(reset.id),
            topic_id: it.topic_id,
            stream_id: it.stream_id,
        };
        match it.stage {
            Stage::Owned => {
                let restart = Some(at);
                it.stage = Stage::Draining { until, restart };
                restarts.draining.push((it.partition.clone(), it.epoch));
            }
            // The older reset is not stored yet.
            Stage::Restarting(_) => {
                it.stage = Stage::Restarting(at);
                restarts.is_to_be_stored = true;
            }
            Stage::Draining { .. } | Stage::Released => {}
        }
    }
    restarts
}

/// Starts to drain the partitions of topics that were recreated. Each is then read from its beginning.
pub(crate) fn on_topic_ids(
    topic_ids: &TopicIds,
    assignment: &mut Assignment,
    until: Instant,
    group: &str,
) -> Restarts {
    let mut restarts = Restarts::default();
    let mut recreated = BTreeMap::new();
    for it in assignment.iter_mut() {
        let Some((topic, id)) = topic_ids.get_key_value(&it.name.0) else {
            continue;
        };
        let Some(earlier) = it.topic_id.filter(|known| known != id) else {
            continue;
        };
        let beginning = RestartPoint {
            offset: 0,
            reset: it.reset,
            topic_id: Some(*id),
            stream_id: Some(*id),
        };
        match &mut it.stage {
            stage @ Stage::Owned => {
                let restart = Some(beginning);
                *stage = Stage::Draining { until, restart };
                restarts.draining.push((it.partition.clone(), it.epoch));
                recreated.insert(topic.clone(), (earlier, *id));
            }
            // The reset named offsets in the earlier topic.
            Stage::Draining {
                restart: Some(at), ..
            }
            | Stage::Restarting(at) => {
                *at = RestartPoint {
                    reset: at.reset,
                    ..beginning
                };
            }
            // The next owner compares the ids.
            Stage::Draining { restart: None, .. } | Stage::Released => {}
        }
    }
    for (topic, (earlier, id)) in recreated {
        report_recreated(group, &topic, earlier, id);
    }
    restarts
}

/// Reports that progress in an earlier topic means nothing in the current topic of the same name.
pub(crate) fn report_recreated(group: &str, stream: &str, earlier: TopicId, id: TopicId) {
    event!(
        warn, "millstream.kafka.stream.recreated", group, stream, %earlier, %id,
        "stream {stream} was deleted and created again: group {group} reads it from its beginning",
    );
}
