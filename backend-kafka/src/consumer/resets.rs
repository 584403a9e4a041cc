//! Resets, as the members that own the partitions obey them.
//!
//! See [`reset`](crate::group::reset) for how they are asked for.

use std::time::Instant;

use millstream_core::driver::Event;

use super::context::Name;
use super::poller::Poller;
use super::slots::{Move, Stage};

impl Poller {
    /// Has the partitions drained whose group was moved; each goes on from the new place.
    pub(super) fn on_resets(&mut self, resets: Vec<(Name, Move)>) {
        let now = Instant::now();
        let until = now + self.join.drain;
        let mut told = Vec::new();
        for ((topic, partition), to) in resets {
            let Some(index) = self.slots.find(&topic, partition) else {
                continue;
            };
            let slot = self.slots.get_mut(index);
            if slot.reset >= Some(to.id) {
                continue;
            }
            match slot.stage {
                Stage::Owned => {
                    let reset = Some(to);
                    slot.stage = Stage::Draining { until, reset };
                    told.push((slot.partition.clone(), slot.epoch));
                }
                // Not stored yet, so tried again.
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
