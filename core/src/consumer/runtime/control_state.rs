//! State shared by a member and its [`ConsumerHandle`](crate::ConsumerHandle)s: requests to the
//! member, and statistics from it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use tokio::sync::Notify;

use super::counters::Counters;
use super::published_stats::PublishedStats;
use crate::sync::lock;
use crate::{Partition, PartitionStats};

#[derive(Debug, Default)]
pub(crate) struct ControlState {
    pub(crate) counters: Arc<Counters>,
    requests: Mutex<ControlRequests>,
    /// Notified when the requests have changed.
    notify: Notify,
    partitions: Mutex<BTreeMap<Partition, Arc<PublishedStats>>>,
}

/// What the application has requested of a member.
#[derive(Debug, Clone, Default)]
pub(crate) struct ControlRequests {
    pub(crate) shutdown: bool,
    paused_all: bool,
    /// Partitions for which the opposite of `paused_all` was requested later.
    exceptions: BTreeSet<Partition>,
}

impl ControlRequests {
    pub(crate) fn pauses(&self, partition: &Partition) -> bool {
        self.paused_all != self.exceptions.contains(partition)
    }

    pub(crate) fn set_paused(&mut self, partition: &Partition, paused: bool) {
        if paused == self.paused_all {
            self.exceptions.remove(partition);
        } else {
            self.exceptions.insert(partition.clone());
        }
    }

    pub(crate) fn set_all_paused(&mut self, paused: bool) {
        self.paused_all = paused;
        self.exceptions.clear();
    }
}

impl ControlState {
    /// Changes the requests and notifies the member.
    pub(crate) fn update(&self, change: impl FnOnce(&mut ControlRequests)) {
        change(&mut lock(&self.requests));
        self.notify.notify_one();
    }

    pub(crate) fn requests(&self) -> ControlRequests {
        lock(&self.requests).clone()
    }

    /// Waits for a change. A change before the call is kept for it.
    pub(crate) async fn changed(&self) {
        self.notify.notified().await;
    }

    /// Waits until a shutdown is requested. Other requests that arrive in the meantime stay to be read.
    pub(crate) async fn shutdown_requested(&self) {
        while !lock(&self.requests).shutdown {
            self.changed().await;
        }
    }

    pub(crate) fn publish_stats(&self, partition: &Partition, stats: Arc<PublishedStats>) {
        lock(&self.partitions).insert(partition.clone(), stats);
    }

    /// Removes a partition, unless a newer assignment of it is published.
    pub(crate) fn remove_stats(&self, partition: &Partition, stats: &Arc<PublishedStats>) {
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
            .map(|(partition, stats)| (partition.clone(), stats.read()))
            .collect()
    }
}
