//! A partition that is received from, lost, revoked and assigned again at random.

use std::time::Duration;

use millstream_core::driver::Event;
use millstream_core::{Epoch, Position};

use crate::fake::{Script, partition};

/// What the driver knows of a partition.
#[derive(Debug)]
pub(crate) struct MovingPartition {
    id: &'static str,
    epoch: u64,
    is_owned: bool,
    is_revoked: bool,
    /// The next position that is sent.
    next: u64,
}

impl MovingPartition {
    /// Creates one that nobody owns.
    pub(crate) fn new(id: &'static str) -> Self {
        Self {
            id,
            epoch: 0,
            is_owned: false,
            is_revoked: false,
            next: 0,
        }
    }

    pub(crate) fn id(&self) -> &'static str {
        self.id
    }

    pub(crate) fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Assigns it behind the first `stored` records, unless it is owned.
    pub(crate) fn assign(&mut self, script: &Script, stored: u64) {
        if std::mem::replace(&mut self.is_owned, true) {
            return;
        }
        self.is_revoked = false;
        self.epoch += 1;
        self.next = stored;
        script.emit(Event::Assigned {
            partition: partition(self.id),
            epoch: Epoch(self.epoch),
            resume_after: stored.checked_sub(1).map(Position::from),
            stream_id: None,
        });
    }

    /// Sends up to `records` more, and none from position `end` on, if it is owned and not revoked.
    pub(crate) fn receive(
        &mut self,
        script: &Script,
        records: u64,
        end: u64,
        key: impl Fn(u64) -> char,
    ) {
        let end = (self.next + records).min(end);
        if self.is_owned && !self.is_revoked && self.next < end {
            let keys: String = (self.next..end).map(key).collect();
            let first = std::mem::replace(&mut self.next, end);
            script.records(self.id, self.epoch, first, &keys);
        }
    }

    pub(crate) fn mark_lost(&mut self, script: &Script) {
        if std::mem::take(&mut self.is_owned) {
            script.mark_lost(self.id, self.epoch);
        }
    }

    pub(crate) fn revoke(&mut self, script: &Script) {
        if self.is_owned && !std::mem::replace(&mut self.is_revoked, true) {
            script.revoke(self.id, self.epoch, Duration::from_secs(10));
        }
    }

    /// Notes that the member has released it.
    pub(crate) fn released(&mut self) {
        self.is_owned = false;
    }
}

/// Runs a test of random steps, on a clock of its own.
pub(crate) fn block_on(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build();
    runtime.unwrap().block_on(test);
}
