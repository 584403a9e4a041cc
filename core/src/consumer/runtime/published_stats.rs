//! The state of one partition, as its member publishes it for any thread to read.

use std::sync::Mutex;

use crate::sync::lock;
use crate::{Epoch, Lag, OldestUnsettled, PartitionStats, Position};

/// Small, because a member of many partitions writes it for each batch of records.
#[derive(Debug)]
pub(crate) struct PublishedStats {
    epoch: Epoch,
    state: Mutex<PublishedState>,
}

#[derive(Debug)]
struct PublishedState {
    settled: Option<Position>,
    unsettled: usize,
    lag: Lag,
    paused: bool,
    /// Boxed, because it is unset while records settle quickly.
    oldest_unsettled: Option<Box<OldestUnsettled>>,
}

impl PublishedStats {
    pub(crate) fn new(epoch: Epoch, settled: Option<Position>) -> Self {
        Self {
            epoch,
            state: Mutex::new(PublishedState {
                settled,
                unsettled: 0,
                lag: Lag::default(),
                paused: false,
                oldest_unsettled: None,
            }),
        }
    }

    pub(crate) fn set_lag(&self, lag: Lag) {
        lock(&self.state).lag = lag;
    }

    /// Sets what records change, and forgets the oldest unsettled record if it is settled now.
    pub(crate) fn set_progress(&self, settled: Option<Position>, unsettled: usize, paused: bool) {
        let mut state = lock(&self.state);
        state.settled = settled;
        state.unsettled = unsettled;
        state.paused = paused;
        let oldest = state.oldest_unsettled.as_ref();
        if oldest.is_some_and(|oldest| Some(oldest.position) <= settled) {
            state.oldest_unsettled = None;
        }
    }

    pub(crate) fn set_oldest_unsettled(&self, oldest: Option<OldestUnsettled>) {
        lock(&self.state).oldest_unsettled = oldest.map(Box::new);
    }

    pub(crate) fn read(&self) -> PartitionStats {
        let state = lock(&self.state);
        PartitionStats {
            epoch: self.epoch,
            settled: state.settled,
            unsettled: state.unsettled,
            oldest_unsettled: state.oldest_unsettled.as_deref().cloned(),
            paused: state.paused,
            lag: state.lag,
        }
    }
}
