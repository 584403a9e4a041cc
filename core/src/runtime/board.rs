//! What a member and its [`Control`](crate::Control)s share: wishes one way, read-outs the other.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use tokio::sync::Notify;

use super::counters::Counters;
use crate::lock::lock;
use crate::{Partition, PartitionStats};

#[derive(Debug, Default)]
pub(crate) struct Board {
    pub(crate) counters: Arc<Counters>,
    wishes: Mutex<Wishes>,
    /// Rung when the wishes have changed.
    bell: Notify,
    partitions: Mutex<BTreeMap<Partition, Arc<Mutex<PartitionStats>>>>,
}

/// What a user has asked of a member.
#[derive(Debug, Clone, Default)]
pub(crate) struct Wishes {
    pub(crate) shutdown: bool,
    paused_all: bool,
    paused: BTreeSet<Partition>,
}

impl Wishes {
    pub(crate) fn pauses(&self, partition: &Partition) -> bool {
        self.paused_all || self.paused.contains(partition)
    }

    pub(crate) fn pause(&mut self, partition: Option<&Partition>) {
        match partition {
            Some(partition) => _ = self.paused.insert(partition.clone()),
            None => self.paused_all = true,
        }
    }

    pub(crate) fn resume(&mut self, partition: Option<&Partition>) {
        match partition {
            Some(partition) => _ = self.paused.remove(partition),
            None => {
                self.paused_all = false;
                self.paused.clear();
            }
        }
    }
}

impl Board {
    /// Changes the wishes and rings.
    pub(crate) fn wish(&self, change: impl FnOnce(&mut Wishes)) {
        change(&mut lock(&self.wishes));
        self.bell.notify_one();
    }

    pub(crate) fn wishes(&self) -> Wishes {
        lock(&self.wishes).clone()
    }

    /// Waits for the bell. A ring that nobody waited for is kept.
    pub(crate) async fn rung(&self) {
        self.bell.notified().await;
    }

    pub(crate) fn show(&self, partition: &Partition, stats: Arc<Mutex<PartitionStats>>) {
        lock(&self.partitions).insert(partition.clone(), stats);
    }

    /// Takes a partition off, unless a newer assignment of it is shown.
    pub(crate) fn hide(&self, partition: &Partition, stats: &Arc<Mutex<PartitionStats>>) {
        let mut partitions = lock(&self.partitions);
        if partitions
            .get(partition)
            .is_some_and(|shown| Arc::ptr_eq(shown, stats))
        {
            partitions.remove(partition);
        }
    }

    pub(crate) fn partitions(&self) -> BTreeMap<Partition, PartitionStats> {
        lock(&self.partitions)
            .iter()
            .map(|(partition, stats)| (partition.clone(), *lock(stats)))
            .collect()
    }
}
