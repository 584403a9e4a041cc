use std::sync::Arc;

use millstream_core::Delivery;

use super::generator::{digest_of, id_of_delivery};
use super::{Event, Handling, History, Incarnations, Outcome, Ownership};

/// Records the actions of one member.
#[derive(Debug, Clone)]
pub struct Observer {
    history: History,
    group: Arc<str>,
    member: Arc<str>,
    incarnations: Incarnations,
}

impl Observer {
    /// Observes `member` of `group`, and records that it joins.
    pub fn new(history: &History, group: &str, member: &str) -> Self {
        let observer = Self {
            history: history.clone(),
            group: group.into(),
            member: member.into(),
            incarnations: Incarnations::default(),
        };
        history.record(Event::Joined {
            group: observer.group.clone(),
            member: observer.member.clone(),
        });
        observer
    }

    /// Uses the names of `incarnations` for recreated streams.
    #[must_use]
    pub fn with_incarnations(mut self, incarnations: &Incarnations) -> Self {
        self.incarnations = incarnations.clone();
        self
    }

    /// Records that the handler begins with `delivery`.
    pub fn begin(&self, delivery: &Delivery) -> BegunHandling {
        let handling = Handling {
            by: self.ownership(delivery),
            position: delivery.position(),
            attempt: delivery.attempt(),
            id: id_of_delivery(delivery).unwrap_or(u64::MAX),
            digest: digest_of(delivery),
            lost: delivery.is_lost(),
        };
        self.history.record(Event::Began(handling.clone()));
        BegunHandling {
            history: self.history.clone(),
            handling: Some(handling),
        }
    }

    /// Records that the member learned that it has lost the partition of `delivery`.
    pub fn lost(&self, delivery: &Delivery) {
        self.history.record(Event::Lost(self.ownership(delivery)));
    }

    /// Records that the member has left cleanly.
    pub fn left(&self) {
        self.history.record(Event::Left {
            group: self.group.clone(),
            member: self.member.clone(),
        });
    }

    /// Records that the member is about to be killed.
    pub fn crashed(&self) {
        self.history.record(Event::Crashed {
            group: self.group.clone(),
            member: self.member.clone(),
        });
    }

    /// Returns the member's name.
    pub fn member(&self) -> &str {
        &self.member
    }

    fn ownership(&self, delivery: &Delivery) -> Ownership {
        Ownership {
            group: self.group.clone(),
            member: self.member.clone(),
            partition: self.incarnations.partition(delivery),
            epoch: delivery.epoch(),
        }
    }
}

/// A handling that has begun. Dropping it records that the handler was dropped.
#[derive(Debug)]
#[must_use = "a handling that is dropped counts as cut off"]
pub struct BegunHandling {
    history: History,
    handling: Option<Handling>,
}

impl BegunHandling {
    /// Records the result of the handler, right before it returns.
    pub fn end(mut self, outcome: Outcome) {
        self.finish(outcome);
    }

    /// Returns the id of the record.
    pub fn id(&self) -> u64 {
        self.handling.as_ref().map_or(u64::MAX, |h| h.id)
    }

    fn finish(&mut self, outcome: Outcome) {
        if let Some(handling) = self.handling.take() {
            self.history.record(Event::Ended { handling, outcome });
        }
    }
}

impl Drop for BegunHandling {
    fn drop(&mut self) {
        self.finish(Outcome::Dropped);
    }
}
