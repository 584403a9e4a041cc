//! Resets, as the members that own the partitions obey them.
//!
//! See [`reset`](crate::group::reset) for how they are asked for.

use std::time::Instant;

use millstream_core::driver::Event;

use super::aide::Reset;
use super::context::Name;
use super::poller::Poller;
use super::slots::{Move, Stage};

impl Poller {
    /// Has the partitions drained whose group was moved; each goes on from the new place.
    pub(super) fn on_resets(&mut self, resets: Vec<(Name, Reset)>) {
        let until = Instant::now() + self.drain_timeout();
        let mut told = Vec::new();
        for ((topic, partition), reset) in resets {
            let Some(index) = self.slots.find(&topic, partition) else {
                continue;
            };
            let slot = self.slots.get_mut(index);
            if slot.reset >= Some(reset.id) {
                continue;
            }
            let to = Move {
                offset: reset.offset,
                reset: Some(reset.id),
                topic_id: slot.topic_id,
                stream_id: slot.stream_id,
            };
            match slot.stage {
                Stage::Owned => {
                    let moves_to = Some(to);
                    slot.stage = Stage::Draining { until, moves_to };
                    told.push((slot.partition.clone(), slot.epoch));
                }
                // The older one is not stored yet.
                Stage::Moving(_) => {
                    slot.stage = Stage::Moving(to);
                    self.commits.hurry();
                }
                Stage::Draining { .. } | Stage::Left => {}
            }
        }
        if !told.is_empty() {
            self.put(Event::Revoking {
                partitions: told,
                within: self.join.drain,
            });
        }
    }
}
