//! Topics that are deleted and created again while a member reads them.
//!
//! librdkafka (2.12) goes on at the old offset in the new topic (`rd_kafka_topic_metadata_update`), so
//! the first records of that one would be skipped. The ids of topics tell the two apart. They are
//! asked for at each assignment and from then on every few seconds, and the id of the topic that was
//! read goes with each offset that is stored. So whatever is stored under the new topic before the
//! change is noticed is known to be of the old one, also to the next owner.

use std::collections::BTreeMap;
use std::time::Instant;

use millstream_core::driver::Event;
use millstream_core::telemetry::event;

use super::aide::TopicIds;
use super::poller::Poller;
use super::slots::{Move, Stage};
use crate::native::topic_ids::TopicId;

impl Poller {
    /// Has the partitions of topics that were created again drained; each is then read from its
    /// beginning.
    pub(super) fn on_topic_ids(&mut self, topic_ids: &TopicIds) {
        let until = Instant::now() + self.drain_timeout();
        let mut drained = Vec::new();
        let mut noticed = BTreeMap::new();
        for (_, slot) in self.slots.iter_mut() {
            let Some((topic, id)) = topic_ids.get_key_value(&slot.name.0) else {
                continue;
            };
            let Some(earlier) = slot.topic_id.filter(|known| known != id) else {
                continue;
            };
            let beginning = Move {
                offset: 0,
                reset: slot.reset,
                topic_id: Some(*id),
                stream_id: Some(*id),
            };
            match &mut slot.stage {
                stage @ Stage::Owned => {
                    let moves_to = Some(beginning);
                    *stage = Stage::Draining { until, moves_to };
                    drained.push((slot.partition.clone(), slot.epoch));
                    noticed.insert(topic.clone(), (earlier, *id));
                }
                // A reset was to places in the earlier topic.
                Stage::Draining {
                    moves_to: Some(to), ..
                }
                | Stage::Moving(to) => {
                    *to = Move {
                        reset: to.reset,
                        ..beginning
                    };
                }
                // The next owner compares the ids.
                Stage::Draining { moves_to: None, .. } | Stage::Left => {}
            }
        }
        for (topic, (earlier, id)) in noticed {
            self.report_recreated(&topic, earlier, id);
        }
        if !drained.is_empty() {
            self.put(Event::Revoking {
                partitions: drained,
                within: self.join.drain,
            });
        }
    }

    /// Reports that progress in a topic means nothing in the one that has its name now.
    pub(super) fn report_recreated(&self, stream: &str, earlier: TopicId, id: TopicId) {
        event!(
            warn, "millstream.kafka.stream.recreated", group = &*self.group, stream,
            %earlier, %id,
            "stream {stream} was deleted and created again: group {} reads it from its beginning",
            self.group,
        );
    }
}
