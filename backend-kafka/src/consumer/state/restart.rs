//! Partitions that restart at another place with the same member.
//!
//! **Resets.** See [`reset`](crate::group::reset) for how they are requested.
//!
//! **Topics that are deleted and created again** while a member reads them. librdkafka (2.12) goes on at
//! the old offset in the new topic (`rd_kafka_topic_metadata_update`), so the first records of that one
//! would be skipped. The ids of topics tell the two apart. They are asked for at each assignment and from
//! then on every few seconds, and the id of the topic that was read goes with each offset that is stored.
//! So whatever is stored under the new topic before the change is noticed is known to be of the old one,
//! also to the next owner.
//!
//! Either way the runtime drains the partition, the new place is stored, and a new epoch begins there.

use std::collections::BTreeMap;
use std::time::Instant;

use millstream_core::telemetry::event;

use super::assigned::{RestartPoint, Stage};
use super::assignment::{Assignment, Owned};
use super::question::{Reset, TopicIds};
use crate::consumer::types::TopicPartition;
use crate::native::topic_ids::TopicId;

/// What restarts.
#[derive(Debug, Default)]
pub(crate) struct Restarts {
    /// The partitions that the runtime has to drain first.
    pub(crate) draining: Owned,
    /// Whether a place is to be stored now.
    pub(crate) is_to_be_stored: bool,
}

/// Has partitions drained whose group was moved; each goes on from the new place.
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
            // The older one is not stored yet.
            Stage::Restarting(_) => {
                it.stage = Stage::Restarting(at);
                restarts.is_to_be_stored = true;
            }
            Stage::Draining { .. } | Stage::Released => {}
        }
    }
    restarts
}

/// Has the partitions of topics drained that were created again; each is then read from its beginning.
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
            // A reset was to places in the earlier topic.
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

/// Reports that progress in a topic means nothing in the one that has its name now.
pub(crate) fn report_recreated(group: &str, stream: &str, earlier: TopicId, id: TopicId) {
    event!(
        warn, "millstream.kafka.stream.recreated", group, stream, %earlier, %id,
        "stream {stream} was deleted and created again: group {group} reads it from its beginning",
    );
}
