//! What the renewer has learned, and what that changes for this member.

use tokio::time::Instant;

use super::LeaseCoordinator;
use crate::lease::renewer::{LossReason, RenewerEvent};

impl LeaseCoordinator {
    /// Handles all events of the renewer.
    pub(super) fn on_renewer_events(&mut self) {
        loop {
            let events = self.renewer.take_events();
            if events.is_empty() {
                return;
            }
            for event in events {
                self.on_renewer_event(event);
            }
        }
    }

    fn on_renewer_event(&mut self, event: RenewerEvent) {
        let now = Instant::now();
        match event {
            RenewerEvent::Observed(row) => self.observe_row(*row),
            RenewerEvent::RowDeleted(key) => self.view.forget(&key),
            RenewerEvent::Lost(reason) => {
                self.schedule.decide_at(now);
                if let Some(leaving) = &mut self.leaving {
                    leaving.expired |= reason == LossReason::Expired;
                }
            }
            RenewerEvent::Released { key, next_owner } => {
                if self.leaving.is_some() && next_owner.is_none() {
                    self.changed.insert(key);
                }
                self.schedule.decide_at(now);
            }
            RenewerEvent::HandoffRequested => {
                // The requester has just joined, perhaps along with others.
                self.schedule.expect_changes(now);
                self.schedule.scan_soon(now);
            }
            RenewerEvent::Notified => self.on_notified(now),
            RenewerEvent::NotifiedByScan => self.schedule.expect_changes(now),
            RenewerEvent::ChildrenCreated {
                stream,
                shards,
                rows,
            } => {
                let listed = self.shards.entry(stream).or_default();
                for child in shards {
                    if !listed.iter().any(|shard| shard.id == child.id) {
                        listed.push(child);
                    }
                }
                for row in rows {
                    self.observe_row(row);
                }
            }
            RenewerEvent::ShardEnded { lease, children } => {
                let children = self.keys_of(&lease, &children);
                let is_mine = |key: &_| self.renewer.holds(key) || self.taking.contains(key);
                if !children.iter().all(|key| is_mine(key)) {
                    // The children may begin, and their owners do not know it yet.
                    self.notify_about(children);
                }
                self.check_all_parents();
            }
            RenewerEvent::ShardEndFailed { stream, error } => {
                self.on_table_error(&error);
                self.sync(&stream);
            }
            RenewerEvent::TableError(error) => self.on_table_error(&error),
        }
    }
}
